"""Stage `pseudo-label` of a run: every seen point of the training scenes gets a class; see `ov3d.points.pseudo_labels`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from ov3d.common.asking.index import INDEX_NAME, read_index
from ov3d.common.base.errors import CorruptFileError
from ov3d.common.base.shapes import Array, Int32
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import LiftedFeatures, read_lifted, write_lifted
from ov3d.points.lesson import Lesson, RunScene
from ov3d.points.material import POOLED_NAME
from ov3d.points.pseudo_labels import (
    PSEUDO_NAME,
    pseudo_key,
    pseudo_label,
    stored_pseudo_labels,
    write_pseudo_labels,
)
from ov3d.points.superpoints import pooled_features, pooled_key, propagate, superpoints

Pieces = Callable[[], Any]
"""The superpoint of each point of a scene [n], computed on first use."""


def label_scenes(lesson: Lesson) -> None:
    """Write the pseudo labels of every training scene and, if enabled, the pooled features of every scene."""
    with lesson.run.progress.task("Labelling points", len(lesson.scenes)) as task:
        for scene in lesson.scenes:
            lifted = read_lifted(scene.folder / LIFTED_NAME)
            pieces = cache(partial(_superpoints_of, scene.folder))
            _pool(lesson, scene, lifted, pieces)
            if scene.training:
                _label(lesson, scene, lifted, pieces)
            task.advance()


def _pool(lesson: Lesson, scene: RunScene, lifted: LiftedFeatures, pieces: Pieces) -> None:
    """Pool a scene's features over superpoints, if enabled and not done yet."""
    path = scene.folder / POOLED_NAME
    if not lesson.run.config.pseudo.superpoints:
        path.unlink(missing_ok=True)
    elif not (lesson.run.options.resume and path.is_file() and _key_of(path) == pooled_key(lifted)):
        write_lifted(path, pooled_features(lifted, pieces()))


def _label(lesson: Lesson, scene: RunScene, lifted: LiftedFeatures, pieces: Pieces) -> None:
    config, path = lesson.run.config.pseudo, scene.folder / PSEUDO_NAME
    key = pseudo_key(lifted.key, lesson.text, lesson.vocabulary, scene.present, config)
    pseudo = stored_pseudo_labels(path, key, lesson.run.progress) if lesson.run.options.resume else None
    if pseudo is None:
        spread = (lambda labels: propagate(labels, pieces())) if config.superpoints else None
        pseudo = pseudo_label(lifted, lesson.text, lesson.vocabulary, scene.present, config, spread)
        write_pseudo_labels(path, pseudo)
    lesson.learnt.facts[scene.name] |= pseudo.facts()


def _superpoints_of(folder: Path) -> Int32[Array, " n"]:
    index = read_index(folder / INDEX_NAME)
    return superpoints(index.xyz, index.rgb)


def _key_of(path: Path) -> str | None:
    """The key of stored features; None if the file is damaged, so that it is recreated."""
    try:
        return read_lifted(path).key
    except CorruptFileError:
        return None
