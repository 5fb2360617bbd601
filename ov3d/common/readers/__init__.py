"""Readers: turn a capture of any known layout into a `Scene` in this code base's conventions."""

from __future__ import annotations

from ov3d.common.readers.detect import LAYOUTS, load_scene, open_source, scene_of

__all__ = ["LAYOUTS", "load_scene", "open_source", "scene_of"]
