"""Moving pictures: an animated PNG by Pillow, or an MP4 by an ffmpeg that is on the path."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import StorageError, UsageError
from ov3d.common.base.files import write_bytes
from ov3d.common.base.shapes import Array, UInt8

FRAMES_A_SECOND = 10
ENDINGS = (".png", ".apng", ".mp4")
REPEATS = 3
"""Players rarely repeat an MP4 by themselves, so a closed path is gone along so often; an animated PNG repeats for ever."""


def check_animation(path: Path) -> None:
    """See beforehand that an animation of that name could be written.

    Raises:
        UsageError: it is of no known kind, or an MP4 and there is no ffmpeg.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path} is no animation.", "Give it a name that ends in .png or .mp4.")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise UsageError(
            f"There is no ffmpeg on the path to write {path.name} with.",
            f"Install it, or ask for an animated PNG: {path.with_suffix('.png').name}",
        )


def write_animation(path: str | Path, frames: Sequence[UInt8[Array, "h w 3"]]) -> Path:
    """Write frames of one size as an animation that repeats, atomically; its ending says which kind.

    Raises:
        UsageError: see `check_animation`.
        StorageError: the file cannot be written, or ffmpeg failed.
    """
    target = Path(path)
    check_animation(target)
    return write_bytes(target, _mp4(frames) if target.suffix.lower() == ".mp4" else _apng(frames))


def _apng(frames: Sequence[UInt8[Array, "h w 3"]]) -> bytes:
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    data = io.BytesIO()
    duration = round(1000 / FRAMES_A_SECOND)
    first.save(data, "PNG", save_all=True, append_images=others, duration=duration, loop=0)
    return data.getvalue()


def _mp4(frames: Sequence[UInt8[Array, "h w 3"]]) -> bytes:
    """H.264 as any player takes it: even sizes, 4:2:0, the index in front."""
    height, width = frames[0].shape[:2]
    even = [np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.mp4"
        command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width + width % 2}x{height + height % 2}", "-r", str(FRAMES_A_SECOND), "-i", "-"]
        command += ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
        # One thread and no stamps: the same frames give the same file.
        command += ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", str(made)]
        pixels = b"".join(np.ascontiguousarray(frame).tobytes() for frame in even) * REPEATS
        done = subprocess.run(command, input=pixels, capture_output=True, check=False)
        if done.returncode or not made.is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise StorageError(
                f"ffmpeg could not make an MP4: {said[-1] if said else f'exit code {done.returncode}'}.",
                "Ask for an animated PNG: a name that ends in .png",
            )
        return made.read_bytes()
