"""Shards: what was packed reads as before, whoever dies or damages what, and nothing else is read for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base import tensor_files
from ov3d.common.base.errors import CorruptFileError
from ov3d.common.base.tensor_files import parse_tensors, write_tensors
from ov3d.common.features import shards as module
from ov3d.common.features.extract import extract_features
from ov3d.common.features.shards import Shards
from ov3d.common.features.store import FeatureStore
from ov3d.common.features.verify import verify_cache
from tests.colour_encoder import ColourEncoder
from tests.common.small_scenes import box_scene


def _fill(folder: Path, count: int) -> dict[str, bytes]:
    """Tensor files under keys of 32 digits; their bytes by key."""
    written = {}
    for number in range(count):
        key = f"{number * 7919:032x}"[::-1]
        values = np.full((number % 5, 3), number, np.float16)
        path = write_tensors(
            folder / key[:2] / f"{key}.safetensors", {"v": values}, kind="k", version=1, metadata={"n": number}
        )
        written[key] = path.read_bytes()
    return written


def test_packed_files_come_back_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ENTRIES", 15)
    written = _fill(tmp_path, 40)
    shards = Shards(tmp_path)
    assert shards.pack() == 0  # too few
    assert shards.pack(everything=True) == 40
    assert not list(tmp_path.glob("??/*.safetensors"))
    assert len(list(tmp_path.glob("shards/*.shard"))) == 3
    for reader in (shards, Shards(tmp_path)):
        for key, data in written.items():
            entry = reader.find(key)
            assert entry is not None
            assert entry.read() == data
            assert parse_tensors(data, entry.shard, kind="k", version=1).metadata["n"] >= 0
        assert reader.find("f" * 32) is None
    assert [key for key, _ in shards.entries()] == sorted(written)


def test_parsed_bytes_equal_the_read_file(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([True, False]),
        "c": np.zeros((0, 4), np.uint16),
        "d": np.array(-3, np.int64),
    }
    path = write_tensors(tmp_path / "x", arrays, kind="k", version=1, metadata={"m": [1]})
    parsed = parse_tensors(path.read_bytes(), path, kind="k", version=1)
    whole = tensor_files.read_tensors(path, kind="k", version=1)
    assert parsed.metadata == whole.metadata
    for name, values in whole.tensors.items():
        assert parsed.tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(parsed.tensors[name], values)
    data = path.read_bytes()
    for broken in (b"", data[:20], data[:-1], data[:-1] + bytes([data[-1] ^ 1])):
        with pytest.raises(CorruptFileError):
            parse_tensors(broken, path, kind="k", version=1)


def test_dying_while_packing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = _fill(tmp_path, 12)

    class Died(BaseException):
        """Stands for a killed process."""

    deaths, unlink = 0, Path.unlink
    for allowed in range(14):
        left = allowed

        def dying(path: Path, missing_ok: bool = False) -> None:
            nonlocal left
            if path.suffix == ".safetensors":
                left -= 1
                if left < 0:
                    raise Died
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", dying)
        try:
            Shards(tmp_path).pack(everything=True)
        except Died:
            deaths += 1
        monkeypatch.setattr(Path, "unlink", unlink)
        single = {path.stem: path.read_bytes() for path in tmp_path.glob("??/*.safetensors")}
        packed = {key: entry.read() for key, entry in Shards(tmp_path).entries()}
        assert packed | single == written
    assert deaths >= 3
    assert not list(tmp_path.glob("??/*.safetensors"))


def test_a_damaged_single_file_is_not_packed(tmp_path: Path) -> None:
    written = _fill(tmp_path, 3)
    key = min(written)
    path = tmp_path / key[:2] / f"{key}.safetensors"
    path.write_bytes(written[key][:-1])
    assert Shards(tmp_path).pack(everything=True) == 2
    assert path.is_file()


def test_a_store_reads_from_shards_and_mends_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACK_FILES", 4)
    scene, encoder = box_scene(tmp_path / "scene", 5), ColourEncoder()
    loose = FeatureStore(tmp_path / "loose", encoder.card)
    monkeypatch.setattr(loose, "pack", lambda: 0)
    packed = FeatureStore(tmp_path / "packed", encoder.card)
    for store in (loose, packed):
        extract_features(scene.frames, store, encoder)
    assert len(list((tmp_path / "packed").glob("*/shards/*.shard"))) == 1
    assert not packed.path(scene.frames[0]).exists()
    uv = np.random.default_rng(0).uniform(0, 48, (50, 2))
    for frame in scene.frames:
        np.testing.assert_array_equal(packed.features_at(frame, uv), loose.features_at(frame, uv))
    assert extract_features(scene.frames, FeatureStore(tmp_path / "packed", encoder.card), encoder).images == 0
    report = verify_cache(tmp_path / "packed")
    assert (report.num_files, report.damaged) == (5, ())

    (shard,) = (tmp_path / "packed").glob("*/shards/*.shard")
    entry = Shards(shard.parents[1]).find(packed.key(scene.frames[2]))
    assert entry is not None
    data = bytearray(shard.read_bytes())
    data[entry.offset + entry.length - 1] ^= 1
    shard.write_bytes(bytes(data))
    fresh = FeatureStore(tmp_path / "packed", encoder.card)
    assert fresh.has(scene.frames[2])
    with pytest.raises(CorruptFileError, match="damaged") as caught:
        fresh.features_at(scene.frames[2], uv)
    assert "extract-features again" in caught.value.hint
    mended = FeatureStore(tmp_path / "packed", encoder.card)
    assert [frame.name for frame in mended.missing(scene.frames)] == ["2"]
    assert extract_features(scene.frames, mended, encoder).images == 1
    np.testing.assert_array_equal(mended.features_at(scene.frames[2], uv), loose.features_at(scene.frames[2], uv))

    other = Shards(shard.parents[1]).find(packed.key(scene.frames[0]))
    assert other is not None
    data[other.offset + other.length - 1] ^= 1
    shard.write_bytes(bytes(data))
    found = verify_cache(tmp_path / "packed").damaged
    assert [path.name for path in found] == [packed.key(scene.frames[0])]
    assert not FeatureStore(tmp_path / "packed", encoder.card).has(scene.frames[0])


def test_a_shard_with_a_damaged_head_counts_as_missing(tmp_path: Path) -> None:
    _fill(tmp_path, 3)
    Shards(tmp_path).pack(everything=True)
    (shard,) = tmp_path.glob("shards/*.shard")
    whole = shard.read_bytes()
    for broken in (b"", whole[:10], whole[:30], whole[:40] + b"!" + whole[41:]):
        shard.write_bytes(broken)
        assert list(Shards(tmp_path).entries()) == []
