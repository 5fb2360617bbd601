"""ov3d: ask a 3D scene for something in words.

The Python API; see `ov3d.api` for a tour. Everything is imported on first use, so `import ov3d` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ov3d.api import demo_scene as demo_scene
    from ov3d.api import evaluate as evaluate
    from ov3d.api import extract_features as extract_features
    from ov3d.api import predict as predict
    from ov3d.api import query as query
    from ov3d.api import train as train
    from ov3d.common.asking.answer import Answer as Answer
    from ov3d.common.asking.index import LanguageIndex as LanguageIndex
    from ov3d.common.asking.index import read_index as load_index
    from ov3d.common.asking.relevancy import FoundObject as FoundObject
    from ov3d.common.base.errors import Ov3dError as Ov3dError
    from ov3d.common.base.runs import Run as Run
    from ov3d.common.checks.scene import describe_scene as check_scene
    from ov3d.common.metrics.report import EvalReport as EvalReport
    from ov3d.common.readers import load_scene as load_scene
    from ov3d.common.scenes.scene import Scene as Scene

_LAZY = {
    "Answer": "ov3d.common.asking.answer:Answer",
    "EvalReport": "ov3d.common.metrics.report:EvalReport",
    "FoundObject": "ov3d.common.asking.relevancy:FoundObject",
    "LanguageIndex": "ov3d.common.asking.index:LanguageIndex",
    "Ov3dError": "ov3d.common.base.errors:Ov3dError",
    "Run": "ov3d.common.base.runs:Run",
    "Scene": "ov3d.common.scenes.scene:Scene",
    "check_scene": "ov3d.common.checks.scene:describe_scene",
    "demo_scene": "ov3d.api:demo_scene",
    "evaluate": "ov3d.api:evaluate",
    "extract_features": "ov3d.api:extract_features",
    "load_index": "ov3d.common.asking.index:read_index",
    "load_scene": "ov3d.common.readers:load_scene",
    "predict": "ov3d.api:predict",
    "query": "ov3d.api:query",
    "train": "ov3d.api:train",
}
"""The location of each name of the API, as `module:name`."""

__all__ = [
    "Answer",
    "EvalReport",
    "FoundObject",
    "LanguageIndex",
    "Ov3dError",
    "Run",
    "Scene",
    "__version__",
    "check_scene",
    "demo_scene",
    "evaluate",
    "extract_features",
    "load_index",
    "load_scene",
    "predict",
    "query",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ov3d' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
