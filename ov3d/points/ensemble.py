"""2D-3D ensemble: of a point's fused feature and the network's, the one that is more confident of some class.

    f = f2 if max_k f2 . t_k >= max_k f3 . t_k and some camera saw the point, else f3

Source: Peng et al., *OpenScene*, CVPR 2023, section 3.4. Both are unit vectors of one space, so their cosines are comparable.

f2 comes from photographs. For a scene that the run was trained on, it is already in the run's folder; any other scene needs
photographs, whose features are extracted and lifted with the run's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ov3d.common.asking.index import INDEX_NAME, read_index
from ov3d.common.base.config import load_config
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import CONFIG_NAME, Run
from ov3d.common.base.shapes import Array, Bool, Float32
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.features import LiftedFeatures, read_lifted
from ov3d.common.readers.layout import scene_name
from ov3d.common.readers.scan import Scan
from ov3d.common.teachers import open_teacher
from ov3d.points.config import PointsConfig
from ov3d.points.stages.fuse import prepared

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class FusedScores:
    """Scores of a cloud from photographs.

    Attributes:
        scores: cosines of fused features with the k prompts, 0 for unseen points.
        seen: whether a point has a fused feature.
    """

    scores: Float32[Array, "n k"]
    seen: Bool[Array, " n"]

    @classmethod
    def of(cls, lifted: LiftedFeatures, text: Float32[Array, "k d"]) -> FusedScores:
        """Scores of a cloud's lifted features for the unit vectors of the prompts."""
        scores = np.zeros((lifted.num_points, len(text)), np.float32)
        scores[lifted.point_row] = lifted.scores(text)
        return cls(scores, lifted.row_of_point() >= 0)


def fused_scores(
    run: Run, scan: Scan, text: Float32[Array, "k d"], *, device: torch.device, progress: Progress
) -> FusedScores:
    """Scores of a scan's fused features: the run's own where the scan is one of its scenes, else lifted now.

    Args:
        run: with its configuration.
        scan: of finite points.
        text: unit vectors of the prompts.
        device: where an image encoder runs.
        progress: receives progress.

    Raises:
        UsageError: the scan has no photographs, and the run was not trained on it.
        DataError: the photographs do not show the cloud, or have no features.
    """
    lifted = _own(run, scan)
    if lifted is None:
        lifted = _lifted_now(run, scan, device, progress)
    return FusedScores.of(lifted, text)


def takes_fused(
    fused: Float32[Array, "n k"], network: Float32[Array, "m c"], seen: Bool[Array, " s"]
) -> Bool[Array, " n"]:
    """Which points take the fused feature; arguments and errors as of `ensemble_scores`."""
    if fused.shape != network.shape or len(seen) != len(fused):
        raise DataError(
            f"Scores of shapes {fused.shape} and {network.shape} for {len(seen)} points cannot be combined.",
            "They must come from the same cloud and prompts.",
        )
    if not fused.shape[1]:
        return np.zeros(len(fused), bool)
    return seen & (fused.max(axis=1) >= network.max(axis=1))


def ensemble_scores(
    fused: Float32[Array, "n k"], network: Float32[Array, "m c"], seen: Bool[Array, " s"]
) -> Float32[Array, "n k"]:
    """Raw cosines of the feature that each point takes.

    Args:
        fused: cosines of 2D features with the k prompts; the rows of unseen points are ignored.
        network: cosines of the 3D network's.
        seen: whether a point has a 2D feature.

    Raises:
        DataError: the three come from different clouds or prompts.
    """
    return np.where(takes_fused(fused, network, seen)[:, None], fused, network)


def _own(run: Run, scan: Scan) -> LiftedFeatures | None:
    """The lifted features of the run's scene that has exactly these points, if there is one."""
    names = (scene_name(scan.path), scene_name(scan.path.parent)) if scan.scene is None else (scan.scene.name,)
    for name in names:
        folder = run.indexes[name].parent if name in run.indexes else None
        if folder is None or not (folder / LIFTED_NAME).is_file():
            continue
        if np.array_equal(read_index(folder / INDEX_NAME).xyz, scan.xyz):
            return read_lifted(folder / LIFTED_NAME)
    return None


def _lifted_now(run: Run, scan: Scan, device: torch.device, progress: Progress) -> LiftedFeatures:
    """Features of a scene's photographs, lifted with the run's teacher and settings."""
    if scan.scene is None or not scan.scene.frames:
        raise UsageError(
            f"--ensemble needs photographs: {scan.path} has none and is not one of the run's scenes.",
            "Give a scene folder with posed photographs and a cloud, or omit --ensemble.",
        )
    config = load_config(PointsConfig, run.path / CONFIG_NAME)
    teacher = open_teacher(config.encoder, refine=config.refine, device=device)
    scene = prepared(scan.scene, teacher, config, progress=progress)
    assert scene.cloud is not None
    frames = teacher.features_of(scene, extract=True, progress=progress)
    return teacher.lift(scene, scene.cloud, frames, config.lift, progress=progress)
