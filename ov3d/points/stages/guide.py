"""Stage `guide` of a run: a 3D network that labels scenes without images; see `ov3d.points.guide`."""

from __future__ import annotations

from dataclasses import replace

import torch

from ov3d.common.asking.index import read_index, write_index
from ov3d.common.base.errors import CorruptFileError
from ov3d.common.base.files import hash_text
from ov3d.common.language.cards import EncoderCard
from ov3d.common.learning.checkpoints import Checkpoint, write_checkpoint
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
from ov3d.points.guide import GuideTrainer
from ov3d.points.lesson import Lesson, RunScene
from ov3d.points.material import Rooms, read_room
from ov3d.points.network import CHECKPOINT_NAME, GUIDE_FOLDER, NetworkSpec, PointNetwork, load_network

NETWORK_FACT = "network"
"""The fact of an index that names the network it was made with."""


def guide(lesson: Lesson, affine: Affine) -> None:
    """Train the network on the mapped features of the training scenes, and write every scene's index of its answers."""
    rooms = lesson.rooms()
    key = _key(lesson, affine, rooms)
    trainer = _trainer(lesson, affine, rooms, key)
    trainer.run()
    finished = _finished(lesson, key)
    if finished is None:
        chosen, step = trainer.chosen()
        chosen.card = _bake(lesson, chosen, key)
        metadata = {"step": trainer.steps, "made_from": key, "stage": trainer.stage, **trainer.metadata()}
        metadata |= {"chosen_step": step, "card": chosen.card.to_json(), "vocabulary": list(lesson.vocabulary)}
        metadata["scene_voxels"] = chosen.scene_voxels
        write_checkpoint(trainer.path, {"network": chosen}, None, metadata)
    else:
        _bake(lesson, finished, key, card=finished.card)


def _key(lesson: Lesson, affine: Affine, rooms: Rooms) -> str:
    """Names everything that the network is made from."""
    config = lesson.run.config
    map_key = hash_text(affine.matrix.tobytes().hex(), affine.offset.tobytes().hex())
    return hash_text(rooms.key(), map_key, config.guide.model_dump_json(), str(config.seed))


def _trainer(lesson: Lesson, affine: Affine, rooms: Rooms, key: str) -> GuideTrainer:
    run, config, card = lesson.run, lesson.run.config.guide, lesson.teacher.card
    torch.manual_seed(run.config.seed)
    network = PointNetwork(NetworkSpec.of(config, card.dim), card, lesson.vocabulary).to(run.device)
    return GuideTrainer(
        network,
        rooms,
        affine,
        lesson.text,
        config,
        score=lesson.answers.validation_score(needed=config.select == "best"),
        made_from=key,
        folder=run.path / GUIDE_FOLDER,
        seed=run.config.seed,
        progress=run.progress,
        resume=run.options.resume,
    )


def _finished(lesson: Lesson, key: str) -> PointNetwork | None:
    """The network of the checkpoint, where it was trained to the end and its threshold is known."""
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
    """What a training scene's index says about thresholds."""
    room = read_room(scene.folder)
    return scored(read_index(scene.folder / GUIDED_NAME).scores(lesson.text), room.pseudo, room.lifted.point_row)
