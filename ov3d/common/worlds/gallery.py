"""Galleries: seeded rooms hung with real photographs, with exact truth for every pixel and point.

The demo, tests and benchmarks read them like any capture: `write_gallery` writes a ScanNet-style folder. The photographs
come with scikit-image and scikit-learn, so that a real image encoder has something real to recognise without a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.files import write_text
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Float64
from ov3d.common.readers import load_scene
from ov3d.common.readers.scannet import read_posed_folder
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import Scene
from ov3d.common.worlds.furniture import FURNITURE
from ov3d.common.worlds.photographs import PHOTOGRAPHS
from ov3d.common.worlds.raycast import View, render
from ov3d.common.worlds.rooms import CLASSES, WALLS, Room, furnish
from ov3d.common.worlds.scannet_writer import refuse_other_frames, write_cloud, write_facts, write_view
from ov3d.common.worlds.viewpoints import SIGHTINGS, choose_views

EASY = ("cat", "coffee", "temple", "motorcycle")
"""Photographs that the offline encoder recognises well."""

HARD = (*EASY, "rocket", "flower")
"""The same, plus two that it recognises weakly."""

FOCAL_LENGTH = 0.9
"""Focal length over image width: a horizontal field of view of 58 degrees, typical of depth cameras."""

CLOUD_VOXEL = 0.025
"""Metres between the points of the cloud: about 100,000 points in eight views."""

_MAX_ATTEMPTS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryConfig:
    """What a gallery holds.

    Attributes:
        seed: another seed, another room.
        num_views: posed photographs taken in it.
        width, height: their size in pixels.
        photographs: what hangs on the walls, names of `PHOTOGRAPHS`.
        wall: a name of `WALLS`, or `any`: five seeds in a row show all five kinds.
        num_boxes, num_pedestals: number of each.
        furniture: number of pieces; kinds repeat in a random order, so twelve pieces show twelve kinds.
        furniture_classes: kinds to draw from, names of `FURNITURE`.
    """

    seed: int = 0
    num_views: int = 8
    width: int = 640
    height: int = 480
    photographs: tuple[str, ...] = EASY
    wall: str = "any"
    num_boxes: int = 2
    num_pedestals: int = 2
    furniture: int = 0
    furniture_classes: tuple[str, ...] = tuple(FURNITURE)

    def __post_init__(self) -> None:
        _check_names("photograph", self.photographs, PHOTOGRAPHS)
        _check_names("kind of furniture", self.furniture_classes, FURNITURE)
        _check_names("kind of wall", (self.wall,), ("any", *WALLS))
        if self.furniture and not self.furniture_classes:
            raise UsageError(f"A gallery with {self.furniture} pieces of furniture needs at least one furniture class.")
        least = {"seed": 0, "width": 32, "height": 24, "num_boxes": 0, "num_pedestals": 0, "furniture": 0}
        least["num_views"] = SIGHTINGS if self.photographs else 1
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"Gallery setting {name} must be at least {low}, got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """A room and its views; nothing is rendered yet.

    Attributes:
        config: its configuration.
        room: its contents.
        camera: intrinsics of all views.
        poses: `world_from_camera` of each view.
    """

    config: GalleryConfig
    room: Room
    camera: Camera
    poses: list[Float64[Array, "4 4"]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class ids."""
        return CLASSES

    def views(self) -> Iterator[View]:
        """Render the views one by one."""
        for pose in self.poses:
            yield render(self.room.primitives, self.camera, pose)


def photograph_gallery(seed: int = 0, *, photographs: tuple[str, ...] = EASY, wall: str = "any") -> GalleryConfig:
    """The preset of the quality benchmark: photographs, boxes and pedestals, no furniture."""
    return GalleryConfig(seed=seed, photographs=photographs, wall=wall)


def furnished_gallery(seed: int = 0, *, furniture: int = 7, num_views: int = 12) -> GalleryConfig:
    """The preset for training: a lived-in room with two photographs that the seed picks from all."""
    names = sorted(PHOTOGRAPHS)
    first, second = np.random.default_rng([seed, 7]).choice(len(names), 2, replace=False)
    return GalleryConfig(
        seed=seed,
        photographs=(names[first], names[second]),
        num_boxes=1,
        num_pedestals=1,
        furniture=furniture,
        num_views=num_views,
    )


def build_gallery(config: GalleryConfig) -> Gallery:
    """Draw the room and the views of a configuration.

    Raises:
        MissingModelError: the packages with the photographs are not installed.
        DataError: the contents do not fit into a room, or there are too few views to show them.
    """
    focal = FOCAL_LENGTH * config.width
    camera = Camera(config.width, config.height, focal, focal, config.width / 2, config.height / 2)
    wall = WALLS[config.seed % len(WALLS)] if config.wall == "any" else config.wall
    for attempt in range(_MAX_ATTEMPTS):
        rng = np.random.default_rng([config.seed, 2, attempt])
        kinds = sorted(config.furniture_classes)
        order = rng.permutation(len(kinds)) if kinds else np.zeros(1, np.int64)
        room = furnish(
            rng,
            wall=wall,
            photographs=config.photographs,
            num_boxes=config.num_boxes,
            num_pedestals=config.num_pedestals,
            furniture=tuple(kinds[order[k % len(kinds)]] for k in range(config.furniture)),
        )
        poses = choose_views(rng, room, camera, config.num_views) if room is not None else None
        if room is not None and poses is not None:
            return Gallery(config, room, camera, poses)
    raise DataError(
        f"No gallery with {len(config.photographs)} photographs, {config.furniture} pieces of furniture and "
        f"{config.num_views} views that show each photograph twice was found in {_MAX_ATTEMPTS} tries.",
        "Use more views or less furniture.",
    )


def write_gallery(folder: str | Path, config: GalleryConfig, progress: Progress | None = None) -> Scene:
    """Render a gallery into a ScanNet-style folder and read it back.

    Args:
        folder: the output folder; created if missing. Its name becomes the scene's.
        config: what to render. The same configuration gives the same bytes.
        progress: receives progress per view.

    Returns:
        The scene as read back, with its cloud: all surfaces visible in the views, thinned to one point per voxel of
        `CLOUD_VOXEL`, with colour, class and object.

    Raises:
        MissingModelError: the packages with the photographs are not installed.
        DataError: the folder holds another scene, or the configuration does not fit into a room.
        StorageError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    refuse_other_frames(folder, config.num_views)
    gallery = build_gallery(config)
    write_facts(folder, gallery.camera, CLASSES)
    with (progress or Silent()).task(f"Rendering {folder.name}", config.num_views + 1) as task:
        for number, view in enumerate(gallery.views()):
            write_view(folder, str(number), view)
            task.advance()
        # Not `load_scene`: an earlier cloud may still be there until the new one replaces it.
        frames, classes, _ = read_posed_folder(folder)
        bare = Scene(folder.name, folder, "scannet", tuple(frames), classes=classes)
        scene = with_cloud(bare, voxel_size=CLOUD_VOXEL)
        assert scene.cloud is not None
        write_cloud(folder / "cloud.ply", scene.cloud)
        task.advance()
    write_text(folder / "credits.txt", _credits(config.photographs))
    return load_scene(folder, layout="scannet")


def _credits(names: tuple[str, ...]) -> str:
    lines = [f"{name}: {PHOTOGRAPHS[name].credit} (shipped in {PHOTOGRAPHS[name].package})" for name in names]
    return "\n".join(["Photographs in this generated room:", *lines]) + "\n"


def _check_names(what: str, names: tuple[str, ...], known: object) -> None:
    for name in names:
        if name not in tuple(known):  # type: ignore[arg-type]
            raise UsageError(f"Unknown {what} {name!r}.", did_you_mean(name, tuple(known)))  # type: ignore[arg-type]
    if len(set(names)) != len(names):
        raise UsageError(f"A {what} is named twice in {', '.join(names)}.")
