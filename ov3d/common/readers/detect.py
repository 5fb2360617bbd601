"""Detect the layout of a path, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ov3d.common.base.errors import DataError, UsageError, did_you_mean, nearest
from ov3d.common.readers import (
    arrays,
    blender,
    cloud,
    colmap,
    kitti_object,
    llff,
    nerfstudio,
    nuscenes,
    s3dis,
    scannet,
    scannet_raw,
    semantickitti,
    stanford,
)
from ov3d.common.readers.layout import Layout
from ov3d.common.readers.scaling import check_scale, in_metres
from ov3d.common.scenes.scene import LazyScenes, Scene

LAYOUTS: tuple[Layout, ...] = (
    scannet.LAYOUT,
    cloud.LAYOUT,
    scannet_raw.LAYOUT,
    nerfstudio.LAYOUT,
    blender.LAYOUT,
    llff.LAYOUT,
    colmap.LAYOUT,
    s3dis.LAYOUT,
    stanford.LAYOUT,
    arrays.POINTCEPT,
    arrays.OPENSCENE,
    arrays.NPY,
    nuscenes.LAYOUT,
    semantickitti.LAYOUT,
    kitti_object.LAYOUT,
)
"""Known layouts; the first that matches a path reads it."""

SPLITS_FOLDER = "splits"

MANY = 30
"""Scenes beyond which a hint names only the first."""


def open_source(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    scale: float | None = None,
    say: Callable[[str], None] | None = None,
) -> LazyScenes:
    """Open a scene, a data set, or a folder whose sub-folders are scenes, without reading any.

    Args:
        path: a scene (then the source has one); a data set; one scene of a data set, as `DATASET/ID`; or a folder of scenes:
            ids are the names of the sub-folders, sorted, and each `splits/NAME.txt` is a split with one id per line.
        layout: a name of `LAYOUTS`; by default the content tells.
        scale: metres per unit of the files; makes an arbitrary world metric. By default lengths are as they are.
        say: called with the layout and notes of each scene read, one line at a time.

    Raises:
        UsageError: unknown layout, or a scale that is not positive.
        DataError: the path does not exist or is not a scene; the message says what was looked for.
    """
    check_scale(scale)
    root, layouts = Path(path), _layouts(layout)
    finish = _finisher(scale, say)
    if not root.exists():
        inside = _member(root, layouts, say)
        return LazyScenes(inside.ids, lambda name: finish(inside.load(name)))
    single = _matching(root, layouts)
    if single is not None:
        inside = single.scenes(root, say)
        return LazyScenes(inside.ids, lambda name: finish(inside.load(name)), inside.splits)
    below = _scenes_below(root, layouts) if root.is_dir() else {}
    if not below:
        raise _no_scene(root, layouts)
    return LazyScenes(tuple(below), lambda name: finish(_only(*below[name])), _splits(root, tuple(below)))


def load_scene(
    path: str | os.PathLike[str], name: str | None = None, *, layout: str | None = None, scale: float | None = None
) -> Scene:
    """Read one scene.

    Args:
        path: the scene, or a data set.
        name: which scene of a data set.
        layout: a name of `LAYOUTS`; by default the content tells.
        scale: metres per unit of the files; makes an arbitrary world metric. By default lengths are as they are.

    Raises:
        UsageError: unknown layout, or a scale that is not positive.
        DataError: the path is not a scene, holds several, or is faulty; the message names the fault.
    """
    return scene_of(open_source(path, layout=layout, scale=scale), path, name)


def scene_of(source: LazyScenes, path: str | os.PathLike[str], name: str | None = None) -> Scene:
    """Read one scene of a source.

    Args:
        source: from `open_source`.
        path: where that was opened, to name.
        name: which scene; of a source that has just one, it may be what that was called before it was moved.

    Raises:
        DataError: no such scene, several and no name, or one with a fault.
    """
    if name is not None and name in source.ids:
        return source.load(name)
    if len(source) == 1:
        return source[0]
    if name is not None:
        raise DataError(f"{path} has no scene {name!r}.", _near(name, source.ids))
    first = ", ".join(source.ids[:3]) + (", …" if len(source) > 3 else "")
    raise DataError(f"{path} holds {len(source):,} scenes ({first}).", f"Name one: {Path(path) / source.ids[0]}")


def summary(scene: Scene) -> str:
    """How a scene was read, in one line."""
    points = "no points" if scene.cloud is None else f"{len(scene.cloud):,} points"
    units = "metres" if scene.world.units == "metric" else "arbitrary units"
    frames = f"{len(scene.frames)} frame{'s' * (len(scene.frames) != 1)}"
    return f"layout {scene.layout}, {frames}, {points}, {units}"


def _layouts(name: str | None) -> tuple[Layout, ...]:
    if name is None:
        return LAYOUTS
    chosen = tuple(layout for layout in LAYOUTS if layout.name == name)
    if not chosen:
        raise UsageError(f"Unknown layout {name!r}.", did_you_mean(name, [layout.name for layout in LAYOUTS]))
    return chosen


def _matching(path: Path, layouts: tuple[Layout, ...]) -> Layout | None:
    named = len(layouts) == 1
    return next((layout for layout in layouts if layout.matches(path) and (named or not layout.yields_to(path))), None)


def _scenes_below(root: Path, layouts: tuple[Layout, ...]) -> dict[str, tuple[Path, Layout]]:
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name != SPLITS_FOLDER)
    except OSError as error:
        raise DataError(f"{root} cannot be opened: {error.strerror}.", "Check its permissions.") from None
    found = {}
    for folder in folders:
        layout = _matching(folder, layouts)
        if layout is not None:
            found[folder.name] = (folder, layout)
    return found


def _member(path: Path, layouts: tuple[Layout, ...], say: Callable[[str], None] | None) -> LazyScenes:
    """The scene that a path names as `DATASET/ID`.

    Raises:
        DataError: the data set does not exist, or has no scene of that name.
    """
    single = _matching(path.parent, layouts) if path.parent.is_dir() else None
    if single is None or single.open is None:
        raise DataError(f"{path} does not exist.", "Check the path to the scene.")
    inside = single.open(path.parent, say)
    if path.name not in inside.ids:
        raise DataError(f"{path.parent} has no scene {path.name!r}.", _near(path.name, inside.ids))
    return LazyScenes((path.name,), inside.load)


def _near(name: str, ids: Sequence[str]) -> str:
    """A hint for the name of a scene that is not there: the nearest, or the first few of many."""
    if len(ids) <= MANY or nearest(name, ids):
        return did_you_mean(name, ids)
    return f"It has {len(ids):,}: {', '.join(ids[:3])}, …"


def _only(path: Path, layout: Layout) -> Scene:
    """The scene at a path that must be one scene."""
    inside = layout.scenes(path)
    if len(inside) != 1:
        raise DataError(
            f"{path} is a data set of {len(inside):,} scenes, not a scene.",
            f"Open it by itself, or one of them: {path / inside.ids[0]}",
        )
    return inside[0]


def _finisher(scale: float | None, say: Callable[[str], None] | None) -> Callable[[Scene], Scene]:
    """What is done to every scene that is read: bring it to metres, and tell what it was read as."""

    def finish(scene: Scene) -> Scene:
        scene = scene if scale is None else in_metres(scene, scale)
        if say is not None:
            for line in (summary(scene), *scene.notes):
                say(f"{scene.name}: {line}")
        return scene

    return finish


def _splits(root: Path, ids: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    splits = {}
    for path in sorted((root / SPLITS_FOLDER).glob("*.txt")):
        try:
            names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError):
            raise DataError(
                f"Split {path} cannot be read.", "It should be plain text with one scene id per line."
            ) from None
        for name in names:
            if name not in ids:
                raise DataError(
                    f"Split {path} names {name!r}, which is not a scene in {root}.", did_you_mean(name, ids)
                )
        splits[path.stem] = names
    return splits


def _no_scene(root: Path, layouts: tuple[Layout, ...]) -> DataError:
    looked_for = "; or ".join(layout.looks_for for layout in layouts)
    where = "in it and in its sub-folders" if root.is_dir() else "there and beside it"
    return DataError(f"{root} is not a scene: looked {where} for {looked_for}.", "Check the path to the scene.")
