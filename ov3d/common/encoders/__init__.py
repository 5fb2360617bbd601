"""Encoders: one a file; `create_encoder` makes one from what a user types."""
