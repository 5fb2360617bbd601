"""Files cut short or with bytes changed, in every layout: an error of ours in one line, or a scene that makes sense."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import Ov3dError
from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import Scene
from tests.common.readers.test_same_room import CASES

NUM_DAMAGES = 20


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, or with some bytes changed, or with a piece doubled or taken out."""
    if not data:
        return b"\0"
    kind, at = rng.integers(4), int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        changed = bytearray(data)
        for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
            changed[place] = int(rng.integers(256))
        return bytes(changed)
    length = int(rng.integers(1, 40))
    return data[:at] + (data[at : at + length] * 2 if kind == 2 else b"") + data[at + length :]


def look_at(scene: Scene) -> None:
    """Read what a scene holds as its users do, and see that it makes sense."""
    for frame in scene.frames:
        assert np.isfinite(frame.world_from_camera).all()
        with contextlib.suppress(Ov3dError):
            assert frame.load_image().shape == (frame.camera.height, frame.camera.width, 3)
        with contextlib.suppress(Ov3dError):
            if frame.depth is not None:
                assert (frame.depth.load() >= 0).all()
        with contextlib.suppress(Ov3dError):
            if frame.labels is not None:
                assert frame.labels.load().max() < len(scene.classes)
        with contextlib.suppress(Ov3dError):
            if frame.instances is not None:
                frame.instances.load()
    if scene.cloud is not None:
        assert len(scene.cloud) and np.isfinite(scene.cloud.xyz).all()
        if scene.cloud.labels is not None:
            assert scene.cloud.labels.max() < len(scene.classes)


def fuzz(path: Path, root: Path, seed: int, count: int) -> dict[str, int]:
    """Damage one file after another; counts what came of it. Raises whatever is no `Ov3dError`."""
    rng = np.random.default_rng(seed)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    outcome = {"refused": 0, "read": 0}
    for _ in range(count):
        file = files[rng.integers(len(files))]
        good = file.read_bytes()
        file.write_bytes(damage(good, rng))
        try:
            scene = load_scene(path)
        except Ov3dError as error:
            outcome["refused"] += 1
            assert "\n" not in str(error) and error.message
        else:
            outcome["read"] += 1
            look_at(scene)
        finally:
            file.write_bytes(good)
    return outcome


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CASES)
def test_damage_is_refused_or_read_around(room: Scene, tmp_path: Path, name: str) -> None:
    if "LAS" in name:
        pytest.importorskip("laspy")
    path = CASES[name].write(tmp_path / "room", room)
    load_scene(path)
    outcome = fuzz(path, tmp_path / "room", zlib.crc32(name.encode()), NUM_DAMAGES)
    assert sum(outcome.values()) == NUM_DAMAGES
