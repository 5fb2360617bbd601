"""The Python API: one typed function per command, with the same defaults.

`import ov3d` provides all of them and imports each on first use. The examples here and below run offline in an empty folder,
in this order:

>>> import ov3d
>>> room = ov3d.demo_scene("my-room", views=4)  # or any capture in a supported layout
>>> run = ov3d.train("points", "my-room", stages=["fuse"])
>>> ov3d.query("a cat", run).found, ov3d.query("a piano", run).found
(True, False)

Scenes and indexes can be inspected:

>>> scene, index = ov3d.load_scene("my-room"), ov3d.load_index(run.indexes["my-room"])
>>> scene.layout, len(scene.frames), scene.world.units, index.backend, len(index.xyz) == len(scene.cloud)
('scannet', 4, 'metric', 'points/fuse', True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ov3d.common.asking.answer import Answer
    from ov3d.common.base.progress import Progress
    from ov3d.common.base.runs import Run
    from ov3d.common.features.extract import ExtractReport
    from ov3d.common.metrics.report import EvalReport
    from ov3d.common.scenes.scene import Scene


def demo_scene(folder: str | Path, seed: int = 0, views: int = 8, *, progress: Progress | None = None) -> Scene:
    """Write the generated room of `ov3d demo`, with real photographs on its walls and exact ground truth, and read it.

    >>> import ov3d
    >>> room = ov3d.demo_scene("another-room", seed=1, views=4)
    >>> len(room.frames), sorted(set(room.classes) & {"cat", "coffee", "motorcycle", "temple"})
    (4, ['cat', 'coffee', 'motorcycle', 'temple'])

    Args:
        folder: output folder; its name becomes the scene's.
        seed: determines the room. The same arguments write the same bytes.
        views: number of views rendered; each picture on a wall must appear in two of them.
        progress: advanced once per view.

    Raises:
        MissingModelError: the extra `ov3d[offline]`, which ships the photographs, is not installed.
        DataError: the folder holds another scene, or there are too few views to cover the room.
    """
    from ov3d.common.worlds.gallery import GalleryConfig, write_gallery

    return write_gallery(folder, GalleryConfig(seed=seed, num_views=views), progress)


def extract_features(
    path: str | Path,
    *,
    encoder: str = "offline",
    refine: str = "auto",
    layout: str | None = None,
    scale: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[ExtractReport]:
    """Encode the images of a scene, or of each scene in a folder, into the cache, like `ov3d extract-features`.

    Images that are already cached are skipped. `train` with the same encoder and refinement uses the cached features.

    >>> import ov3d
    >>> [(report.images, report.skipped) for report in ov3d.extract_features("my-room")]
    [(0, 4)]

    Args:
        path: a scene, or a folder of scenes.
        encoder: same values as `--encoder`; `labels:DIR@TEXT` and `features:DIR@TEXT` include the text encoder.
        refine: `none`, `dino`, `timm:NAME`, or `auto`: dino for the offline encoder, else none.
        layout, scale: layout of the scenes' files, and metres per unit in them; None detects the layout and keeps lengths.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: receives progress.

    Returns:
        One report per scene, in the order of their ids.

    Raises:
        UsageError: no such encoder, refinement, layout or device.
        DataError: no scene was found, or one is faulty.
        MissingModelError: a model is not on this machine.
    """
    from ov3d.common.base.device import pick_device
    from ov3d.common.base.progress import Silent
    from ov3d.common.readers import open_source
    from ov3d.common.teachers import open_teacher

    source = open_source(path, layout=layout, scale=scale, say=progress.say if progress else None)
    teacher = open_teacher(encoder, refine=refine, device=pick_device(device))
    return [teacher.extract(source[idx], progress=progress or Silent()) for idx in range(len(source))]


def train(
    backend: str,
    scene: str | Path,
    *,
    stages: Sequence[str] | None = None,
    preset: str | None = None,
    encoder: str | None = None,
    refine: str | None = None,
    seed: int | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    outputs: str | Path | None = None,
    layout: str | None = None,
    scale: float | None = None,
    device: str = "auto",
    resume: str | Path | None = None,
    extract: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Train a backend on a scene or a folder of scenes, like `ov3d train`.

    >>> import ov3d
    >>> run = ov3d.train("points", "my-room", stages=["fuse"], settings={"lift": {"border": 5}, "score": "cosine"})
    >>> list(run.indexes), run.manifest["stages"]
    (['my-room'], ['fuse'])

    Args:
        backend: `points` or `nerf`.
        scene: a scene, or a folder of scenes.
        stages: the stages to run, starting with the backend's first; None uses the configuration's.
        preset: default settings, for example `cpu` or `gpu`.
        encoder, refine: as in `extract_features`.
        seed: random seed.
        config: YAML file of settings.
        settings: any settings, nested or with dotted keys (`{"guide.steps": 500}`); they override the file, and the arguments
            above override them.
        outputs: folder of runs; None uses $OV3D_OUTPUTS or ./outputs.
        layout, scale, device: as in `extract_features`.
        resume: folder of an unfinished run, which ends identical to an uninterrupted one; None starts a new run.
        extract: extract missing features; if False, missing features are an error.
        progress: receives progress.

    Raises:
        UsageError: an unknown backend or setting, or a resumed run was started with other settings.
        DataError: no scene was found, or a scene cannot be trained on.
    """
    from ov3d.backends import get_backend
    from ov3d.common.base.config import load_config
    from ov3d.common.base.runs import started_config
    from ov3d.common.learning.backend import RunOptions
    from ov3d.common.learning.run import train_run

    named = {"stages": stages, "preset": preset, "encoder": encoder, "refine": refine, "seed": seed}
    given = {**(settings or {}), **{name: value for name, value in named.items() if value is not None}}
    folder = None if resume is None else Path(resume)
    path = Path(config) if config is not None else None if folder is None else started_config(folder)
    chosen = get_backend(backend)
    checked = load_config(chosen.config_type, path, given)
    how = RunOptions(layout, scale, extract)
    return train_run(chosen, scene, checked, run=folder, outputs=outputs, device=device, options=how, progress=progress)


def query(
    prompt: str,
    run: str | Path | Run = "latest",
    *,
    scene: str | None = None,
    threshold: float | None = None,
    top: int = 5,
    output: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Answer:
    """Find what a prompt names in a scene of a run, like `ov3d query`.

    >>> import ov3d
    >>> answer = ov3d.query("a cat", "latest", output="found")
    >>> for found in answer.objects[:1]:
    ...     centre, size, points = found.centre + answer.world.origin, found.size, found.num_points

    Args:
        prompt: what to find.
        run: what `train` returned, a folder, SCENE, SCENE/BACKEND, or `latest`.
        scene: scene to search; may be omitted if the run has only one.
        threshold: lowest raw cosine at which something counts as present; None uses the encoder's.
        top: maximum number of objects to return.
        output: folder for a PLY and images of the answer.
        device: device of the text encoder, if the prompt is not cached.
        progress: receives progress.

    Returns:
        The answer; finding nothing is valid.

    Raises:
        UsageError: the prompt is empty, or the run has no such scene.
        DataError: no such run.
    """
    from ov3d.common.asking.ask import ask, index_path
    from ov3d.common.asking.index import read_index
    from ov3d.common.asking.prompt import clean_prompt
    from ov3d.common.base.progress import Silent
    from ov3d.common.base.runs import find_run

    prompt, listener = clean_prompt(prompt), progress or Silent()
    path = index_path(find_run(run), scene)
    index = read_index(path)
    answer = ask(index, prompt, threshold=threshold, top=top, device=device, say=listener.say)
    if output is not None:
        from ov3d.common.exporters.answers import write_answer

        write_answer(Path(output), index, answer, path.parent, progress=listener)
    return answer


def predict(
    run: str | Path | Run,
    scan: str | Path,
    output: str | Path,
    *,
    classes: Sequence[str] = (),
    prompts: Sequence[str] = (),
    threshold: float | None = None,
    turns: int = 1,
    seed: int = 0,
    ensemble: bool = False,
    layout: str | None = None,
    scale: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label a scan with the 3D network of a run, without photographs, like `ov3d predict`.

    >>> import ov3d
    >>> every, few = ["fuse", "pseudo-label", "specialise", "guide"], {"specialise.steps": 4, "guide.steps": 4}
    >>> run = ov3d.train("points", "my-room", stages=every, encoder="labels:scene", settings=few)
    >>> done = ov3d.predict(run, "my-room/cloud.ply", "labelled.ply")
    >>> done["points"] == sum(done["classes"].values())
    True

    Args:
        run: what `train` returned, a folder, SCENE, SCENE/BACKEND, or `latest`.
        scan: a point cloud file, or a scene with a cloud.
        output: the PLY file to write.
        classes: names from the run's vocabulary; without classes and prompts, all of it.
        prompts: any words to use instead of classes.
        threshold: raw cosine below which a point gets no label; None uses the run's own, or no threshold for the whole
            vocabulary.
        turns, seed: number of rotated copies of the scan to average (1: only the scan itself), and the seed of the rotations.
        ensemble: use features of photographs where they are more confident than the network.
        layout, scale, device: as in `extract_features`.
        progress: receives progress.

    Returns:
        What `ov3d predict --json` prints: points by class, seconds, notes and more.

    Raises:
        UsageError: an unknown class, an output that is not a PLY, or a run without a 3D network.
        DataError: the scan cannot be read, or has no points.
    """
    from ov3d.backends import get_backend
    from ov3d.common.base.device import pick_device
    from ov3d.common.base.runs import find_run
    from ov3d.common.learning.prediction_request import PredictRequest

    found = find_run(run)
    request = PredictRequest(_names(classes), _names(prompts), threshold, turns, seed, layout, scale, ensemble)
    backend = get_backend(str(found.manifest["backend"]))
    return backend.predict(found, Path(scan), Path(output), request, device=pick_device(device), progress=progress)


def evaluate(
    run: str | Path | Run = "latest",
    *,
    scene: str | Path | None = None,
    classes: Sequence[str] = (),
    protocol: str | None = None,
    threshold: float | None = None,
    ensemble: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[EvalReport]:
    """Compare a run's answers with the ground truth of its scenes, like `ov3d eval RUN`.

    >>> import ov3d
    >>> reports = ov3d.evaluate("my-room/points", classes=["cat", "coffee"])
    >>> reports[0].title, sorted(reports[0].means)
    ('my-room: points', ['mAcc', 'mIoU', 'mIoU with other'])

    Args:
        run: what `train` returned, a folder, SCENE, SCENE/BACKEND, or `latest`.
        scene: name of one scene of the run, or the path of a scene that has moved; None scores all at their original paths.
        classes: classes to score; if empty, all in the ground truth.
        protocol: a nerf run has `held-out`, `3d-ovs` and `langsplat`; None uses the backend's first.
        threshold: lowest cosine at which a class counts as present; None uses the encoder's.
        ensemble: for a points run, also score its 3D network combined with its photographs' features.
        device, progress: as in `extract_features`.

    Returns:
        One report per table: the run's own answers, then its teacher's, scene by scene.

    Raises:
        UsageError: the run has no such scene, or does not support the protocol.
        DataError: no such run, or its scene has no ground truth.
    """
    from ov3d.backends import get_backend
    from ov3d.common.base.runs import find_run
    from ov3d.common.learning.evaluate_run import EvaluateRequest, evaluate_run

    found = find_run(run)
    request = EvaluateRequest(_names(classes), threshold, protocol, ensemble)
    backend = get_backend(str(found.manifest["backend"]))
    scored = evaluate_run(backend, found, request, scene=scene, device=device, progress=progress)
    return [report for one in scored for report in one.reports()]


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """Several names; one text would be taken for its letters."""
    if isinstance(names, str):
        from ov3d.common.base.errors import UsageError

        raise UsageError(f"Expected a list of names, got the text {names!r}.", f"For example: [{names!r}]")
    return tuple(names)
