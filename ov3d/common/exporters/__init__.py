"""Exporters: what people take home from a scene: clouds, pictures, tables."""
