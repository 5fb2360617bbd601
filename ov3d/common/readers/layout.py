"""What a layout is: a name, how to recognise it, how to read it. Each reader module offers one as `LAYOUT`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ov3d.common.base.shapes import Array, Float64
from ov3d.common.scenes.scene import Frame, LazyScenes, PointCloud, Scene, World

FAR = 1000.0
"""Coordinates beyond this get an origin: below it, fp32 is finer than a tenth of a millimetre."""

_SAMPLE = 100_000


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which captures lie on disk: scene by scene (`load`), or a whole data set (`open`).

    Attributes:
        name: what `layout=` calls it.
        looks_for: what tells it apart, in words for an error.
        matches: whether a path is a scene or data set of this layout; looks at names only.
        load: reads the scene at a path; none for data sets.
        open: opens the data set at a path without reading a scene, and says what takes a while; none for single scenes.
        yields_to: where this is true too, another layout fits better, unless the user names this one.
    """

    name: str
    looks_for: str
    matches: Callable[[Path], bool]
    load: Callable[[Path], Scene] | None = None
    open: Callable[[Path, Callable[[str], None] | None], LazyScenes] | None = None
    yields_to: Callable[[Path], bool] = lambda path: False

    def scene(
        self,
        path: Path,
        frames: Sequence[Frame],
        world: World,
        notes: Sequence[str],
        *,
        name: str | None = None,
        cloud: PointCloud | None = None,
        classes: tuple[str, ...] = (),
        splits: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Scene:
        """Build a scene of this layout from what was read.

        Args:
            path: where it was read from.
            frames: with poses as in the files; the scene's are relative to the world's origin.
            world: units, up, origin.
            notes: remarks for the user.
            name: replaces the path's name.
            cloud: points relative to the origin.
            classes: names of the class ids in labels.
            splits: names of splits to the names of their frames.
        """
        return Scene(
            name=name or scene_name(path),
            path=path,
            layout=self.name,
            frames=_relative_to(frames, world.origin),
            cloud=cloud,
            world=world,
            classes=classes,
            notes=tuple(notes),
            splits=splits or {},
        )

    def scenes(self, path: Path, say: Callable[[str], None] | None = None) -> LazyScenes:
        """The scenes at a path, none of them read; of a layout without data sets, the one."""
        if self.open is not None:
            return self.open(path, say)
        load = self.load
        assert load is not None, f"layout {self.name} can neither load nor open"
        return LazyScenes((scene_name(path),), lambda _: load(path))


def scene_name(path: Path) -> str:
    """The id of the scene at a path: its folder's name, or its file's without the extension."""
    resolved = path.resolve()
    return resolved.stem if resolved.is_file() else resolved.name


def folder_name(path: Path) -> str:
    """What a folder is called where it is named, which for a link is not what it leads to."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def choose_origin(positions: Float64[Array, "n 3"]) -> tuple[float, float, float]:
    """The offset to subtract from finite coordinates so that fp32 holds them: zero, or their median rounded to whole units.

    The median, not the middle of their range: one stray point (sensors often put "no return" at zero, hundreds of
    kilometres from the survey) must not cost the others their millimetres.
    """
    if len(positions) == 0 or np.abs(positions).max() <= FAR:
        return (0.0, 0.0, 0.0)
    x, y, z = np.rint(np.median(positions[:: max(1, len(positions) // _SAMPLE)], axis=0)).tolist()
    return (x, y, z)


def origin_of_cameras(frames: Sequence[Frame]) -> tuple[float, float, float]:
    """The origin of a scene that has only frames."""
    return choose_origin(np.stack([frame.world_from_camera[:3, 3] for frame in frames]))


def _relative_to(frames: Sequence[Frame], origin: tuple[float, float, float]) -> tuple[Frame, ...]:
    """Frames with their poses relative to an origin."""
    if not any(origin):
        return tuple(frames)
    moved = []
    for frame in frames:
        pose = frame.world_from_camera.copy()
        pose[:3, 3] -= origin
        moved.append(replace(frame, world_from_camera=pose))
    return tuple(moved)
