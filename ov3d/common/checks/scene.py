"""The report of `ov3d doctor SCENE`: what was read, and whether images, depth, poses and points agree."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ov3d.common.base.errors import Ov3dError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.checks.machine import Fact
from ov3d.common.checks.sweep import sweep_facts
from ov3d.common.checks.views import MIN_SHARE_SEEN, view_statistics
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import IGNORE, Scene

MAX_IMAGES_OPENED = 12
SHARE_SEEN_TWICE_LOW = 0.05
"""If views overlap, most points are seen twice; with wrong poses, each view sees only its own points."""


def describe_scene(scene: Scene, *, progress: Progress | None = None) -> list[Fact]:
    """Facts about a scene, in the order to print them; a `fault` would make answers wrong.

    Args:
        scene: as it was read; if it has no cloud, one is made from depth.
        progress: receives progress.
    """
    progress = progress or Silent()
    facts = [Fact("layout", f"{scene.layout} at {scene.path}"), _world(scene), *_frames(scene), *_images(scene)]
    facts += [Fact("note", note, "absent") for note in scene.notes]
    try:
        clouded = with_cloud(scene, progress=progress)
    except Ov3dError as error:
        # Photographs alone are fine: a radiance field needs no points.
        photographs_only = scene.cloud is None and all(frame.depth is None for frame in scene.frames)
        return [*facts, Fact("points", error.message, "absent" if photographs_only else "fault", error.hint)]
    facts += _points(scene, clouded)
    if clouded.frames:
        facts += sweep_facts(clouded, clouded.sweep) if clouded.sweep is not None else _agreement(clouded)
    return facts


def _world(scene: Scene) -> Fact:
    world = scene.world
    text = "metres" if world.units == "metric" else "arbitrary units"
    text += f", up {' '.join(f'{value:.2g}' for value in world.up)}"
    if any(world.origin):
        text += f", origin at {' '.join(f'{value:.0f}' for value in world.origin)}"
    hint = "" if world.units == "metric" else "Measure one length and pass --scale METRES_PER_UNIT to get metres."
    return Fact("world", text, hint=hint)


def _frames(scene: Scene) -> list[Fact]:
    if not scene.frames:
        # A cloud alone is fine: it is a scan to label.
        hint = (
            "A trained network can label it: ov3d predict RUN SCAN -o labelled.ply. Training needs posed photographs."
        )
        return [Fact("frames", "none", "absent" if scene.cloud is not None else "fault", hint)]
    sizes = Counter(f"{frame.camera.width}x{frame.camera.height}" for frame in scene.frames)
    with_depth = sum(frame.depth is not None for frame in scene.frames)
    with_labels = sum(frame.labels is not None for frame in scene.frames)
    size_text = ", ".join(f"{count} of {size}" for size, count in sizes.most_common(3))
    centres = np.array([frame.world_from_camera[:3, 3] for frame in scene.frames])
    spread = float(np.linalg.norm(np.ptp(centres, axis=0)))
    lenses = Counter(frame.distortion.model for frame in scene.frames if frame.distortion is not None)
    straightened = "".join(f"; {count} straightened ({model} lens)" for model, count in lenses.most_common())
    counted = f"{with_depth} with depth, {with_labels} with labels{straightened}"
    facts = [Fact("frames", f"{len(scene.frames)} ({size_text}); {counted}")]
    if len(scene.frames) == 1:
        return facts
    if spread == 0:
        hint = "Check that the poses' translations are in the last column."
        return [*facts, Fact("cameras", "all at the same position", "fault", hint)]
    return [*facts, Fact("cameras", f"spread over {spread:.3g} {scene.world.unit_name}")]


def _images(scene: Scene) -> list[Fact]:
    chosen = scene.frames[:: max(-(-len(scene.frames) // MAX_IMAGES_OPENED), 1)]
    facts, shares = [], []
    for frame in chosen:
        try:
            frame.load_image()
            if frame.depth is not None:
                shares.append(float((frame.depth.load() > 0).mean()))
        except Ov3dError as error:
            facts.append(Fact("image", error.message, "fault", error.hint))
    if chosen and not facts:
        facts.append(Fact("images", f"{len(chosen)} opened, all intact"))
    if shares:
        facts.append(Fact("depth", f"{np.mean(shares):.0%} of pixels have a measurement"))
    return facts


def _points(scene: Scene, clouded: Scene) -> list[Fact]:
    cloud = clouded.cloud
    if cloud is None or not len(cloud):
        return [Fact("points", "none", "fault", "Give a cloud, or depth to make one from.")]
    size = " x ".join(f"{extent:.3g}" for extent in np.ptp(cloud.xyz, axis=0))
    made = "" if scene.cloud is not None else ", made from depth"
    facts = [Fact("points", f"{len(cloud):,}{made}, {size} {scene.world.unit_name}")]
    if cloud.labels is not None and clouded.classes:
        labelled = cloud.labels != IGNORE
        present = [clouded.classes[label] for label in np.unique(cloud.labels[labelled])]
        facts.append(Fact("labels", f"{labelled.mean():.0%} of the points; {', '.join(present)}"))
    return facts


def _agreement(scene: Scene) -> list[Fact]:
    assert scene.cloud is not None
    found = view_statistics(scene.cloud, scene.frames)
    state = "ok" if found.share_seen >= MIN_SHARE_SEEN else "fault"
    hint = "" if state == "ok" else "Check pose convention and depth scale; ov3d train names the likely cause."
    facts = [
        Fact("seen", f"{found.share_seen:.1%} of the points, {found.share_seen_twice:.1%} by two views", state, hint)
    ]
    if not np.isnan(found.median_depth_error):
        relative = found.median_depth_error / max(found.median_depth, 1e-9)
        value = f"median |depth - z| {found.median_depth_error:.3g} {scene.world.unit_name} ({relative:.1%} of z)"
        facts.append(Fact("agreement", value))
    # Cameras around a car look away from each other.
    if scene.sweep is None and len(scene.frames) > 1 and found.share_seen_twice < SHARE_SEEN_TWICE_LOW:
        hint = "Overlapping views should share points: check the pose convention."
        facts.append(Fact("overlap", f"only {found.share_seen_twice:.1%} of the points are seen twice", "absent", hint))
    return facts
