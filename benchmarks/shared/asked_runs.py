"""A run with one index, as a backend leaves it, whose prompts were asked before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ov3d.common.asking.index import LanguageIndex, write_index
from ov3d.common.base.runs import new_run, write_manifest
from ov3d.common.language.text_cache import TextCache


def write_asked_run(index: LanguageIndex, texts: Mapping[str, np.ndarray]) -> Path:
    """Write a run of this index to the outputs, and the vectors of prompts to the text cache; the index's file."""
    TextCache().put(index.encoder.text, dict(texts))
    backend = index.backend.split("/")[0]
    run_path, file = new_run(index.scene, backend), f"{index.scene}/index.safetensors"
    write_index(run_path / file, index)
    write_manifest(run_path, {"backend": backend, "indexes": {index.scene: file}})
    return run_path / file
