"""The learning stages of a run, one after the other, each from the files of the one before.

    scenes/NNNN-NAME/{lifted,index}.safetensors     fuse
                     pseudo-labels.safetensors      pseudo-label
                     pooled.safetensors             features over superpoints, where these are wanted
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
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.asking.index import read_index, write_index
from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Int32
from ov3d.common.language.cards import EncoderCard
from ov3d.common.learning.checkpoints import Checkpoint, write_checkpoint
from ov3d.common.learning.run_lifting import LIFTED_NAME
from ov3d.common.lifting.lift import LiftedFeatures, read_lifted, write_lifted
from ov3d.common.teachers.teacher import Teacher
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
from ov3d.points.guide import GuideTrainer
from ov3d.points.material import POOLED_NAME, Rooms, read_features, read_room
from ov3d.points.network import CHECKPOINT_NAME, GUIDE_FOLDER, NetworkSpec, PointNetwork, load_network
from ov3d.points.pseudo_labels import (
    PSEUDO_NAME,
    pseudo_key,
    pseudo_label,
    read_pseudo_labels,
    stored_pseudo_labels,
    write_pseudo_labels,
)
from ov3d.points.stage_answers import StageAnswers
from ov3d.points.stage_metrics import Truth
from ov3d.points.superpoints import pooled_features, pooled_key, propagate, superpoints

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
    """

    indexes: dict[str, Path] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


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
        folders = {scene.name: scene.folder for scene in scenes}
        text = teacher.text(truth.classes) if truth.classes else self.text[:0]
        self.answers = StageAnswers(folders, [scene.name for scene in self.training], truth, text, progress)
        self.learnt = Learnt({scene.name: scene.folder / INDEX_NAME for scene in scenes})

    def run(self) -> Learnt:
        """Run the stages that the configuration names, and measure each."""
        stages = self.config.stages
        answers = self.answers
        answers.measure("fuse", answers.fused)
        if "pseudo-label" in stages:
            self._timed("pseudo-label", self._pseudo_label)
            answers.measure("pseudo-label", answers.pseudo)
        affine: Affine | None = None
        if "specialise" in stages:
            affine = self._timed("specialise", self._specialise)
            if self.config.specialise.enabled:
                answers.measure("specialise", lambda name: answers.specialised(name, affine))
                if stages[-1] == "specialise":
                    self._bake_specialised(affine)
        if "guide" in stages and affine is not None:
            self._timed("guide", lambda: self._guide(affine))
            answers.measure("guide", lambda name: answers.index(self.learnt.indexes[name]))
        answers.write(self.run_path)
        return self.learnt

    # -------------------------------------------------------------------------------------------------------- stages

    def _pseudo_label(self) -> None:
        with self.progress.task("Labelling points", len(self.scenes)) as task:
            for scene in self.scenes:
                lifted = read_lifted(scene.folder / LIFTED_NAME)
                pieces = cache(partial(_superpoints_of, scene.folder))  # found when first asked for, if ever
                self._pool(scene, lifted, pieces)
                if scene.training:
                    self._label(scene, lifted, pieces)
                task.advance()

    def _pool(self, scene: RunScene, lifted: LiftedFeatures, pieces: Callable[[], Int32[Array, " n"]]) -> None:
        """Pool a scene's features over superpoints, where they are wanted and not there yet."""
        path = scene.folder / POOLED_NAME
        if not self.config.pseudo.superpoints:
            path.unlink(missing_ok=True)
        elif not (self.resume and path.is_file() and _key_of(path) == pooled_key(lifted)):
            write_lifted(path, pooled_features(lifted, pieces()))

    def _label(self, scene: RunScene, lifted: LiftedFeatures, pieces: Callable[[], Int32[Array, " n"]]) -> None:
        config, path = self.config.pseudo, scene.folder / PSEUDO_NAME
        key = pseudo_key(lifted.key, self.text, self.vocabulary, scene.present, config)
        pseudo = stored_pseudo_labels(path, key, self.progress) if self.resume else None
        if pseudo is None:
            spread = (lambda labels: propagate(labels, pieces())) if config.superpoints else None
            pseudo = pseudo_label(lifted, self.text, self.vocabulary, scene.present, config, spread)
            write_pseudo_labels(path, pseudo)
        self.learnt.facts[scene.name] = pseudo.facts()

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
            lifted, pseudo = read_features(scene.folder), read_pseudo_labels(scene.folder / PSEUDO_NAME)
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
            score=self.answers.validation_score(needed=config.select == "best"),
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
            metadata["scene_voxels"] = chosen.scene_voxels
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

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _rooms(self) -> Rooms:
        return Rooms([scene.folder for scene in self.training])

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


def _superpoints_of(folder: Path) -> Int32[Array, " n"]:
    """The superpoints of a scene's cloud."""
    index = read_index(folder / INDEX_NAME)
    return superpoints(index.xyz, index.rgb)


def _key_of(path: Path) -> str | None:
    """The key of stored features; none where the file is damaged, and so to be made again."""
    try:
        return read_lifted(path).key
    except CorruptFileError:
        return None
