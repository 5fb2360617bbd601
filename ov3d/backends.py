"""The one list of backends, as import strings: naming them costs nothing, using one imports it alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ov3d.common.base.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from ov3d.common.base.progress import Progress
    from ov3d.common.base.runs import Run
    from ov3d.common.learning.backend import Backend

BACKENDS = {"nerf": "ov3d.nerf.backend:NerfBackend", "points": "ov3d.points.backend:PointsBackend"}
"""Backend names to `module:class`."""

RENDERERS = {"nerf": "ov3d.nerf.orbit:FieldViews"}
"""Those that can show a scene from where nobody stood: `module:class` of a `ViewRenderer`, made of the scene's folder in
the run, its index, the answer and a device. The others' points are painted."""

SOURCE_NAME = "source.json"
SOURCE_KIND, SOURCE_VERSION = "run-source", 1
"""How a run reads its scenes, written before it trains: whoever goes on with it reads them alike."""

PLANNED = ("lidar",)
"""Backends of later versions: a user who asks for one is told so."""


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    if name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        return cast("Backend", getattr(importlib.import_module(module), attribute)())
    if name in PLANNED:
        raise UsageError(f"{name} is not in this version yet; it has: {', '.join(sorted(BACKENDS))}.")
    raise UsageError(f"Unknown backend {name!r}.", did_you_mean(name, BACKENDS))


def get_renderer(name: str) -> Any | None:
    """What makes a `ViewRenderer` for a run of that backend, or none; see `RENDERERS`."""
    if name not in RENDERERS:
        return None
    module, _, attribute = RENDERERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def train_run(
    backend: Backend,
    path: str | Path,
    *,
    config_path: Path | None = None,
    overrides: Iterable[str] = (),
    run: Path | None = None,
    outputs: str | Path | None = None,
    layout: str | None = None,
    scale: float | None = None,
    device: str = "auto",
    extract: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Train a backend on a scene or a folder of scenes, in a new run or on with an unfinished one.

    Args:
        backend: from `get_backend`.
        path: a scene, or a folder of scenes.
        config_path: YAML file of settings.
        overrides: `a.b=value` texts that win over the file.
        run: the folder of an unfinished run to go on with; none makes a new one.
        outputs: where runs are kept.
        layout: how the scenes are stored; none detects it.
        scale: metres per unit of the files; none leaves lengths as they are. Layout and scale are kept in the manifest.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; kept as well, with the number of threads.
        extract: whether missing features are extracted; otherwise they are an error.
        progress: hears how far it is.

    Raises:
        UsageError: a setting, the layout or the scale is wrong, or the run was started with others.
        DataError: no scene there, or one that cannot be trained on.
    """
    from ov3d.common.base.config import load_config
    from ov3d.common.base.device import pick_device
    from ov3d.common.base.files import write_json
    from ov3d.common.base.runs import new_run, read_run, write_manifest
    from ov3d.common.readers import open_source

    config = load_config(backend.config_type, config_path, overrides)
    chosen = pick_device(device)
    if run is not None:
        layout, scale = _as_started(run, layout, scale)
    source = open_source(path, layout=layout, scale=scale, say=progress.say if progress else None)
    if not len(source):
        raise DataError(f"There is no scene in {path}.", "Check the path.")
    name = source.ids[0] if len(source) == 1 else Path(path).resolve().name
    folder = run if run is not None else new_run(name, backend.name, outputs)
    # To read the scenes again alike, and to know what the weights' last bits depend on.
    facts = {"layout": layout, "scale": scale, "device": str(chosen), "threads": _threads(folder, progress)}
    write_json(folder / SOURCE_NAME, facts, kind=SOURCE_KIND, version=SOURCE_VERSION)
    trained = backend.train(source, config, run=folder, device=chosen, extract=extract, progress=progress)
    write_manifest(folder, {**trained.manifest, **facts})
    return read_run(folder)


def _threads(folder: Path, progress: Progress | None) -> list[int]:
    """The number of torch's threads, after those that a run was begun with where it goes on with others."""
    import torch

    from ov3d.common.base.files import read_json

    now, path = torch.get_num_threads(), folder / SOURCE_NAME
    before: list[int] = []
    if path.is_file():
        before = read_json(path, kind=SOURCE_KIND, version=SOURCE_VERSION).get("threads", [])
    if not before or before[-1] == now:
        return before or [now]
    if progress is not None:
        progress.say(f"The run was started on {before[-1]} threads and goes on with {now}: its last bits will differ.")
    return [*before, now]


def _as_started(run: Path, layout: str | None, scale: float | None) -> tuple[str | None, float | None]:
    """Layout and scale that an unfinished run reads its scenes with.

    Raises:
        UsageError: others are given now.
    """
    from ov3d.common.base.files import read_json
    from ov3d.common.base.runs import MANIFEST_NAME, read_run

    if (run / SOURCE_NAME).is_file():
        started = read_json(run / SOURCE_NAME, kind=SOURCE_KIND, version=SOURCE_VERSION)
    elif (run / MANIFEST_NAME).is_file():
        started = read_run(run).manifest
    else:
        return layout, scale
    for name, now in (("layout", layout), ("scale", scale)):
        then = started.get(name)
        if now is not None and now != then:
            was = f"with --{name} {then}" if then is not None else f"without --{name}"
            raise UsageError(
                f"Run {run} was started {was}, not with {now}.", f"Leave --{name} out, or start a new run."
            )
    return started.get("layout"), started.get("scale")


def estimate_run(
    backend: Backend,
    path: str | Path,
    *,
    config_path: Path | None = None,
    overrides: Iterable[str] = (),
    layout: str | None = None,
    scale: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """About what `train_run` would take, a scene an entry, without making anything; arguments and errors as there."""
    from ov3d.common.base.config import load_config
    from ov3d.common.base.device import pick_device
    from ov3d.common.readers import open_source

    config: Any = load_config(backend.config_type, config_path, overrides)
    options = {} if progress is None else {"say": progress.say}
    source = open_source(path, layout=layout, scale=scale, **options)
    return backend.estimate(source, config, device=pick_device(device))


def train(backend: str, scene: str | Path, *settings: str, outputs: Path | None = None, device: str = "auto") -> Run:
    """Train a backend by name; `settings` are texts like `refine=dino`."""
    return train_run(get_backend(backend), scene, overrides=settings, outputs=outputs, device=device)
