"""An answer as an animation: the scene from a path around it, overlaid with the prompt's heat.

The renderer is an argument: a backend whose field can be rendered from anywhere, or `PaintedPoints`, which paints the
index's own points and works for every run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float32, Float64, UInt8
from ov3d.common.exporters.animation import check_animation, write_animation
from ov3d.common.exporters.camera_path import looked_at, orbit_path, ring_path
from ov3d.common.exporters.colours import heat_of
from ov3d.common.exporters.drawing import blend_heat, soften, with_legend
from ov3d.common.exporters.images import GROUND, point_colours
from ov3d.common.exporters.splat import EMPTY, paint_view
from ov3d.common.exporters.view_heat import picked, spacing_of
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.views import ViewSet

NUM_FRAMES = 24
LONG_SIDE = 240
RING_FOCAL = 1.1
"""Focal length of the camera on a ring, in widths."""

ViewRenderer = Callable[[Camera, Array], tuple[Array, Array]]
"""Renders a view: (camera, world_from_camera [4, 4]) to RGB [h, w, 3] and raw scores of the prompt [h, w], -inf where the
view is empty."""


class PaintedPoints:
    """A `ViewRenderer` of an index's points.

    Args:
        index: the points.
        answer: for this index.
    """

    def __init__(self, index: LanguageIndex, answer: Answer) -> None:
        self._xyz, self._spacing = index.xyz, spacing_of(index)
        self._scores = np.where(index.seen, answer.scores, -np.inf).astype(np.float32)
        self._rgb = np.append(point_colours(index), [np.array(GROUND, np.uint8)], axis=0)

    def __call__(
        self, camera: Camera, world_from_camera: Float64[Array, "4 4"]
    ) -> tuple[UInt8[Array, "h w 3"], Float32[Array, "h w"]]:
        """The points as that camera sees them."""
        owner = paint_view(self._xyz, camera, world_from_camera, self._spacing)
        scores = picked(self._scores, owner, empty=EMPTY)
        return self._rgb[owner], np.where(owner == EMPTY, -np.inf, scores).astype(np.float32)


def path_round(
    index: LanguageIndex, views: ViewSet | None, num_frames: int, long_side: int
) -> tuple[Camera, Float64[Array, "n 4 4"]]:
    """A camera and its poses around a scene: among its photographs, or on a ring without photographs.

    Args:
        index: the points.
        views: the photographs, or None.
        num_frames: n.
        long_side: of a frame, pixels.

    Raises:
        DataError: neither photographs nor points.
    """
    if views is None or not len(views):
        width, height = long_side, max(1, round(0.75 * long_side))
        camera = Camera(width, height, RING_FOCAL * width, RING_FOCAL * width, width / 2, height / 2)
        return camera, ring_path(index.xyz, index.world.up, num_frames)
    cameras = [views.camera(idx) for idx in range(len(views))]
    scale = long_side / max(cameras[0].width, cameras[0].height)
    size = (max(1, round(scale * side)) for side in (cameras[0].width, cameras[0].height))
    targets = looked_at(cameras, views.world_from_camera, index.xyz)
    return cameras[0].resized(*size), orbit_path(views.world_from_camera, targets, index.world.up, num_frames)


def write_orbit(
    path: Path,
    index: LanguageIndex,
    answer: Answer,
    views: ViewSet | None,
    renderer: ViewRenderer,
    *,
    num_frames: int = NUM_FRAMES,
    long_side: int = LONG_SIDE,
    progress: Progress,
) -> Path:
    """Write an animation of an answer.

    Args:
        path: ends in .png or .mp4.
        index: the points.
        answer: for this index.
        views: the photographs, or None.
        renderer: renders the frames.
        num_frames: number of frames.
        long_side: of a frame, pixels.
        progress: receives progress.

    Raises:
        UsageError: the extension is unknown, or it is .mp4 and ffmpeg is not installed.
        DataError: the index has neither photographs nor points.
        StorageError: it cannot be written.
    """
    check_animation(path)
    camera, poses = path_round(index, views, num_frames, long_side)
    frames: list[UInt8[Array, "h w 3"]] = []
    known: dict[bytes, UInt8[Array, "h w 3"]] = {}  # a path there and back stands everywhere twice
    with progress.task("Rendering the orbit", len(poses)) as task:
        for pose in poses:
            place = (np.round(pose, 9) + 0.0).tobytes()  # a zero has one sign
            if place not in known:
                known[place] = _composed(answer, *renderer(camera, pose))
            frames.append(known[place])
            task.advance()
    return write_animation(path, frames)


def _composed(answer: Answer, rgb: UInt8[Array, "h w 3"], scores: Float32[Array, "h w"]) -> UInt8[Array, "h2 w 3"]:
    """One frame: the heat over the picture, and the legend below it."""
    from PIL import Image

    heat = soften(heat_of(scores, *answer.score_range), max(rgb.shape[1] / 640, 0.5))
    return np.asarray(with_legend(Image.fromarray(blend_heat(rgb, heat)), answer, answer.scene))
