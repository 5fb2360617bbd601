"""Detect the layout of a path, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.readers import arrays, blender, cloud, colmap, llff, nerfstudio, s3dis, scannet, scannet_raw, stanford
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
    """Open a scene, or a folder whose sub-folders are scenes, without reading it yet.

    Args:
        path: a scene (the source then has just that one), or a folder of scenes: ids are the sub-folders' names, sorted;
            each `splits/NAME.txt` is a split with one id per line.
        layout: a name in `LAYOUTS`; detected by default.
        scale: metres per unit of the files; makes an arbitrary world metric. By default lengths are unchanged.
        say: called with the layout and notes of each scene read, one line at a time.

    Raises:
        UsageError: unknown layout, or a scale that is not positive.
        DataError: the path does not exist or is not a scene; the message says what was looked for.
    """
    check_scale(scale)
    root, layouts = Path(path), _layouts(layout)
    if not root.exists():
        raise DataError(f"{root} does not exist.", "Check the path to the scene.")
    single = _matching(root, layouts)
    if single is not None:
        return LazyScenes((scene_name(root),), _loader(root, single, {}, scale, say))
    inner = _scenes_below(root, layouts) if root.is_dir() else {}
    if not inner:
        raise _no_scene(root, layouts)
    return LazyScenes(tuple(inner), _loader(root, None, inner, scale, say), _splits(root, tuple(inner)))


def load_scene(path: str | os.PathLike[str], *, layout: str | None = None, scale: float | None = None) -> Scene:
    """Read one scene.

    Args:
        path: the scene.
        layout: a name in `LAYOUTS`; detected by default.
        scale: metres per unit of the files; makes an arbitrary world metric. By default lengths are unchanged.

    Raises:
        UsageError: unknown layout, or a scale that is not positive.
        DataError: the path is not a scene, holds several, or is faulty; the message names the fault.
    """
    source = open_source(path, layout=layout, scale=scale)
    if len(source) > 1:
        first = ", ".join(source.ids[:3])
        raise DataError(
            f"{path} holds {len(source)} scenes ({first}, …).", f"Choose one, for example {Path(path) / source.ids[0]}."
        )
    return source[0]


def summary(scene: Scene) -> str:
    """How a scene was read, in one line."""
    points = "no points" if scene.cloud is None else f"{len(scene.cloud):,} points"
    units = "metres" if scene.world.units == "metric" else "arbitrary units"
    return f"layout {scene.layout}, {len(scene.frames)} frames, {points}, {units}"


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


def _loader(
    root: Path,
    single: Layout | None,
    inner: dict[str, tuple[Path, Layout]],
    scale: float | None,
    say: Callable[[str], None] | None,
) -> Callable[[str], Scene]:
    def load(name: str) -> Scene:
        path, layout = (root, single) if single is not None else inner[name]
        scene = layout.load(path)
        scene = scene if scale is None else in_metres(scene, scale)
        if say is not None:
            for line in (summary(scene), *scene.notes):
                say(f"{scene.name}: {line}")
        return scene

    return load


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
