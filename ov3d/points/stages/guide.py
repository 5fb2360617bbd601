"""Stage `guide` of a run: a 3D network that labels scenes without images; see `ov3d.points.guide`."""

from __future__ import annotations

from dataclasses import replace

import torch

from ov3d.common.asking.index import read_index, write_index
from ov3d.common.base.errors import CorruptFileError
from ov3d.common.language.cards import EncoderCard
from ov3d.common.learning.checkpoints import Checkpoint, write_checkpoint
from ov3d.common.learning.trainer import Trainer
from ov3d.points.adapter import Affine
from ov3d.points.bake import (
    GUIDED_NAME,
    SPECIALISED_FACT,
    Scored,
    bake_guided,
    calibrated,
    presence_threshold,
    scored,
)
from ov3d.points.guide import GuideStage
from ov3d.points.lesson import Lesson, RunScene
from ov3d.points.material import read_room
from ov3d.points.network import CHECKPOINT_NAME, GUIDE_FOLDER, NetworkSpec, PointNetwork, load_network

NETWORK_FACT = "network"
"""The fact of an index that identifies the network it was made with."""


def guide(lesson: Lesson, affine: Affine) -> None:
    """Train the network on the mapped features of the training scenes, and write every scene's index of its answers."""
    run, stage = lesson.run, _stage(lesson, affine)
    trainer, key = Trainer(stage, run.trainer_context(run.path / GUIDE_FOLDER)), stage.made_from
    trainer.run()
    finished = _finished(lesson, key)
    if finished is None:
        chosen, step = stage.chosen(trainer.context.folder)
        chosen.card = _bake(lesson, chosen, key)
        metadata = trainer.metadata()
        metadata |= {"chosen_step": step, "card": chosen.card.to_json(), "vocabulary": list(lesson.vocabulary)}
        metadata["scene_voxels"] = chosen.scene_voxels
        write_checkpoint(trainer.path, {"network": chosen}, None, metadata)
    else:
        _bake(lesson, finished, key, card=finished.card)


def _stage(lesson: Lesson, affine: Affine) -> GuideStage:
    run, config, card = lesson.run, lesson.run.config.guide, lesson.teacher.card
    torch.manual_seed(run.config.seed)
    network = PointNetwork(NetworkSpec.of(config, card.dim), card, lesson.vocabulary).to(run.device)
    score = lesson.answers.validation_score(needed=config.select == "best")
    return GuideStage(network, lesson.rooms(), affine, lesson.text, config, seed=run.config.seed, score=score)


def _finished(lesson: Lesson, key: str) -> PointNetwork | None:
    """The network of the checkpoint, if its training is finished and its threshold is known."""
    run = lesson.run
    try:
        meta = Checkpoint(run.path / GUIDE_FOLDER / CHECKPOINT_NAME).metadata
    except CorruptFileError:
        return None
    if "card" not in meta or meta["made_from"] != key:
        return None
    return load_network(run.path, run.device)


def _bake(lesson: Lesson, network: PointNetwork, key: str, *, card: EncoderCard | None = None) -> EncoderCard:
    """Write all indexes; without a card, the threshold is taken from those of the training scenes."""
    facts = {NETWORK_FACT: key, SPECIALISED_FACT: lesson.run.config.specialise.enabled}
    found: list[Scored] = []
    with lesson.run.progress.task("Embedding scenes", len(lesson.scenes)) as task:
        for scene in lesson.scenes:
            path = scene.folder / GUIDED_NAME
            lesson.learnt.indexes[scene.name] = path
            if card is None or not path.is_file() or read_index(path).facts.get(NETWORK_FACT) != key:
                bake_guided(scene.folder, network, facts)
            if card is None and scene.training:
                found.append(_scored(lesson, scene))
            task.advance()
    if card is not None:
        return card
    card = calibrated(network.card, presence_threshold(found))
    for path in lesson.learnt.indexes.values():
        write_index(path, replace(read_index(path), encoder=card))
    return card


def _scored(lesson: Lesson, scene: RunScene) -> Scored:
    """The evidence of a training scene's index for the threshold."""
    room = read_room(scene.folder)
    return scored(read_index(scene.folder / GUIDED_NAME).scores(lesson.text), room.pseudo, room.lifted.point_row)
