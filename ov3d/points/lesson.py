"""What the learning stages of a run share: its scenes, the classes to learn, and the metrics of each stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ov3d.common.base.shapes import Array, Float32
from ov3d.common.learning.run import Learnt, OpenRun
from ov3d.common.teachers.teacher import Teacher
from ov3d.points.config import PointsConfig
from ov3d.points.material import Rooms
from ov3d.points.stage_answers import StageAnswers
from ov3d.points.stage_metrics import Truth
from ov3d.points.vocabulary import SceneLabels


@dataclass(frozen=True, slots=True)
class RunScene:
    """A fused scene of a run.

    Attributes:
        name: the scene's.
        folder: its files.
        present: the classes that its labels list; empty for a validation scene.
        training: whether the stages learn from it.
    """

    name: str
    folder: Path
    present: tuple[str, ...]
    training: bool


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What the learning stages of a run share.

    Attributes:
        run: the run.
        teacher: supplies the text vectors to learn; its images are not used.
        scenes: fused ones.
        vocabulary: classes to learn.
        text: their unit vectors.
        answers: of each stage, for metrics and for `guide.select=best`.
        learnt: what the run has produced so far.
    """

    run: OpenRun[PointsConfig]
    teacher: Teacher
    scenes: tuple[RunScene, ...]
    vocabulary: tuple[str, ...]
    text: Float32[Array, "k d"]
    answers: StageAnswers
    learnt: Learnt

    @classmethod
    def of(cls, run: OpenRun[PointsConfig], labels: SceneLabels, truth: Truth, learnt: Learnt) -> Lesson:
        """The lesson of a run whose scenes are fused.

        Args:
            run: the run.
            labels: which classes its training scenes have.
            truth: of its scenes, where known.
            learnt: what fusing has produced.
        """
        assert run.teacher is not None
        scenes = tuple(
            RunScene(name, folder, labels.present.get(name, ()), name not in run.config.validation)
            for name, folder in zip(learnt.indexes, run.folders, strict=True)
        )
        text = run.teacher.text(labels.vocabulary)
        true_text = run.teacher.text(truth.classes) if truth.classes else text[:0]
        folders = {scene.name: scene.folder for scene in scenes}
        training = [scene.name for scene in scenes if scene.training]
        answers = StageAnswers(folders, training, truth, true_text, run.progress)
        return cls(run, run.teacher, scenes, labels.vocabulary, text, answers, learnt)

    @property
    def training(self) -> list[RunScene]:
        """The scenes that the stages learn from."""
        return [scene for scene in self.scenes if scene.training]

    def rooms(self) -> Rooms:
        """What the stages learn from."""
        return Rooms([scene.folder for scene in self.training])
