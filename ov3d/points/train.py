"""The learning stages of a run, one after the other, each from the files of the one before.

    scenes/NNNN-NAME/{lifted,index}.safetensors     fuse
                     pseudo-labels.safetensors      pseudo-label
    specialise/{checkpoint.safetensors,curve.*}     specialise
    scenes/NNNN-NAME/specialised.safetensors        its index, where it is the last stage
    guide/{checkpoint.safetensors,curve.*}          guide
    scenes/NNNN-NAME/guided.safetensors             its index

What is there and was made from the same things is used; a stage that was interrupted is gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.checkpoints import Checkpoint, write_checkpoint
from ov3d.common.encoding import EncoderCard
from ov3d.common.errors import CorruptFileError, DataError
from ov3d.common.files import hash_text, write_json
from ov3d.common.index import read_index, write_index
from ov3d.common.lifting import read_lifted
from ov3d.common.progress import Progress
from ov3d.common.scene import IGNORE
from ov3d.common.scene_lifting import LIFTED_NAME
from ov3d.common.shapes import Array, Float32, Int32
from ov3d.common.teacher import Teacher
from ov3d.points import stage_metrics
from ov3d.points.adapter import Adapter, AdapterTrainer, Affine
from ov3d.points.bake import (
    GUIDED_NAME,
    SPECIALISED_FACT,
    Scored,
    bake_guided,
    bake_specialised,
    calibrated,
    presence_threshold,
    scored,
    specialised_features,
)
from ov3d.points.config import PointsConfig
from ov3d.points.fuse import INDEX_NAME
from ov3d.points.guide import GuideTrainer, Score
from ov3d.points.material import Rooms, read_room
from ov3d.points.network import CHECKPOINT_NAME, GUIDE_FOLDER, NetworkSpec, PointNetwork, load_network, upright
from ov3d.points.pseudo_labels import (
    PSEUDO_NAME,
    pseudo_key,
    pseudo_label,
    read_pseudo_labels,
    stored_pseudo_labels,
    write_pseudo_labels,
)
from ov3d.points.stage_metrics import Truth, best_class, measure

SPECIALISE_FOLDER = "specialise"
NETWORK_FACT = "network"
"""The fact of an index that names the network it was made with."""


@dataclass(frozen=True, slots=True)
class RunScene:
    """A fused scene of a run.

    Attributes:
        name: the scene's.
        folder: its files.
        present: the classes that it is said to have; empty for a validation scene.
        training: whether the stages learn from it.
    """

    name: str
    folder: Path
    present: tuple[str, ...]
    training: bool


@dataclass(slots=True)
class Learnt:
    """What the learning stages gave.

    Attributes:
        indexes: of each scene, that of the last stage.
        facts: by scene, what a manifest should know.
        seconds: by stage.
        metrics: by stage and split, where truth is known.
    """

    indexes: dict[str, Path] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)


class Learning:
    """The learning stages of one run.

    Args:
        scenes: fused ones.
        vocabulary: classes to learn.
        config: the run's.
        teacher: whose text vectors are learnt towards; its photographs are not looked at.
        truth: for metrics, and for `guide.select=best` that of the validation scenes.
        run: the run's folder.
        device: where tensors live.
        progress: hears how far it is.
        resume: whether what the folder holds already is used.

    Raises:
        DataError: every scene is a validation scene.
    """

    def __init__(
        self,
        scenes: Sequence[RunScene],
        vocabulary: tuple[str, ...],
        config: PointsConfig,
        teacher: Teacher,
        truth: Truth,
        *,
        run: Path,
        device: torch.device,
        progress: Progress,
        resume: bool,
    ) -> None:
        self.scenes, self.vocabulary, self.config, self.teacher, self.truth = scenes, vocabulary, config, teacher, truth
        self.run_path, self.device, self.progress, self.resume = run, device, progress, resume
        self.training = [scene for scene in scenes if scene.training]
        if not self.training:
            raise DataError("All scenes are validation scenes: there is none to train on.", "Name fewer in validation.")
        self.text = teacher.text(vocabulary)
        self.truth_text = teacher.text(truth.classes) if truth.classes else self.text[:0]
        self.learnt = Learnt({scene.name: scene.folder / INDEX_NAME for scene in scenes})

    def run(self) -> Learnt:
        """Run the stages that the configuration names, and measure each."""
        stages = self.config.stages
        self._measure("fuse", self._fused_classes)
        if "pseudo-label" in stages:
            self._timed("pseudo-label", self._pseudo_label)
            self._measure("pseudo-label", self._pseudo_classes)
        affine: Affine | None = None
        if "specialise" in stages:
            affine = self._timed("specialise", self._specialise)
            if self.config.specialise.enabled:
                self._measure("specialise", lambda name: self._specialised_classes(name, affine))
                if stages[-1] == "specialise":
                    self._bake_specialised(affine)
        if "guide" in stages and affine is not None:
            self._timed("guide", lambda: self._guide(affine))
            self._measure("guide", lambda name: self._index_classes(self.learnt.indexes[name]))
        if self.learnt.metrics:
            data = {"classes": list(self.truth.classes), "stages": self.learnt.metrics}
            path = self.run_path / stage_metrics.METRICS_NAME
            write_json(path, data, kind=stage_metrics.METRICS_KIND, version=stage_metrics.METRICS_VERSION)
        return self.learnt

    # -------------------------------------------------------------------------------------------------------- stages

    def _pseudo_label(self) -> None:
        config = self.config.pseudo
        with self.progress.task("Labelling points", len(self.training)) as task:
            for scene in self.training:
                lifted, path = read_lifted(scene.folder / LIFTED_NAME), scene.folder / PSEUDO_NAME
                key = pseudo_key(lifted.key, self.text, self.vocabulary, scene.present, config)
                pseudo = stored_pseudo_labels(path, key, self.progress) if self.resume else None
                if pseudo is None:
                    spread = self._spreader(scene) if config.superpoints else None
                    pseudo = pseudo_label(lifted, self.text, self.vocabulary, scene.present, config, spread)
                    write_pseudo_labels(path, pseudo)
                self.learnt.facts[scene.name] = pseudo.facts()
                task.advance()

    def _spreader(self, scene: RunScene) -> Callable[[Int32[Array, " n"]], Int32[Array, " n"]]:
        from ov3d.points.superpoints import propagate, superpoints

        index = read_index(scene.folder / INDEX_NAME)
        return lambda labels: propagate(labels, superpoints(index.xyz, index.rgb))

    def _specialise(self) -> Affine:
        config, rooms = self.config.specialise, self._rooms()
        if not config.enabled:
            return Affine.identity(self.text.shape[1])
        scale = config.scale if config.scale is not None else self.teacher.card.logit_scale
        trainer = AdapterTrainer(
            rooms,
            self.text,
            config,
            scale,
            made_from=hash_text(rooms.key(), config.model_dump_json(), str(self.config.seed)),
            folder=self.run_path / SPECIALISE_FOLDER,
            seed=self.config.seed,
            progress=self.progress,
            device=self.device,
            resume=self.resume,
        )
        trainer.run()
        return trainer.module.affine()

    def _bake_specialised(self, affine: Affine) -> None:
        found: list[Scored] = []
        for scene in self.training:
            lifted, pseudo = read_lifted(scene.folder / LIFTED_NAME), read_pseudo_labels(scene.folder / PSEUDO_NAME)
            scores = np.zeros((lifted.num_points, len(self.text)), np.float32)
            scores[lifted.point_row] = specialised_features(lifted, affine) @ self.text.T
            found.append(scored(scores, pseudo, lifted.point_row))
        card, tolerance = calibrated(self.teacher.card, presence_threshold(found)), self.config.score_tolerance
        for scene in self.scenes:
            path = bake_specialised(scene.folder, affine, card, self.vocabulary, self.text, tolerance=tolerance)
            self.learnt.indexes[scene.name] = path

    def _guide(self, affine: Affine) -> None:
        config, rooms, seed = self.config.guide, self._rooms(), self.config.seed
        torch.manual_seed(seed)
        card = self.teacher.card
        network = PointNetwork(NetworkSpec.of(config, card.dim), card, self.vocabulary).to(self.device)
        map_key = hash_text(affine.matrix.tobytes().hex(), affine.offset.tobytes().hex())
        key = hash_text(rooms.key(), map_key, config.model_dump_json(), str(seed))
        trainer = GuideTrainer(
            network,
            rooms,
            affine,
            self.text,
            config,
            score=self._validation_score(),
            made_from=key,
            folder=self.run_path / GUIDE_FOLDER,
            seed=seed,
            progress=self.progress,
            resume=self.resume,
        )
        trainer.run()
        finished = self._finished(key)
        if finished is None:
            chosen, step = trainer.chosen()
            chosen.card = self._bake(chosen, key)
            metadata = {"step": trainer.steps, "made_from": key, "stage": trainer.stage, **trainer.metadata()}
            metadata |= {"chosen_step": step, "card": chosen.card.to_json(), "vocabulary": list(self.vocabulary)}
            write_checkpoint(trainer.path, {"network": chosen}, None, metadata)
        else:
            self._bake(finished, key, card=finished.card)

    def _finished(self, key: str) -> PointNetwork | None:
        """The network of the checkpoint, where it was trained to the end and its threshold is known."""
        path = self.run_path / GUIDE_FOLDER
        try:
            meta = Checkpoint(path / CHECKPOINT_NAME).metadata
        except CorruptFileError:
            return None
        if "card" not in meta or meta["made_from"] != key:
            return None
        return load_network(self.run_path, self.device)

    def _bake(self, network: PointNetwork, key: str, *, card: EncoderCard | None = None) -> EncoderCard:
        """Write all indexes; without a card, the threshold is taken from those of the training scenes."""
        facts = {NETWORK_FACT: key, SPECIALISED_FACT: self.config.specialise.enabled}
        found: list[Scored] = []
        with self.progress.task("Embedding scenes", len(self.scenes)) as task:
            for scene in self.scenes:
                path = scene.folder / GUIDED_NAME
                self.learnt.indexes[scene.name] = path
                if card is None or not path.is_file() or read_index(path).facts.get(NETWORK_FACT) != key:
                    bake_guided(scene.folder, network, facts)
                if card is None and scene.training:
                    room = read_room(scene.folder)
                    scores = read_index(path).scores(self.text)
                    found.append(scored(scores, room.pseudo, room.lifted.point_row))
                task.advance()
        if card is not None:
            return card
        card = calibrated(network.card, presence_threshold(found))
        for path in self.learnt.indexes.values():
            write_index(path, replace(read_index(path), encoder=card))
        return card

    # ------------------------------------------------------------------------------------------------------- measuring

    def _validation_score(self) -> Score | None:
        """mIoU over present classes on the validation scenes, where there are any with truth."""
        names = {scene.name for scene in self.scenes if not scene.training and scene.name in self.truth.labels}
        if not names:
            if self.config.guide.select == "best":
                raise DataError(
                    "guide.select=best has no true labels of a validation scene to select by.",
                    "Take guide.select=last, or name validation scenes with labelled points.",
                )
            return None
        scenes = [scene for scene in self.scenes if scene.name in names]

        def score(network: PointNetwork) -> float:
            queries = self.truth_text.T

            def answers(name: str) -> Int32[Array, " n"]:
                index = read_index(next(scene.folder for scene in scenes if scene.name == name) / INDEX_NAME)
                codes, voxel = network.codes(upright(index.xyz, index.world.up), index.rgb)
                return best_class(codes @ (network.basis @ queries))[voxel]

            found = measure(self.truth, tuple(scene.name for scene in scenes), answers)
            assert found is not None
            return found.mean_iou_present

        return score

    def _measure(self, stage: str, answers: Callable[[str], Int32[Array, " n"]]) -> None:
        splits = {
            "train": tuple(scene.name for scene in self.training),
            "validation": tuple(scene.name for scene in self.scenes if not scene.training),
        }
        found = {
            split: measure(self.truth, names, answers)
            for split, names in splits.items()
            if split == "train" or stage != "pseudo-label"
        }
        known = {split: one.to_json() for split, one in found.items() if one is not None}
        if known:
            self.learnt.metrics[stage] = known
            parts = [f"mIoU {100 * one['mean_iou_present']:.1f} on {split} scenes" for split, one in known.items()]
            self.progress.say(f"Stage {stage}: {', '.join(parts)}")

    def _fused_classes(self, name: str) -> Int32[Array, " n"]:
        lifted = read_lifted(self._folder(name) / LIFTED_NAME)
        return _on_points(best_class(lifted.scores(self.truth_text)), lifted.point_row, lifted.num_points)

    def _pseudo_classes(self, name: str) -> Int32[Array, " n"]:
        folder = self._folder(name)
        pseudo, lifted = read_pseudo_labels(folder / PSEUDO_NAME), read_lifted(folder / LIFTED_NAME)
        known = {one: idx for idx, one in enumerate(self.truth.classes)}
        number = np.array([*(known.get(one, IGNORE) for one in self.vocabulary), IGNORE], np.int32)
        return _on_points(number[pseudo.labels], lifted.point_row, lifted.num_points)

    def _specialised_classes(self, name: str, affine: Affine) -> Int32[Array, " n"]:
        lifted = read_lifted(self._folder(name) / LIFTED_NAME)
        queries = affine.on_codes(lifted.basis) @ self.truth_text.T
        scores: Float32[Array, "v k"] = lifted.code.astype(np.float32) @ queries[:-1] + queries[-1]
        return _on_points(best_class(scores), lifted.point_row, lifted.num_points)

    def _index_classes(self, path: Path) -> Int32[Array, " n"]:
        index = read_index(path)
        return np.where(index.seen, best_class(index.scores(self.truth_text)), np.int32(IGNORE))

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _rooms(self) -> Rooms:
        return Rooms([scene.folder for scene in self.training])

    def _folder(self, name: str) -> Path:
        return next(scene.folder for scene in self.scenes if scene.name == name)

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.learnt.seconds[stage] = round(time.perf_counter() - start, 3)
        return result


def load_affine(run: Path, config: PointsConfig, dim: int) -> Affine:
    """The map of a run's specialise stage."""
    adapter = Adapter(dim, config.specialise.residual)
    Checkpoint(run / SPECIALISE_FOLDER / CHECKPOINT_NAME).load_module("network", adapter)
    return adapter.affine()


def _on_points(values: Int32[Array, " v"], point_row: Int32[Array, " v"], num_points: int) -> Int32[Array, " n"]:
    """Values of rows as values of points, `IGNORE` for points without a row."""
    whole = np.full(num_points, IGNORE, np.int32)
    whole[point_row] = values
    return whole
