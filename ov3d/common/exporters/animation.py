"""Animations: an animated PNG by Pillow, or an MP4 by an ffmpeg found on the PATH."""

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
"""Times an MP4 repeats its closed path, since players rarely loop; an animated PNG loops forever."""


def check_animation(path: Path) -> None:
    """Check in advance that an animation with this file name can be written.

    Raises:
        UsageError: the extension is unknown, or it is .mp4 and ffmpeg is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"Animation {path} must end in .png or .mp4.")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise UsageError(
            f"Writing {path.name} needs ffmpeg, which is not on the PATH.",
            f"Install it, or write an animated PNG: {path.with_suffix('.png').name}",
        )


def write_animation(path: str | Path, frames: Sequence[UInt8[Array, "h w 3"]]) -> Path:
    """Write frames of equal size as a looping animation, atomically; the extension selects the format.

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
    """H.264 that any player accepts: even sizes, 4:2:0, index first."""
    height, width = frames[0].shape[:2]
    even = [np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.mp4"
        command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width + width % 2}x{height + height % 2}", "-r", str(FRAMES_A_SECOND), "-i", "-"]
        command += ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
        # One thread and no timestamps: the same frames give the same file.
        command += ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", str(made)]
        pixels = b"".join(np.ascontiguousarray(frame).tobytes() for frame in even) * REPEATS
        done = subprocess.run(command, input=pixels, capture_output=True, check=False)
        if done.returncode or not made.is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise StorageError(
                f"ffmpeg could not write the MP4: {said[-1] if said else f'exit code {done.returncode}'}.",
                "Write an animated PNG instead: a name that ends in .png",
            )
        return made.read_bytes()
