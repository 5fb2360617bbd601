"""Animations: frames come back, a missing or failing ffmpeg is one line, and points are painted along the path."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.asking.ask import ask
from ov3d.common.base.errors import StorageError, UsageError
from ov3d.common.base.progress import Silent
from ov3d.common.exporters.animation import REPEATS, check_animation, write_animation
from ov3d.common.exporters.orbit import PaintedPoints, path_round, write_orbit
from ov3d.common.scenes.cameras import Camera
from tests.common.exporters.test_images import CAT, colourful, make

FRAMES = [np.full((5, 7, 3), value, np.uint8) for value in (10, 100, 200)]


def _ffmpeg(folder: Path, script: str) -> None:
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_frames_come_back(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "deep" / "a.png", FRAMES)
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0
        for idx, frame in enumerate(FRAMES):
            picture.seek(idx)
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), frame)
    assert write_animation(tmp_path / "b.png", FRAMES).read_bytes() == path.read_bytes()


def test_ffmpeg_gets_even_frames_that_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ffmpeg(tmp_path / "bin", f'echo "$@" > {tmp_path}/said\nfor last; do :; done\ncat > "$last"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    written = write_animation(tmp_path / "a.mp4", FRAMES).read_bytes()
    said = (tmp_path / "said").read_text()
    assert "-f rawvideo -pix_fmt rgb24 -s 8x6 -r 10 -i - " in said
    assert "-c:v libx264 " in said
    frames = np.frombuffer(written, np.uint8).reshape(REPEATS * 3, 6, 8, 3)
    np.testing.assert_array_equal(frames[:3, :5, :7], FRAMES)
    np.testing.assert_array_equal(frames[3:6], frames[:3])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on the path")
def test_a_real_ffmpeg_keeps_the_frames(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 200, 33, dtype=np.uint8), (25, 1))
    frames = [np.stack((ramp, ramp[:, ::-1], np.full_like(ramp, value)), axis=2) for value in (20, 120)]
    path = write_animation(tmp_path / "a.mp4", frames)
    assert write_animation(tmp_path / "b.mp4", frames).read_bytes() == path.read_bytes()
    command = ["ffmpeg", "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True).stdout
    found = np.frombuffer(decoded, np.uint8).reshape(REPEATS * 2, 26, 34, 3)[:, :25, :33].astype(int)
    for idx, frame in enumerate(frames * REPEATS):
        assert np.abs(found[idx] - frame).mean() < 6


def test_a_failing_or_missing_ffmpeg_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ffmpeg(tmp_path / "bin", "cat > /dev/null\necho Unknown encoder >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(StorageError, match="could not write the MP4: Unknown encoder"):
        write_animation(tmp_path / "a.mp4", FRAMES)
    assert not (tmp_path / "a.mp4").exists()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"Writing a.mp4 needs ffmpeg, .*a\.png"):
        check_animation(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match="must end in .png or .mp4"):
        check_animation(tmp_path / "a.gif")


@pytest.mark.parametrize("with_views", [True, False])
def test_points_are_painted_along_the_path(tmp_path: Path, with_views: bool) -> None:
    index, views = make(tmp_path)
    answer = ask(index, "a cat", CAT)
    renderer = PaintedPoints(index, answer)
    camera, poses = path_round(index, views if with_views else None, 6, 64)
    assert max(camera.width, camera.height) == 64
    hot = [int((renderer(camera, pose)[1] > 0.5).sum()) for pose in poses]
    assert max(hot) > 20
    beside, out = views if with_views else None, tmp_path / "o.png"
    stands = []

    def counted(camera: Camera, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stands.append(pose)
        return renderer(camera, pose)

    path = write_orbit(out, index, answer, beside, counted, num_frames=6, long_side=64, progress=Silent())
    assert len(stands) == (4 if with_views else 6)  # two photographs make an arc, there and back
    warm = []
    with Image.open(path) as picture:
        for idx in range(picture.n_frames):  # type: ignore[attr-defined]  # equal neighbours are one frame, shown longer
            picture.seek(idx)
            warm.append(int((colourful(np.asarray(picture.convert("RGB"))[: camera.height]) > 40).sum()))
    assert max(warm) > 0
    assert (min(warm) == 0) == (min(hot) == 0)
