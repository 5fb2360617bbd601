"""ov3d: ask a 3D scene for something in words.

The Python surface; everything is imported when it is first used, so that `import ov3d` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ov3d.api import extract_features as extract_features
    from ov3d.api import query as query
    from ov3d.api import train as train
    from ov3d.common.asking.answer import ask as ask
    from ov3d.common.asking.index import read_index as load_index
    from ov3d.common.readers import load_scene as load_scene

_LAZY = {
    "extract_features": ("ov3d.api", "extract_features"),
    "load_scene": ("ov3d.common.readers", "load_scene"),
    "load_index": ("ov3d.common.asking.index", "read_index"),
    "ask": ("ov3d.common.asking.answer", "ask"),
    "query": ("ov3d.api", "query"),
    "train": ("ov3d.api", "train"),
}

__all__ = ["__version__", "ask", "extract_features", "load_index", "load_scene", "query", "train"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ov3d' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
