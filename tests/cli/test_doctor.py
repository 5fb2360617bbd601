"""`ov3d doctor` on a LiDAR sweep: facts, pictures, and the exit code of a wrong extrinsic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ov3d.common.worlds.nuscenes_writer import write_nuscenes
from ov3d.common.worlds.street import StreetConfig
from tests.cli.capture import write_capture
from tests.cli.conftest import Ov3d


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = StreetConfig(seed=5, num_sweeps=1, columns=200, width=96, height=54, reach=40.0)
    return write_nuscenes(tmp_path_factory.mktemp("street") / "nuscenes", {"val": [config]})


def test_a_sweep_is_described_and_drawn(ov3d: Ov3d, sweep: Path, tmp_path: Path) -> None:
    done = ov3d("doctor", sweep, "--json", "-o", tmp_path / "pictures")
    facts = {fact["name"]: fact for fact in json.loads(done.out)["facts"]}
    assert done.code == 0 and {fact["state"] for fact in facts.values()} <= {"ok", "absent"}
    assert {"sweep", "in images", "offsets", "extrinsics"} <= set(facts) and "seen" not in facts
    assert "CAM_FRONT_LEFT -43 ms" in facts["offsets"]["value"]
    assert f"Wrote 15 pictures to {tmp_path / 'pictures'}." in done.err
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 15


def test_only_sweeps_are_drawn(ov3d: Ov3d, tmp_path: Path) -> None:
    done = ov3d("doctor", write_capture(tmp_path / "desk"), "-o", tmp_path / "pictures")
    assert done.code == 2 and "desk is not a LiDAR sweep" in done.error
    done = ov3d("doctor", "-o", tmp_path / "pictures")
    assert done.code == 2 and "works only with a LiDAR sweep" in done.error
    assert not (tmp_path / "pictures").exists()
