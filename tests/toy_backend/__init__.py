"""A whole backend: things that look alike are called alike."""
