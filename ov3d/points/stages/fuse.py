"""Stage `fuse`: the features of photographs, averaged on the points they see, as an index that answers.

    scene -> features of its frames -> LiftedFeatures (lifted.safetensors) -> LanguageIndex (index.safetensors)

Every file is a function of the scene, the encoder and the configuration alone, so an interrupted run ends with the same bytes
as an uninterrupted one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.asking.index import INDEX_NAME, LanguageIndex, write_index
from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import read_run
from ov3d.common.base.shapes import Array, Float16, Float32
from ov3d.common.checks.views import check_views
from ov3d.common.language.specs import suitable_refinement
from ov3d.common.learning.run import Learnt, OpenRun
from ov3d.common.learning.run_lifting import SceneLifting, TakenOver, take_over
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import Scene
from ov3d.common.scenes.views import FILE_NAME as VIEWS_NAME
from ov3d.common.scenes.views import ViewSet, write_views
from ov3d.common.teachers.teacher import Teacher
from ov3d.points.config import PointsConfig
from ov3d.points.probes import PROBES
from ov3d.points.stage_metrics import Truth
from ov3d.points.vocabulary import SceneLabels

BLOCK_ROWS = 1 << 13


def fuse(run: OpenRun[PointsConfig], learnt: Learnt) -> tuple[SceneLabels, Truth]:
    """Fuse every scene of a run.

    Args:
        run: the run.
        learnt: receives the scenes' indexes and facts.

    Returns:
        What later stages, if any, need to know about the scenes: their classes and their truth.

    Raises:
        UsageError: class names to learn are missing.
        DataError: a scene cannot be fused, or has no scene-level labels.
    """
    config, scene_of, lifting = run.config, _Prepared(run), _lifting(run)
    if config.basis.energy < 1:
        training = [idx for idx, name in enumerate(run.source.ids) if name not in config.validation]
        lifting.choose(
            [run.folders[idx] for idx in training],
            lambda number: scene_of(training[number]),
            probe_texts(lifting.teacher, scene_of(training[0]).classes),
        )
    labels, truth = SceneLabels(config.labels, config.classes), Truth()
    for idx, folder in enumerate(run.folders):
        scene = scene_of(idx)
        if len(config.stages) > 1:
            labels.add(scene, training=scene.name not in config.validation)
            truth.add(scene)
        learnt.facts[scene.name] = fuse_scene(scene, lifting, config, folder)
        learnt.indexes[scene.name] = folder / INDEX_NAME
    return labels, truth


class _Prepared:
    """Scenes of a run, with clouds, by number; the last one is kept, so that a run of one scene prepares it once."""

    def __init__(self, run: OpenRun[PointsConfig]) -> None:
        self._run = run
        self._last: tuple[int, Scene] | None = None

    def __call__(self, idx: int) -> Scene:
        if self._last is None or self._last[0] != idx:
            self._last = None  # two scenes need not fit into memory
            run = self._run
            assert run.teacher is not None
            self._last = (idx, prepared(run.source[idx], run.teacher, run.config, progress=run.progress))
        return self._last[1]


def _lifting(run: OpenRun[PointsConfig]) -> SceneLifting:
    """What lifts the scenes of a run, with the features and the basis of another run if the configuration names one."""
    assert run.teacher is not None
    config = run.config
    return SceneLifting(
        teacher=run.teacher,
        config=config.lift,
        basis_config=config.basis,
        run=run.path,
        progress=run.progress,
        extract=run.options.extract,
        resume=run.options.resume,
        taken=take_over(read_run(config.lifted), config.basis) if config.lifted is not None else TakenOver(),
    )


def prepared(scene: Scene, teacher: Teacher, config: PointsConfig, *, progress: Progress) -> Scene:
    """The scene with a cloud, once it is clear that it can be fused.

    Raises:
        DataError: there is nothing to fuse, or frames see next to no point.
    """
    if teacher.needs_images(scene) and not scene.frames:
        raise DataError(f"Scene {scene.name} has no posed photographs to fuse.", "Give images with poses.")
    scene = with_cloud(scene, voxel_size=config.voxel_size, progress=progress)
    if scene.cloud is None or not len(scene.cloud):
        raise DataError(f"Scene {scene.name} has no points.", "Give a cloud, or depth images to make one from.")
    if teacher.needs_images(scene):
        check_views(scene.name, scene.cloud, scene.frames, config.lift)
    return scene


def fuse_scene(scene: Scene, lifting: SceneLifting, config: PointsConfig, folder: Path) -> dict[str, Any]:
    """Fuse one prepared scene into `folder`.

    Args:
        scene: with a cloud, from `prepared`.
        lifting: of the run, its basis chosen.
        config: how to fuse.
        folder: where the scene's files go.

    Returns:
        What a manifest should know.

    Raises:
        DataError: missing features that must not be extracted, or none on any point.
    """
    frames = lifting.frames_of(scene, folder)
    lifted = lifting.lifted(scene, frames, folder)
    if not len(lifted):
        raise DataError(f"No point of {scene.name} is seen by a frame with features.", "See: ov3d doctor SCENE")
    scene = replace(scene, frames=frames)
    index = _index(scene, lifted, lifting.teacher, config)
    write_index(folder / INDEX_NAME, index)
    write_views(folder / VIEWS_NAME, ViewSet.from_scene(scene))
    return {"points": lifted.num_points, "share_seen": lifted.share_seen, **index.facts}


def probe_texts(teacher: Teacher, classes: tuple[str, ...]) -> Float32[Array, "k d"]:
    """Unit vectors of the prompts that bases are chosen by: everyday words and the classes."""
    return teacher.text(tuple(dict.fromkeys((*PROBES, *classes))))


def point_features(lifted: LiftedFeatures, config: PointsConfig) -> Float16[Array, "v r"]:
    """What a point's score is a dot product with, as codes: the unit mean of its views, or the mean itself.

    A mean of unit vectors is the shorter the less the views agree, and its dot product with a text vector is the mean of the
    views' own cosines: one view that takes a wall for a cat is outvoted instead of being brought back to full length.
    """
    if config.score == "cosine":
        return lifted.code
    features = np.empty_like(lifted.code)
    for start in range(0, len(lifted), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        features[rows] = lifted.code[rows].astype(np.float32) * lifted.norms[rows, None]
    return features


def _index(scene: Scene, lifted: LiftedFeatures, teacher: Teacher, config: PointsConfig) -> LanguageIndex:
    facts = {
        "lifted": lifted.key,
        "frames": len(scene.frames),
        "refine": suitable_refinement(config.refine, config.encoder),
        "score": config.score,
        **({"lifted_basis": lifted.facts["basis"]} if "basis" in lifted.facts else {}),
        **teacher.facts(scene),
    }
    return LanguageIndex.of_lifted(
        replace(lifted, code=point_features(lifted, config)),
        scene,
        teacher.card,
        backend="points/fuse",
        facts=facts,
        probes=probe_texts(teacher, scene.classes),
        tolerance=config.score_tolerance,
    )
