"""What `ov3d doctor` reports on a LiDAR sweep: what its cameras see, when they saw it, and whether their rotations fit."""

from __future__ import annotations

from ov3d.common.base.errors import Ov3dError
from ov3d.common.checks.edges import AXES, MIN_POINTS, edge_points, fits
from ov3d.common.checks.machine import Fact
from ov3d.common.checks.views import MIN_SHARE_SEEN
from ov3d.common.lifting.sweep_projection import project_sweep
from ov3d.common.scenes.scene import Scene
from ov3d.common.scenes.sweep import Sweep

MAX_OFFSET = 0.1
"""Seconds: a revolution. A photograph farther away in time belongs to another sweep."""
MIN_TURN = 2.0
"""Degrees by which a camera must be off to be named: a degree is within the width of the peak."""
SURPLUS = 1.25
"""Standard errors by which a turned camera must fit better than the given one to be named."""
CLEAR = 4.0
"""Standard errors above zero from which a score shows that edges meet at all."""


def sweep_facts(scene: Scene, sweep: Sweep) -> list[Fact]:
    """Facts about a sweep with photographs.

    Args:
        scene: with a cloud and frames.
        sweep: of the scene.
    """
    facts = [_sweep(sweep), _in_images(scene)]
    if sweep.camera_times:
        facts.append(_offsets(sweep))
    return facts + _extrinsics(scene)


def _sweep(sweep: Sweep) -> Fact:
    dropped = sweep.num_file_rows - len(sweep.file_rows) if sweep.file_rows is not None else 0
    left_out = f", {dropped:,} of {sweep.num_file_rows:,} points left out" if dropped else ""
    return Fact("sweep", f"{sweep.token} of {sweep.sequence}{left_out}")


def _in_images(scene: Scene) -> Fact:
    assert scene.cloud is not None
    found = project_sweep(scene.cloud.xyz, scene.frames)
    count = max(found.num_points, 1)
    shares = ", ".join(f"{name} {len(view) / count:.1%}" for name, view in zip(found.names, found.views, strict=True))
    num_views = found.num_views()
    text = f"{(num_views > 0).mean():.1%} of the points"
    if len(found.names) > 1:
        text += f", {(num_views > 1).mean():.1%} in two or more"
    if (num_views > 0).mean() < MIN_SHARE_SEEN:
        hint = "Check the extrinsics' direction: camera from LiDAR, or LiDAR from camera?"
        return Fact("in images", f"{text}; {shares}", "fault", hint)
    return Fact("in images", f"{text}; {shares}")


def _offsets(sweep: Sweep) -> Fact:
    offsets = sweep.camera_offsets()
    if not sweep.time and not any(offsets.values()):
        return Fact("offsets", "the data set gives no times", "absent")
    text = ", ".join(f"{name} {1e3 * value:+.0f} ms" for name, value in offsets.items())
    farthest = max(offsets, key=lambda name: abs(offsets[name]))
    if abs(offsets[farthest]) > MAX_OFFSET:
        hint = f"{farthest} belongs to another sweep: a LiDAR turns once in {MAX_OFFSET * 1e3:.0f} ms."
        return Fact("offsets", text, "fault", hint)
    return Fact("offsets", text)


def _extrinsics(scene: Scene) -> list[Fact]:
    """One line on the cameras that fit, one on those whose edges do not tell, and one for each that does not fit."""
    assert scene.cloud is not None
    xyz = scene.cloud.xyz[edge_points(scene.cloud)]
    fitting, unclear, faults = [], [], []
    for frame in scene.frames:
        try:
            given, best = fits(frame, xyz)
        except Ov3dError:
            continue  # named among the images
        if best.score <= CLEAR * best.error or given.num_points < MIN_POINTS:
            unclear.append(frame.name)
        elif abs(best.degrees) >= MIN_TURN and best.surplus(given) > SURPLUS:
            faults.append(
                Fact(
                    "extrinsics",
                    f"{frame.name} seems turned by {best.degrees:+g} degrees about its {AXES[best.axis]}: edges score "
                    f"{best.score:.2f} without that, {given.score:.2f} as given",
                    "fault",
                    f"Check the rotation of {frame.name} in the calibration; ov3d doctor SWEEP -o DIR draws it.",
                )
            )
        else:
            fitting.append(f"{frame.name} {given.score:.2f}")
    facts = []
    if fitting:
        facts.append(Fact("extrinsics", f"edges fit best as given, scores: {', '.join(fitting)}"))
    if unclear:
        facts.append(Fact("extrinsics", f"too few clear edges to tell: {', '.join(unclear)}", "absent"))
    return facts + faults
