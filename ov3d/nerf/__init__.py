"""Learning from photographs and class names: a radiance field that answers text (3D-OVS)."""
