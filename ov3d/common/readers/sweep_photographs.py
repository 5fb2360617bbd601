"""Photographs taken with a sweep: those that can be used, and a note on the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ov3d.common.scenes.images import ImageHeader, read_header


def usable(paths: Mapping[str, Path], scan: str) -> tuple[dict[str, ImageHeader], list[str]]:
    """Headers of the photographs that can be read, by camera, and notes on those that cannot.

    Args:
        paths: the photograph of each camera that should have one.
        scan: what the data set calls the sweep, for the notes.
    """
    headers: dict[str, ImageHeader] = {}
    missing: list[str] = []
    broken: list[str] = []
    for camera, path in paths.items():
        header = read_header(path)
        if header is not None:
            headers[camera] = header
        else:
            (broken if path.is_file() else missing).append(camera)
    notes = []
    for cameras, state in ((missing, "missing"), (broken, "unreadable")):
        if cameras:
            others = f"; the other {len(headers)} of {len(paths)} cameras are used" if headers else ""
            notes.append(f"photograph {scan} of {', '.join(cameras)} is {state}{others}")
    return headers, notes
