"""What `ov3d doctor` checks: the machine, a scene, its views."""
