"""Readers: one file layout each, all to the same `Scene`."""
