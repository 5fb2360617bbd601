"""Stage `fuse`: the features of photographs, averaged on the points they see, as an index that answers.

    scene -> features of its frames -> LiftedFeatures (lifted.safetensors) -> LanguageIndex (index.safetensors)

Every file is a function of the scene, the encoder and the configuration alone, so an interrupted run ends with the same bytes
as one that was left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.asking.index import LanguageIndex, write_index
from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float16, Float32
from ov3d.common.checks.views import check_views
from ov3d.common.language.specs import suitable_refinement
from ov3d.common.learning.run_lifting import SceneLifting
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import Scene
from ov3d.common.scenes.views import FILE_NAME as VIEWS_NAME
from ov3d.common.scenes.views import ViewSet, write_views
from ov3d.common.teachers.teacher import Teacher
from ov3d.points.config import PointsConfig
from ov3d.points.probes import PROBES

INDEX_NAME = "index.safetensors"
BLOCK_ROWS = 1 << 13


@dataclass(frozen=True, slots=True)
class Fused:
    """What fusing a scene gave.

    Attributes:
        index: the file of its LanguageIndex.
        facts: what a manifest should know.
    """

    index: Path
    facts: dict[str, Any]


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


def fuse_scene(scene: Scene, lifting: SceneLifting, config: PointsConfig, folder: Path) -> Fused:
    """Fuse one prepared scene into `folder`.

    Args:
        scene: with a cloud, from `prepared`.
        lifting: of the run, its basis chosen.
        config: how to fuse.
        folder: where the scene's files go.

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
    return Fused(folder / INDEX_NAME, {"points": lifted.num_points, "share_seen": lifted.share_seen, **index.facts})


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
