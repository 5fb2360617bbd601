"""Baking: a trained model's features on surfaces, as an index that can be queried with NumPy.

With W = Q R (Q orthonormal [d, 28], R upper triangular), the unit feature of a code z is F = Q c with

    c = R z / |R z|,        F . t = c . (Q^t t)                                                                (1)

so a point stores the 28 numbers c in the basis Q^t, exact up to rounding. Points are the scene's own cloud, or one
made from rendered depth; a point's code is the mean over the views that see it, normalised to unit length.

Symbols: v views, n points, p pixels, d width of the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ov3d.common.asking.index import INDEX_NAME, LanguageIndex, write_index
from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float, Float16, Float32, Float64, UInt8
from ov3d.common.language.cards import EncoderCard
from ov3d.common.lifting.lift import LiftedFeatures, lift
from ov3d.common.scenes.cameras import Camera, transform
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from ov3d.common.scenes.views import FILE_NAME as VIEWS_NAME
from ov3d.common.scenes.views import ViewSet, write_views
from ov3d.nerf.config import NerfConfig
from ov3d.nerf.language import FeatureHead
from ov3d.nerf.model import Model
from ov3d.nerf.rays import working_camera
from ov3d.nerf.view_rays import view_rays

LEAST_OPACITY = 0.5
"""Below this opacity, a pixel sees no surface."""
CLOUD_VOXELS = 256
"""Voxels along the longest side of a cloud that is made from rendered depth."""


@dataclass(frozen=True, slots=True, eq=False)
class RenderedView:
    """A trained model rendered from a frame.

    Attributes:
        code: c of equation (1), zeros in empty space.
        distance: along the rays, world units.
        opacity: in [0, 1].
        colour: RGB.
    """

    code: Float16[Array, "h w r"]
    distance: Float32[Array, "h w"]
    opacity: Float32[Array, "h w"]
    colour: UInt8[Array, "h w 3"]


class RenderedFeatures:
    """Codes of rendered views as a source of pixel features, for lifting.

    Args:
        views: by frame name.
        key: names the model that rendered them.
    """

    def __init__(self, views: Mapping[str, RenderedView], key: str) -> None:
        self._views, self._key = views, key

    def key(self, frame: Frame) -> str:
        """Names model and frame."""
        return hash_text("rendered-1", self._key, frame.name)

    def pixel_features(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float16[Array, "n r"]:
        """c at pixels of the frame's full-size camera; zeros where the model sees nothing."""
        code = self._views[frame.name].code
        scale = (code.shape[1] / frame.camera.width, code.shape[0] / frame.camera.height)
        columns, rows = np.asarray(uv * scale, np.int64).T
        return code[rows.clip(0, code.shape[0] - 1), columns.clip(0, code.shape[1] - 1)]

    def known(self, frame: Frame, uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
        """Where the model sees something."""
        return (self.pixel_features(frame, uv) != 0).any(axis=1)


def factorised(head: FeatureHead) -> tuple[Float32[Array, "d z"], Float32[Array, "z z"]]:
    """Q and R of equation (1); signs are fixed, so that files do not depend on the library."""
    q, r = np.linalg.qr(head.weight.detach().cpu().double().numpy())
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    return (q * signs).astype(np.float32), (r * signs[:, None]).astype(np.float32)


def render_frame(model: Model, frame: Frame, long_side: int, triangle: Float32[Array, "z z"]) -> RenderedView:
    """A frame's view at a long side; `triangle` is R of equation (1)."""
    return render_view(model, working_camera(frame.camera, long_side), frame.world_from_camera, triangle)


def render_view(
    model: Model, camera: Camera, world_from_camera: Float64[Array, "4 4"], triangle: Float32[Array, "z z"]
) -> RenderedView:
    """What any camera sees; `triangle` is R of equation (1)."""
    seen = model.render(*view_rays(camera, world_from_camera, model.device))
    code = seen.code @ torch.from_numpy(triangle.T.copy()).to(model.device)
    code = code / code.norm(dim=1, keepdim=True).clamp(min=1e-12)
    code = torch.where((seen.opacity >= LEAST_OPACITY)[:, None], code, torch.zeros_like(code))
    shape = (camera.height, camera.width)
    return RenderedView(
        code.half().cpu().numpy().reshape(*shape, -1),
        seen.distance.cpu().numpy().reshape(shape),
        seen.opacity.cpu().numpy().reshape(shape),
        (seen.colour.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy().reshape(*shape, 3),
    )


def bake(
    model: Model,
    head: FeatureHead,
    scene: Scene,
    card: EncoderCard,
    folder: Path,
    *,
    vocabulary: tuple[str, ...],
    config: NerfConfig,
    progress: Progress,
) -> LiftedFeatures:
    """Write the index of a scene's surfaces and its views.

    Args:
        model: trained.
        head: its feature head.
        scene: all its frames, and its cloud or depth if it has one.
        card: the encoder's.
        folder: where `index.safetensors` and `views.safetensors` go.
        vocabulary: classes it was aligned with.
        config: how codes are lifted onto points, and the long side of the views' code maps.
        progress: receives progress.

    Returns:
        The points' codes in the basis Q^t.

    Raises:
        DataError: no view sees a surface.
    """
    q, triangle = factorised(head)
    views: dict[str, RenderedView] = {}
    with progress.task("Rendering views", len(scene.frames)) as task:
        for frame in scene.frames:
            views[frame.name] = render_frame(model, frame, config.view_long_side, triangle)
            task.advance()
    cloud = _points(scene, views, progress)
    weights = head.weight.detach().cpu().numpy().tobytes().hex()
    source = RenderedFeatures(views, hash_text(json.dumps(model.metadata(), sort_keys=True), weights))
    lifted = lift(cloud, scene.frames, source, config.lift, progress=progress)
    if not len(lifted):
        raise DataError(f"No view of {scene.name} sees any of its points.", "See: ov3d doctor SCENE")
    lifted = replace(lifted, basis=np.ascontiguousarray(q.T))
    facts = {"frames": len(scene.frames)}
    index = LanguageIndex.of_lifted(
        lifted, replace(scene, cloud=cloud), card, backend="nerf/distil", vocabulary=vocabulary, facts=facts
    )
    write_index(folder / INDEX_NAME, index)
    write_views(folder / VIEWS_NAME, _view_set(scene, views))
    return lifted


def _view_set(scene: Scene, views: Mapping[str, RenderedView]) -> ViewSet:
    """The scene's views with their code maps."""
    maps = [views[frame.name].code for frame in scene.frames]
    codes = np.concatenate([code.reshape(-1, code.shape[2]) for code in maps])
    sizes = np.array([code.shape[1::-1] for code in maps], np.int32).reshape(-1, 2)
    return replace(ViewSet.from_scene(scene), code=codes, code_sizes=sizes)


def _points(scene: Scene, views: Mapping[str, RenderedView], progress: Progress) -> PointCloud:
    """The scene's own points, else one point per voxel of measured depth, else of rendered depth."""
    if scene.cloud is not None or any(frame.depth is not None for frame in scene.frames):
        cloud = with_cloud(scene, progress=progress).cloud
        assert cloud is not None
        return cloud
    xyz, rgb = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    for frame in scene.frames:
        view = views[frame.name]
        camera = frame.camera.resized(view.distance.shape[1], view.distance.shape[0])
        ways = camera.unproject(camera.pixel_centres(), np.ones(view.distance.size))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        solid = view.opacity.reshape(-1) >= LEAST_OPACITY
        local = ways[solid] * view.distance.reshape(-1)[solid, None]
        xyz.append(transform(frame.world_from_camera, local))
        rgb.append(view.colour.reshape(-1, 3)[solid])
    points, colours = np.concatenate(xyz), np.concatenate(rgb)
    if not len(points):
        raise DataError(f"The radiance field of {scene.name} shows no surface.", "See: ov3d doctor SCENE")
    low, high = np.percentile(points, (1, 99), axis=0)
    near = ((points >= low) & (points <= high)).all(axis=1)  # a few rays end far away
    points, colours = points[near], colours[near]
    size = max(float((high - low).max()) / CLOUD_VOXELS, 1e-9)
    cells = np.floor((points - low) / size).astype(np.int64)
    flat = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
    _, first = np.unique(flat, return_index=True)
    first.sort()
    return PointCloud(points[first].astype(np.float32), np.ascontiguousarray(colours[first]))
