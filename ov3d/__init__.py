"""ov3d: ask a 3D scene for something in words."""
