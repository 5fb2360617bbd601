"""Find out what layout a path is in, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ov3d.common.base.errors import DataError, UsageError, did_you_mean
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
from ov3d.common.readers.layout import Layout, scene_name
from ov3d.common.readers.scaling import check_scale, in_metres
from ov3d.common.scenes.scene import LazyScenes, Scene, SceneSource

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


def open_source(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    scale: float | None = None,
    say: Callable[[str], None] | None = None,
) -> SceneSource:
    """Open a scene, or a folder whose sub-folders are scenes, without reading any.

    Args:
        path: a scene (then the source has one), or a folder of scenes: ids are the names of the sub-folders, in order;
            each `splits/NAME.txt` is a split, one id a line.
        layout: a name of `LAYOUTS`; by default the content tells.
        scale: metres per unit of the files; makes an arbitrary world metric. By default lengths are as they are.
        say: hears, of each scene that is read, its layout and its notes, a line each.

    Raises:
        UsageError: no layout of that name, or a scale that is not positive.
        DataError: the path is not there or is no scene; the message says what was looked for.
    """
    check_scale(scale)
    root, layouts = Path(path), _layouts(layout)
    if not root.exists():
        raise DataError(f"There is nothing at {root}.", "Check the path to the scene.")
    single = _matching(root, layouts)
    if single is not None and single.open is not None:
        inside = single.open(root)
        finish = _finisher(scale, say)
        by_id = {name: idx for idx, name in enumerate(inside.ids)}
        return LazyScenes(tuple(inside.ids), lambda name: finish(inside[by_id[name]]), inside.splits)
    if single is not None:
        return LazyScenes((scene_name(root),), _loader(root, single, {}, scale, say))
    inner = _scenes_below(root, layouts) if root.is_dir() else {}
    if not inner:
        raise _no_scene(root, layouts)
    return LazyScenes(tuple(inner), _loader(root, None, inner, scale, say), _splits(root, tuple(inner)))


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
        UsageError: no layout of that name, or a scale that is not positive.
        DataError: the path is no scene, several scenes, or one with a fault; the message names it.
    """
    source = open_source(path, layout=layout, scale=scale)
    if name is not None and (len(source) > 1 or name in source.ids):
        if name not in source.ids:
            raise DataError(f"{path} has no scene {name!r}.", did_you_mean(name, source.ids))
        return source[list(source.ids).index(name)]
    if len(source) > 1:
        first = ", ".join(source.ids[:3])
        raise DataError(f"{path} holds {len(source)} scenes ({first}, …).", f"Name one: {Path(path) / source.ids[0]}")
    return source[0]


def summary(scene: Scene) -> str:
    """What a scene was read as, in a line."""
    points = "no points" if scene.cloud is None else f"{len(scene.cloud):,} points"
    units = "metres" if scene.world.units == "metric" else "arbitrary units"
    return f"layout {scene.layout}, {len(scene.frames)} frames, {points}, {units}"


def _layouts(name: str | None) -> tuple[Layout, ...]:
    if name is None:
        return LAYOUTS
    chosen = tuple(layout for layout in LAYOUTS if layout.name == name)
    if not chosen:
        raise UsageError(f"There is no layout {name!r}.", did_you_mean(name, [layout.name for layout in LAYOUTS]))
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


def _loader(
    root: Path,
    single: Layout | None,
    inner: dict[str, tuple[Path, Layout]],
    scale: float | None,
    say: Callable[[str], None] | None,
) -> Callable[[str], Scene]:
    def load(name: str) -> Scene:
        path, layout = (root, single) if single is not None else inner[name]
        return finish(layout.load(path))

    finish = _finisher(scale, say)
    return load


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
            raise DataError(f"Split {path} cannot be read.", "It holds one scene id a line, as plain text.") from None
        for name in names:
            if name not in ids:
                raise DataError(f"Split {path} names {name!r}, which is no scene of {root}.", did_you_mean(name, ids))
        splits[path.stem] = names
    return splits


def _no_scene(root: Path, layouts: tuple[Layout, ...]) -> DataError:
    looked_for = "; or ".join(layout.looks_for for layout in layouts)
    where = "in it and in its sub-folders" if root.is_dir() else "there and beside it"
    return DataError(f"{root} is no scene: looked {where} for {looked_for}.", "Check the path to the scene.")
