"""How well a run labels the points of a scene, compared with how well its 2D teacher labels the photographs.

Every prompted class gets its text vector; a point takes the best one, or none ("other") where the best raw cosine stays below
the presence threshold. The teacher answers the same question in every `PIXEL_STEP`-th pixel of every labelled view, with the
same threshold.

A trained run is asked for all classes of the scene, and every point takes the best one, without a threshold. The features
that it learnt from are scored on the same question and, on request, both together (`ov3d.points.ensemble`); photographs are
not used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ov3d.common.asking.corruption_note import corruption_note
from ov3d.common.asking.index import INDEX_NAME, LanguageIndex, read_index
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float32, Int32
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import read_lifted
from ov3d.common.metrics.prompted import BACKGROUNDS, PromptedTable, Question, check_known, true_classes
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.teachers.teacher import ImageFeatures, Teacher
from ov3d.points.config import PointsConfig
from ov3d.points.ensemble import FusedScores, ensemble_scores

PIXEL_STEP = 4
"""The teacher is asked at every fourth pixel of every fourth row."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredScene:
    """A scene of a run with its truth.

    Attributes:
        path: of the run's index.
        index: the index that the run answers from.
        scene: with the points of the index.
        truth: a class id for each of them, -1 where unknown.
    """

    path: Path
    index: LanguageIndex
    scene: Scene
    truth: Int32[Array, " n"]

    @property
    def trained(self) -> bool:
        """Whether the answers come from a learning stage, and not straight from photographs."""
        return bool(self.index.vocabulary)

    @property
    def has_network(self) -> bool:
        """Whether a 3D network gives the answers."""
        return self.index.backend == "points/guide"


def scored_scene(path: Path, scene: Scene, config: PointsConfig, *, progress: Progress) -> ScoredScene:
    """A scene of a run with its truth.

    Args:
        path: the index.
        scene: the scene it was made from, with a true class per point.
        config: the run's.
        progress: receives progress.

    Raises:
        DataError: the scene has no truth, or its points are not those of the index.
    """
    index = read_index(path)
    scene = with_cloud(scene, voxel_size=config.voxel_size, progress=progress)
    cloud = scene.cloud
    if cloud is None or cloud.labels is None or not scene.classes:
        raise DataError(
            f"Scene {scene.name} has no true classes to compare with.", "Give a labelled cloud or label images."
        )
    if cloud.xyz.shape != index.xyz.shape or not np.array_equal(cloud.xyz, index.xyz):
        raise DataError(
            f"The points of {scene.name} are not those of the run ({len(cloud)} and {len(index)}).",
            "The scene has changed since training; train again.",
        )
    return ScoredScene(path, index, scene, cloud.labels)


def evaluate_points(
    scored: ScoredScene,
    teacher: Teacher,
    *,
    classes: tuple[str, ...] = (),
    threshold: float | None = None,
    ensemble: bool = False,
    progress: Progress,
) -> RunReport:
    """Score a run's answers on a scene.

    Args:
        scored: the scene.
        teacher: the encoder and store that the run was made with.
        classes: prompted classes, by the scene's names; empty takes every class that has a true point, backgrounds aside,
            and for a trained run all of them.
        threshold: raw cosine from which a class is present; None takes the encoder's own, and for a trained run no threshold.
        ensemble: whether the 3D network is also scored together with the features that it learnt from.
        progress: receives progress.

    Raises:
        DataError: no class has a true point, or the features that an ensemble needs are missing.
        UsageError: a class that the scene does not know, or an ensemble without a 3D network.
    """
    index, scene = scored.index, scored.scene
    if ensemble and not scored.has_network:
        raise UsageError(
            f"--ensemble needs a 3D network, and the run has none for {scene.name}.",
            "Omit it, or train one: ov3d train points ROOMS --preset cpu",
        )
    question = _question(scored, teacher, classes, threshold)
    if scored.trained:
        tables = _trained_tables(scored, question, ensemble)
    else:
        teacher.bind(scene, progress=progress)
        tables = [_index_table("points", scored, question, index)]
        sources = teacher.sources().items()
        tables += [table for name, one in sources if (table := _views_table(name, scene, one, question, progress))]
    return RunReport(
        scene=index.scene,
        backend=index.backend,
        protocol="semantic",
        encoder=index.encoder.spec,
        threshold=question.threshold,
        share_seen=float(index.seen.mean()) if len(index) else 0.0,
        tables=tuple(tables),
        notes=_notes(index),
    )


def _question(scored: ScoredScene, teacher: Teacher, classes: tuple[str, ...], threshold: float | None) -> Question:
    """The question put to the points, with defaults filled in."""
    known, trained = scored.scene.classes, scored.trained
    check_known(scored.scene.name, known, classes)
    classes = classes or (known if trained else _asked_by_default(scored))
    if threshold is None and not trained:
        threshold = scored.index.encoder.presence_threshold
    return Question.of(known, classes, teacher.text(classes), threshold)


def _notes(index: LanguageIndex) -> tuple[str, ...]:
    specialised = "features were specialised on the trained classes, at the cost of other prompts"
    notes = corruption_note(index.facts), specialised if index.facts.get("specialised") else ""
    return tuple(note for note in notes if note)


def _asked_by_default(scored: ScoredScene) -> tuple[str, ...]:
    """The classes that have a true point, backgrounds aside."""
    scene = scored.scene
    found = tuple(name for name in true_classes(scene.classes, scored.truth) if name.casefold() not in BACKGROUNDS)
    if not found:
        raise DataError(
            f"No point of {scene.name} has a class other than background.", "Name the classes with --classes."
        )
    return found


def _trained_tables(scored: ScoredScene, question: Question, ensemble: bool) -> list[PromptedTable]:
    """Tables of what was learnt, what it was learnt from and, on request, both together."""
    title = "points, 3D network" if scored.has_network else "points, specialised"
    fused = read_index(scored.path.with_name(INDEX_NAME))
    tables = [
        _index_table(title, scored, question, scored.index),
        _index_table("points, fused", scored, question, fused),
    ]
    if ensemble:
        lifted = _fused_scores(scored, question)
        scores = ensemble_scores(lifted.scores, scored.index.scores(question.text), lifted.seen)
        tables.append(_points_table("points, 2D-3D ensemble", scored, question, scores))
    return tables


def _index_table(title: str, scored: ScoredScene, question: Question, index: LanguageIndex) -> PromptedTable:
    return _points_table(title, scored, question, index.scores(question.text), index.seen)


def _points_table(
    title: str,
    scored: ScoredScene,
    question: Question,
    scores: Float32[Array, "n k"],
    seen: Bool[Array, " n"] | None = None,
) -> PromptedTable:
    """The table of some scores of all points; points that are not seen have no answer, not even `other`."""
    confusion, labels = question.confusion(), question.answers(scores)
    if seen is not None:
        labels[~seen] = IGNORE
    confusion.update(labels, question.numbers[scored.truth])
    table = PromptedTable(title, question.classes, confusion.compute())
    return replace(table, extra=_over_all(table)) if scored.trained else table


def _fused_scores(scored: ScoredScene, question: Question) -> FusedScores:
    """Scores of the features that the run learnt from."""
    path = scored.path.with_name(LIFTED_NAME)
    if not path.is_file():
        raise DataError(
            f"--ensemble needs the lifted features of {scored.scene.name}, but {path} is missing.",
            "Omit --ensemble, or train again.",
        )
    return FusedScores.of(read_lifted(path), question.text)


def _views_table(
    title: str, scene: Scene, source: ImageFeatures, question: Question, progress: Progress
) -> PromptedTable | None:
    """The teacher's answers on labelled views that it has features of; None without such a view."""
    frames = [frame for frame in scene.frames if frame.labels is not None and source.has(frame)]
    if not frames:
        return None
    confusion = question.confusion()
    with progress.task(f"Scoring {title}", len(frames)) as task:
        for frame in frames:
            assert frame.labels is not None
            truth = question.numbers[frame.labels.load()[::PIXEL_STEP, ::PIXEL_STEP]]
            scores = np.stack([source.relevancy(frame, one, PIXEL_STEP).ravel() for one in question.text], axis=1)
            confusion.update(question.answers(scores), truth.ravel())
            task.advance()
    return PromptedTable(title, question.classes, confusion.compute())


def _over_all(table: PromptedTable) -> dict[str, float]:
    """Means over all prompted classes, counting those without a true point as 0."""
    iou, accuracy = (float(values[:-1].mean()) for values in (table.scores.iou, table.scores.accuracy))
    return {"mIoU over all classes": iou, "mAcc over all classes": accuracy}
