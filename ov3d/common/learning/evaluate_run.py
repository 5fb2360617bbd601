"""Scoring a run: scenes are read as for training, and the run's backend compares answers with the ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov3d.common.asking.index import read_index
from ov3d.common.base.device import pick_device
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import Run
from ov3d.common.learning.backend import Backend
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.readers import open_source, scene_of
from ov3d.common.scenes.scene import LazyScenes, Scene

MANY = 20
"""Scenes of a run beyond which an error names only the first."""


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
        scene: path of the one scene to score, where it has moved or the run has several, or of a data set that holds scenes of
            the run; None scores all of them, where they were when the run was made.
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
    scenes, chosen = _Scenes(run, place), pick_device(device)
    return [
        backend.evaluate(run, scenes.read(name), device=chosen, progress=progress, **asked) for name in scenes.names()
    ]


def _check(backend: Backend, request: EvaluateRequest) -> None:
    """Check that the backend supports the request."""
    protocol = request.protocol
    if protocol is not None and protocol not in backend.protocols:
        raise UsageError(
            f"--protocol of a {backend.name} run must be {' or '.join(backend.protocols)}, got {protocol}.",
            "Leave it out for the default.",
        )
    if request.threshold is not None and not -1 <= request.threshold <= 1:
        raise UsageError(f"--threshold must be between -1 and 1, got {request.threshold:g}.", "Scores are cosines.")
    if request.ensemble and not backend.can_ensemble:
        raise UsageError(f"--ensemble does not apply to a {backend.name} run.", "Leave it out.")


class _Scenes:
    """The scenes of a run as it read them or, where they have moved, as they are now. Each data set is opened once."""

    def __init__(self, run: Run, place: Path | None) -> None:
        named = place is not None and str(place) in run.indexes and not place.exists()
        self._run, self._place, self._named = run, None if named else place, str(place) if named else None
        self._opened: dict[str, LazyScenes] = {}

    def names(self) -> list[str]:
        """Those to score: all of the run, or those that are at the place where they have moved to.

        Raises:
            UsageError: none of them is there.
        """
        if self._named is not None:
            return [self._named]
        names, place = sorted(self._run.indexes), self._place
        if place is None:
            return names
        if place.resolve().name in names:
            return [place.resolve().name]
        inside = set(self._open(str(place)).ids)
        if len(names) > 1 and not inside & set(names):
            raise UsageError(f"Run {self._run.path} has no scene {place.resolve().name!r}.", _listed(names))
        return [name for name in names if name in inside] or names

    def read(self, name: str) -> Scene:
        """One of them; the only scene of a run may have another name now."""
        path = str(self._place or read_index(self._run.indexes[name]).scene_path)
        return scene_of(self._open(path), path, name)

    def _open(self, path: str) -> LazyScenes:
        if path not in self._opened:
            manifest = self._run.manifest
            layout = manifest.get("layout") if self._place is None else None
            try:
                self._opened[path] = open_source(path, layout=layout, scale=manifest.get("scale"))
            except DataError as error:
                moved = self._place is None and not Path(path).exists()
                raise DataError(error.message, "Say where it is now: --scene PATH") if moved else error from None
        return self._opened[path]


def _listed(names: list[str]) -> str:
    return f"It has: {', '.join(names[:MANY])}{', …' if len(names) > MANY else ''}."
