"""How well a run labels the points of a scene, beside how well its 2D teacher labels the photographs.

Every prompted class gets its text vector; a point takes the best one, or none ("other") where the best raw cosine stays below
the presence threshold. The teacher answers the same question in every `step`-th pixel of every labelled view, with the same
threshold.

A run that was trained is asked for all classes of the scene, and every point takes the best one, without a threshold; beside
it stands what the features that it learnt from say to the same question. Photographs play no part then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.asking.corruption_note import corruption_note
from ov3d.common.asking.index import INDEX_NAME, LanguageIndex, read_index
from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Float32, Int32
from ov3d.common.metrics.prompted import PromptedTable, prompt_numbers, prompted_confusion
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.teachers.teacher import ImageFeatures, Teacher
from ov3d.points.config import PointsConfig

PIXEL_STEP = 4
"""The teacher is asked at every fourth pixel of every fourth row."""

BACKGROUNDS = ("background", "other", "unlabeled", "unlabelled", "unknown", "clutter", "void")
"""Names of classes that stand for everything else: they are no prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
        scene: its name.
        backend: what made the index.
        encoder: spec of the encoder.
        threshold: raw cosine from which a class counts as present.
        share_seen: share of the scene's points that have a feature.
        tables: the run's own, then its teacher's: dense features and, where the run refines, refined ones.
        notes: what a reader of the numbers must know.
    """

    scene: str
    backend: str
    encoder: str
    threshold: float
    share_seen: float
    tables: tuple[PromptedTable, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "scene": self.scene,
            "backend": self.backend,
            "encoder": self.encoder,
            "threshold": self.threshold,
            "share_seen": self.share_seen,
            "tables": [table.to_json() for table in self.tables],
            "notes": list(self.notes),
        }


def evaluate_run(
    path: Path,
    scene: Scene,
    teacher: Teacher,
    config: PointsConfig,
    *,
    classes: tuple[str, ...] = (),
    threshold: float | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Evaluate the index of a scene.

    Args:
        path: the index.
        scene: the scene it was made from, with truth a point.
        teacher: the encoder and store it was made with.
        config: the run's.
        classes: prompted classes, by the scene's names; empty takes every class that has a true point, backgrounds aside,
            and for a trained run all of them.
        threshold: raw cosine from which a class is present; none takes the encoder's own, and for a trained run none at all.
        progress: hears how far it is.

    Raises:
        DataError: the scene has no truth, or its points are not those of the index.
        UsageError: a class that the scene does not know.
    """
    listener: Progress = progress or Silent()
    index = read_index(path)
    scene = with_cloud(scene, voxel_size=config.voxel_size, progress=listener)
    truth = _point_truth(scene, index)
    if index.vocabulary:
        return _evaluate_trained(path, index, scene, truth, teacher, classes, threshold)
    classes = _prompted(scene, truth, classes)
    threshold = index.encoder.presence_threshold if threshold is None else threshold
    text = teacher.text(classes)
    remap = prompt_numbers(scene.classes, classes)
    tables = [_points_table(index, truth, text, classes, threshold, remap)]
    teacher.bind(scene, progress=listener)
    for title, source in teacher.sources().items():
        table = _views_table(title, scene, source, text, classes, threshold, remap, listener)
        tables += [table] if table is not None else []
    share_seen = float(index.seen.mean()) if len(index) else 0.0
    note = corruption_note(index.facts)
    return EvaluationReport(
        index.scene,
        index.backend,
        index.encoder.spec,
        threshold,
        share_seen,
        tuple(tables),
        (note,) if note else (),
    )


def _evaluate_trained(
    path: Path,
    index: LanguageIndex,
    scene: Scene,
    truth: Int32[Array, " n"],
    teacher: Teacher,
    classes: tuple[str, ...],
    threshold: float | None,
) -> EvaluationReport:
    classes = _prompted(scene, truth, classes or scene.classes)
    text, remap = teacher.text(classes), prompt_numbers(scene.classes, classes)
    limit = -1.0 if threshold is None else threshold
    title = "points, 3D network" if index.backend == "points/guide" else "points, specialised"
    fused = read_index(path.with_name(INDEX_NAME))
    tables = [
        replace(_points_table(one, truth, text, classes, limit, remap), title=name)
        for name, one in ((title, index), ("points, fused", fused))
    ]
    tables = [replace(table, extra=_over_all(table)) for table in tables]
    notes = [corruption_note(index.facts)]
    if index.facts.get("specialised"):
        notes.append("features were specialised on the trained classes, at the cost of other words")
    return EvaluationReport(
        index.scene,
        index.backend,
        index.encoder.spec,
        limit,
        float(index.seen.mean()) if len(index) else 0.0,
        tuple(tables),
        tuple(note for note in notes if note),
    )


def _point_truth(scene: Scene, index: LanguageIndex) -> Int32[Array, " n"]:
    cloud = scene.cloud
    if cloud is None or cloud.labels is None or not scene.classes:
        raise DataError(
            f"Scene {scene.name} has no true classes to compare with.", "Give a labelled cloud or label images."
        )
    if cloud.xyz.shape != index.xyz.shape or not np.array_equal(cloud.xyz, index.xyz):
        raise DataError(
            f"The points of {scene.name} are not those of the run ({len(cloud)} and {len(index)}).",
            "The scene has changed since; train again.",
        )
    return cloud.labels


def _prompted(scene: Scene, truth: Int32[Array, " n"], classes: tuple[str, ...]) -> tuple[str, ...]:
    for name in classes:
        if name not in scene.classes:
            raise UsageError(f"Scene {scene.name} has no class {name!r}.", did_you_mean(name, scene.classes))
    if classes:
        return classes
    present = [scene.classes[label] for label in np.unique(truth[truth != IGNORE])]
    found = tuple(name for name in present if name.casefold() not in BACKGROUNDS)
    if not found:
        raise DataError(f"No point of {scene.name} has a class but background.", "Name the classes with --classes.")
    return found


def _points_table(
    index: LanguageIndex,
    truth: Int32[Array, " n"],
    text: Float32[Array, "k d"],
    classes: tuple[str, ...],
    threshold: float,
    remap: Int32[Array, " c"],
) -> PromptedTable:
    confusion = prompted_confusion(len(classes))
    labels = index.predict(classes, text).labels(threshold, below=len(classes))
    labels[~index.seen] = IGNORE
    confusion.update(labels, remap[truth])
    return PromptedTable("points", classes, confusion.compute())


def _views_table(
    title: str,
    scene: Scene,
    source: ImageFeatures,
    text: Float32[Array, "k d"],
    classes: tuple[str, ...],
    threshold: float,
    remap: Int32[Array, " c"],
    progress: Progress,
) -> PromptedTable | None:
    """The teacher's answers on labelled views that it has features of; none where there is no such view."""
    frames = [frame for frame in scene.frames if frame.labels is not None and source.has(frame)]
    if not frames:
        return None
    confusion = prompted_confusion(len(classes))
    with progress.task(f"Scoring {title}", len(frames)) as task:
        for frame in frames:
            assert frame.labels is not None
            truth = remap[frame.labels.load()[::PIXEL_STEP, ::PIXEL_STEP]]
            scores = np.stack([source.relevancy(frame, one, PIXEL_STEP) for one in text])
            labels = np.where(scores.max(axis=0) >= threshold, scores.argmax(axis=0), len(classes))
            confusion.update(labels.ravel(), truth.ravel())
            task.advance()
    return PromptedTable(title, classes, confusion.compute())


def _over_all(table: PromptedTable) -> dict[str, float]:
    """Means over all prompted classes, those without a true point as 0."""
    iou, accuracy = (float(values[:-1].mean()) for values in (table.scores.iou, table.scores.accuracy))
    return {"mIoU over all classes": iou, "mAcc over all classes": accuracy}
