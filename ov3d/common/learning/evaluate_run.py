"""Scoring a run: its scenes are read as they were for training, and the backend that made it compares answers with truth."""

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
    """What a run is asked for, and how its answers are scored.

    Attributes:
        classes: prompted classes; empty takes those that the protocol scores.
        threshold: raw cosine from which a class counts as present; None takes the protocol's own.
        protocol: one of the backend's; None takes its first.
        ensemble: whether a 3D network is also scored together with the photographs' features, where the backend can do it.
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
    """Compare a run's answers with the truth of its scenes; what `ov3d eval RUN` does.

    Args:
        backend: the one that made the run.
        run: a finished run.
        request: what is asked, and how it is scored.
        scene: path of the one scene to score, where it has moved or the run has several; None scores all of them, where they
            were when the run was made.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: hears how far it is.

    Returns:
        One report per scene, in the order of their names.

    Raises:
        UsageError: the run has no such scene, or the backend no such protocol or no ensemble.
        DataError: a scene cannot be read, or has no truth.
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
    """See that the backend can be scored that way."""
    protocol = request.protocol
    if protocol is not None and protocol not in backend.protocols:
        raise UsageError(
            f"A run of {backend.name} is scored by protocol {' or '.join(backend.protocols)}, not {protocol}.",
            "Leave --protocol out.",
        )
    if request.ensemble and not backend.can_ensemble:
        raise UsageError(f"--ensemble does not apply to a run of {backend.name}.", "Leave it out.")


def _scored_scenes(run: Run, place: Path | None) -> list[str]:
    """Names of the scenes to score; the only scene of a run may have moved, and have another name now."""
    names = sorted(run.indexes)
    if place is not None and place.resolve().name in names:
        return [place.resolve().name]
    if place is not None and len(names) != 1:
        raise UsageError(f"Run {run.path} has no scene {place.resolve().name!r}.", f"It has: {', '.join(names)}.")
    return names


def _scene(run: Run, name: str, place: Path | None) -> Scene:
    """A scene as the run read it or, where it has moved, as it is there now."""
    scale = run.manifest.get("scale")
    if place is not None:
        return load_scene(place, scale=scale)
    return load_scene(read_index(run.indexes[name]).scene_path, layout=run.manifest.get("layout"), scale=scale)
