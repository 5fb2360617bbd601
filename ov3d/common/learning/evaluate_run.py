"""Scoring a run: scenes are read as for training, and the run's backend compares answers with the ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov3d.common.asking.index import read_index
from ov3d.common.base.device import pick_device
from ov3d.common.base.errors import UsageError
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import Run
from ov3d.common.learning.backend import Backend
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.readers import load_scene
from ov3d.common.scenes.scene import Scene


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What to score in a run, and how.

    Attributes:
        classes: prompted classes; if empty, those that the protocol scores.
        threshold: lowest raw cosine at which a class counts as present; None uses the protocol's.
        protocol: one of the backend's; None uses its first.
        ensemble: also score a 3D network combined with the photographs' features, if the backend supports it.
    """

    classes: tuple[str, ...] = ()
    threshold: float | None = None
    protocol: str | None = None
    ensemble: bool = False


def evaluate_run(
    backend: Backend,
    run: Run,
    request: EvaluateRequest = EvaluateRequest(),
    *,
    scene: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[RunReport]:
    """Compare a run's answers with the ground truth of its scenes, like `ov3d eval RUN`.

    Args:
        backend: the one that made the run.
        run: a finished run.
        request: what to score, and how.
        scene: path of the one scene to score, if it has moved or the run has several; None scores all of them at their
            original paths.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: receives progress.

    Returns:
        One report per scene, in the order of their names.

    Raises:
        UsageError: the run has no such scene, or the backend has no such protocol or no ensemble.
        DataError: a scene cannot be read, or has no ground truth.
    """
    _check(backend, request)
    place = None if scene is None else Path(scene)
    asked: dict[str, Any] = {"classes": request.classes, "threshold": request.threshold, "protocol": request.protocol}
    if request.ensemble:
        asked["ensemble"] = True
    names, chosen = _scored_scenes(run, place), pick_device(device)
    return [
        backend.evaluate(run, _scene(run, name, place), device=chosen, progress=progress, **asked) for name in names
    ]


def _check(backend: Backend, request: EvaluateRequest) -> None:
    """Check that the backend supports the request."""
    protocol = request.protocol
    if protocol is not None and protocol not in backend.protocols:
        raise UsageError(
            f"--protocol of a {backend.name} run must be {' or '.join(backend.protocols)}, got {protocol}.",
            "Leave it out for the default.",
        )
    if request.ensemble and not backend.can_ensemble:
        raise UsageError(f"--ensemble does not apply to a {backend.name} run.", "Leave it out.")


def _scored_scenes(run: Run, place: Path | None) -> list[str]:
    """Names of the scenes to score; the only scene of a run may have been moved and renamed."""
    names = sorted(run.indexes)
    if place is not None and place.resolve().name in names:
        return [place.resolve().name]
    if place is not None and len(names) != 1:
        raise UsageError(f"Run {run.path} has no scene {place.resolve().name!r}.", f"It has: {', '.join(names)}.")
    return names


def _scene(run: Run, name: str, place: Path | None) -> Scene:
    """The scene as the run read it, or read from its new path if it has moved."""
    scale = run.manifest.get("scale")
    if place is not None:
        return load_scene(place, scale=scale)
    return load_scene(read_index(run.indexes[name]).scene_path, layout=run.manifest.get("layout"), scale=scale)
