"""A run from its first file to its last: what every backend does before and after it learns.

RUN/source.json     how the scenes are read, device and threads; the first file, written by `begin_run`
RUN/config.yaml     every setting, written by `begin_run`
RUN/scenes/NNNN-NAME/...   the backend's files
RUN/manifest.json   what can be queried; the last file, written by `finish_run`: a run without one is unfinished
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from ov3d.common.base.config import dump_config, load_config
from ov3d.common.base.device import pick_device, seed_everything
from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.files import hash_text, read_json, write_json
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import (
    CONFIG_NAME,
    MANIFEST_NAME,
    Run,
    check_claim,
    claim_run,
    new_run,
    read_run,
    scene_folders,
    write_manifest,
)
from ov3d.common.learning.backend import Backend, RunOptions
from ov3d.common.learning.estimate import Estimate
from ov3d.common.learning.run_config import RunConfig
from ov3d.common.learning.trainer import TrainerContext
from ov3d.common.readers import open_source
from ov3d.common.scenes.scene import SceneSource
from ov3d.common.teachers import open_teacher
from ov3d.common.teachers.teacher import Teacher

SOURCE_NAME = "source.json"
SOURCE_KIND, SOURCE_VERSION = "run-source", 1

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True, slots=True, eq=False)
class OpenRun(Generic[C]):
    """A run in progress, from `begin_run`.

    Attributes:
        backend: name of the backend.
        source: its scenes.
        config: its settings.
        path: its folder.
        folders: one subfolder per scene, in the order of the source.
        device: device of all tensors.
        progress: receives progress.
        options: options of the run.
        teacher: the 2D side; None if no stage to run needs it.
        facts: layout, scale, device and numbers of threads, for the manifest.
    """

    backend: str
    source: SceneSource
    config: C
    path: Path
    folders: tuple[Path, ...]
    device: torch.device
    progress: Progress
    options: RunOptions
    teacher: Teacher | None
    facts: dict[str, Any]

    def trainer_context(self, folder: Path) -> TrainerContext:
        """What a trainer needs to know of the run; its files go into `folder`."""
        return TrainerContext(folder, self.config.seed, self.device, self.progress, self.options.resume)


@dataclass(slots=True)
class Learnt:
    """The results of a backend in a run, for its manifest.

    Attributes:
        indexes: by scene, the file of its LanguageIndex; a scene without one cannot be queried yet.
        facts: by scene, anything a reader of the manifest should know.
        seconds: by stage.
        prompts: class names that were learnt.
        more: further manifest entries, specific to the backend.
    """

    indexes: dict[str, Path] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the time spent in the block."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)


def begin_run(
    backend: str,
    source: SceneSource,
    config: C,
    *,
    run: Path,
    device: torch.device,
    progress: Progress | None = None,
    options: RunOptions = RunOptions(),
) -> OpenRun[C]:
    """Begin a run, or resume one that was interrupted; arguments as in `Backend.train`.

    Raises:
        UsageError: the folder holds a run with other settings, or on other scenes.
        DataError: no scene was found, or two have the same name.
    """
    listener: Progress = progress or Silent()
    if not len(source):
        raise DataError("No scene to train on.", "Check the path and the split.")
    folders = tuple(scene_folders(run, tuple(source.ids)))
    facts = {
        "layout": options.layout,
        "scale": options.scale,
        "device": str(device),
        "threads": _threads(run, device, listener),
    }
    check_claim(run, dump_config(config))
    scenes = _same_scenes(run, source)
    write_json(run / SOURCE_NAME, {**facts, "scenes": scenes}, kind=SOURCE_KIND, version=SOURCE_VERSION)
    claim_run(run, dump_config(config))
    seed_everything(config.seed)
    teacher = teacher_of(config, device) if config.needs_teacher else None
    return OpenRun(backend, source, config, run, folders, device, listener, options, teacher, facts)


def finish_run(run: OpenRun[Any], learnt: Learnt) -> Run:
    """Write the manifest, which completes the run."""
    config, teacher = run.config, run.teacher
    manifest = {
        "scenes": list(learnt.facts),
        "backend": run.backend,
        "stages": list(config.stages),
        "encoder": None if teacher is None else teacher.card.to_json(),
        "teacher": None if teacher is None else teacher.describe(),
        "prompts": list(learnt.prompts),
        "seed": config.seed,
        "versions": {name: importlib.metadata.version(name) for name in ("ov3d", "torch", "numpy")},
        "indexes": {scene: path.relative_to(run.path).as_posix() for scene, path in learnt.indexes.items()},
        "facts": learnt.facts,
        "seconds": learnt.seconds,
        **learnt.more,
        **run.facts,
    }
    write_manifest(run.path, manifest)
    return read_run(run.path)


def config_of(run: Run, config_type: type[C]) -> C:
    """The settings that a run was trained with."""
    return load_config(config_type, run.path / CONFIG_NAME)


def teacher_of(config: RunConfig, device: torch.device) -> Teacher:
    """The teacher that a configuration names."""
    return open_teacher(config.encoder, refine=config.refine, device=device)


def train_run(
    backend: Backend,
    path: str | Path,
    config: RunConfig,
    *,
    run: Path | None = None,
    outputs: str | Path | None = None,
    device: str = "auto",
    options: RunOptions = RunOptions(),
    progress: Progress | None = None,
) -> Run:
    """Train a backend on a scene or a folder of scenes, as a new run or by resuming an unfinished one.

    Args:
        backend: from `ov3d.backends.get_backend`.
        path: a scene, or a folder of scenes.
        config: of the backend's `config_type`.
        run: the folder of an unfinished run to resume; by default a new run is made.
        outputs: folder of new runs.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        options: how the scenes are read, and what may be reused.
        progress: receives progress.

    Raises:
        UsageError: the device, the layout or the scale is wrong, or the run was started with other settings.
        DataError: no scene was found, or a scene cannot be trained on.
    """
    chosen = pick_device(device)
    if run is not None:
        options = _as_started(run, options)
    source = _open(path, options, progress)
    if not len(source):
        raise DataError(f"No scene in {path}.", "Check the path.")
    name = source.ids[0] if len(source) == 1 else Path(path).resolve().name
    folder = run if run is not None else new_run(name, backend.name, outputs)
    return backend.train(source, config, run=folder, device=chosen, progress=progress, options=options)


def estimate_run(
    backend: Backend,
    path: str | Path,
    config: RunConfig,
    *,
    device: str = "auto",
    options: RunOptions = RunOptions(),
    progress: Progress | None = None,
) -> list[Estimate]:
    """Estimate what `train_run` needs, one entry per scene, without writing anything; arguments and errors as there."""
    return backend.estimate(_open(path, options, progress), config, device=pick_device(device))


def _open(path: str | Path, options: RunOptions, progress: Progress | None) -> SceneSource:
    say = None if progress is None else progress.say
    return open_source(path, layout=options.layout, scale=options.scale, say=say)


def _threads(run: Path, device: torch.device, progress: Progress) -> list[int]:
    """The numbers of threads that the run was trained with, the present one last; reports a change of threads or device."""
    started = _source_facts(run)
    now, before = torch.get_num_threads(), started.get("threads", [])
    then = {"threads": before[-1] if before else now, "device": started.get("device", str(device))}
    if then != {"threads": now, "device": str(device)}:
        progress.say(
            f"This run was trained with {then['threads']} threads on {then['device']} so far, and continues with {now} on "
            f"{device}: results may differ in the last digits (OMP_NUM_THREADS={then['threads']} and --device "
            f"{then['device']} avoid that)."
        )
    return before or [now] if then["threads"] == now else [*before, now]


def _same_scenes(run: Path, source: SceneSource) -> dict[str, Any]:
    """The number of scenes and a hash of their names.

    Raises:
        UsageError: the run was started on other scenes.
    """
    now = {"count": len(source), "key": hash_text(*source.ids)}
    then = _source_facts(run).get("scenes", now)  # earlier versions did not keep them
    if then != now:
        which = "others" if then["count"] == now["count"] else f"{now['count']}"
        raise UsageError(
            f"Run {run} was started on {then['count']} scenes, not on {which}.",
            "Give the same path, or start a new run.",
        )
    return now


def _source_facts(run: Path) -> dict[str, Any]:
    path = run / SOURCE_NAME
    return read_json(path, kind=SOURCE_KIND, version=SOURCE_VERSION) if path.is_file() else {}


def _as_started(run: Path, options: RunOptions) -> RunOptions:
    """The options with the layout and scale that an unfinished run was started with.

    Raises:
        UsageError: the options name different ones.
    """
    started = _source_facts(run)
    if not started and (run / MANIFEST_NAME).is_file():
        started = read_run(run).manifest
    if not started:
        return options
    for name in ("layout", "scale"):
        then, now = started.get(name), getattr(options, name)
        if now is not None and now != then:
            was = f"with --{name} {then}" if then is not None else f"without --{name}"
            raise UsageError(
                f"Run {run} was started {was}, not with {now}.", f"Leave --{name} out, or start a new run."
            )
    return replace(options, layout=started.get("layout"), scale=started.get("scale"))
