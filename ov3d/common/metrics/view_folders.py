"""Scoring folders of masks in the layouts of 3D-OVS and LERF-OVS, as strictly as label files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.npy_files import read_npy
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, Bool
from ov3d.common.datasets import DatasetSpec
from ov3d.common.metrics.folders import checked_protocol
from ov3d.common.metrics.label_files import Fault, FaultyFilesError
from ov3d.common.metrics.masks import MasksTable
from ov3d.common.metrics.report import EvalReport
from ov3d.common.metrics.views import REDUCTION, ViewIoU, exact_mean, mask_of_relevancy, resized_mask
from ov3d.common.scenes.images import load_raster
from ov3d.common.scenes.truth import drawn_polygons, read_polygons

LOSSY_FOREGROUND = 127
"""JPEG masks are foreground above this; others only at 255."""

NO_LABEL = 255
"""In a label map: no class."""


@dataclass(frozen=True, slots=True)
class View:
    """One annotated view.

    Attributes:
        scene: its scene.
        name: folder name or frame name.
        classes: its classes or queries.
        source: mask files by class (3D-OVS), or the JSON file (LERF-OVS).
        prediction: folder of its prediction.
    """

    scene: str
    name: str
    classes: tuple[str, ...]
    source: Path
    prediction: Path


def evaluate_views(
    spec: DatasetSpec,
    truth_root: Path,
    prediction_root: Path,
    *,
    protocol: str | None = None,
    wanted: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Score a folder of predicted masks against annotated views.

    Args:
        spec: 3d-ovs or lerf-ovs.
        truth_root, prediction_root: folders, laid out as `docs/protocols.md` says.
        protocol: `3d-ovs` or `langsplat`; None means the data set's first.
        wanted: views to score, `scene/view`; None means all.
        progress: receives progress.

    Raises:
        FaultyFilesError: masks are missing, too many, damaged or of the wrong size; all are named.
        DataError: an empty folder.
        UsageError: no such protocol.
    """
    chosen = checked_protocol(spec, protocol)
    for root, what in ((truth_root, "ground truth"), (prediction_root, "predictions")):
        if not root.is_dir():
            raise DataError(f"The folder of {what} {root} does not exist.", "Check the path.")
    find = _find_3d_ovs if spec.layout == "3d-ovs" else _find_lerf_ovs
    views, faults = find(truth_root, prediction_root)
    if wanted is not None:
        names = set(wanted)
        faults = [
            Fault(name, "it is on the list, but has no ground truth")
            for name in sorted(names - {_name(v) for v in views})
        ]
        views = [view for view in views if _name(view) in names]
    metric = ViewIoU()
    with (progress or Silent()).task("Scoring views", float(len(views))) as task:
        for view in views:
            try:
                _score_view(view, chosen, spec.layout, metric, faults)
            except DataError as error:
                faults.append(Fault(str(view.source), error.message))
            task.advance()
    if faults:
        raise FaultyFilesError(faults)
    return _report(spec, chosen, metric)


def _name(view: View) -> str:
    return f"{view.scene}/{view.name}"


# ----------------------------------------------------------------------------------------------------------- layouts


def _find_3d_ovs(truth_root: Path, prediction_root: Path) -> tuple[list[View], list[Fault]]:
    """`[scene/]segmentations/classes.txt`, and one folder of masks per test view beside it."""
    places = [(truth_root.parent.name, truth_root, prediction_root)]
    if not (truth_root / "classes.txt").is_file():
        places = [(truth_root.name, truth_root / "segmentations", prediction_root)]
    if not (places[0][1] / "classes.txt").is_file():
        scenes = sorted(path.parent.parent for path in truth_root.glob("*/segmentations/classes.txt"))
        places = [(scene.name, scene / "segmentations", prediction_root / scene.name) for scene in scenes]
    if not places:
        raise DataError(
            f"No annotated view in {truth_root} (looked for segmentations/classes.txt, here and one folder down).",
            "Check --ground-truth.",
        )
    views: list[View] = []
    faults: list[Fault] = []
    for scene, folder, prediction in places:
        lines = (folder / "classes.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        classes = tuple(sorted(line.strip() for line in lines if line.strip()))
        ids = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if not ids or not classes:
            faults.append(
                Fault(str(folder), "it has no folder of masks" if classes else "classes.txt names no classes")
            )
        views += [View(scene, name, classes, folder / name, prediction) for name in ids]
        faults += _extra_entries(prediction, set(ids))
    return views, faults


def _find_lerf_ovs(truth_root: Path, prediction_root: Path) -> tuple[list[View], list[Fault]]:
    """`[label/]scene/frame_XXXXX.json`, one file per view."""
    root = truth_root / "label" if (truth_root / "label").is_dir() else truth_root
    files = sorted(root.glob("frame_*.json"))
    scenes = {root.name: (files, prediction_root)} if files else {}
    if not files:
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            found = sorted(folder.glob("frame_*.json"))
            if found:
                scenes[folder.name] = found, prediction_root / folder.name
    if not scenes:
        raise DataError(
            f"No annotated view in {truth_root} (looked for label/SCENE/frame_*.json).", "Check --ground-truth."
        )
    views: list[View] = []
    faults: list[Fault] = []
    for scene, (found, prediction) in scenes.items():
        for path in found:
            try:
                classes = tuple(dict.fromkeys(category for category, _ in read_polygons(path)[1]))
                if not classes:
                    raise DataError(f"{path} names no objects.")
            except DataError as error:
                faults.append(Fault(str(path), "it " + error.message.removeprefix(f"{path} ").rstrip(".")))
                continue
            views.append(View(scene, path.stem, classes, path, prediction))
        faults += _extra_entries(prediction, {path.stem for path in found})
    return views, faults


def _extra_entries(prediction: Path, known: set[str]) -> list[Fault]:
    if not prediction.is_dir():
        return [Fault(str(prediction), "the folder of predictions does not exist")]
    return [
        Fault(str(path), "it has no truth")
        for path in sorted(prediction.iterdir())
        if not path.name.startswith(".")
        and (path.is_dir() or path.suffix in (".png", ".npy"))
        and (path.name if path.is_dir() else path.stem) not in known
    ]


# ----------------------------------------------------------------------------------------------------------- scoring


def _score_view(view: View, protocol: str, layout: str, metric: ViewIoU, faults: list[Fault]) -> None:
    classes = view.classes
    if layout == "3d-ovs":
        truth = _stacked([_read_truth_mask(view.source, name) for name in classes])
        if protocol == "langsplat":  # only queries annotated in this view are scored
            kept = [idx for idx in range(len(classes)) if truth[idx].any()]
            truth, classes = truth[kept], tuple(classes[idx] for idx in kept)
    else:
        truth = drawn_polygons(*read_polygons(view.source), classes)
    masks = _read_prediction(view, classes, truth.shape[1:], protocol, faults)
    if masks is None:
        return
    if protocol == "3d-ovs":
        size = truth.shape[1] // REDUCTION, truth.shape[2] // REDUCTION
        truth = np.stack([resized_mask(mask, size) for mask in truth])
        masks = [resized_mask(mask, size) for mask in masks]
    prediction = np.stack(masks) if masks else np.zeros_like(truth)
    metric.update(_name(view), classes, prediction, truth, count_pixels=protocol == "3d-ovs")


def _read_prediction(
    view: View, classes: Sequence[str], size: tuple[int, ...], protocol: str, faults: list[Fault]
) -> list[Bool[Array, "h w"]] | None:
    """Masks of the classes from a label map or a folder of masks; None, and faults, if they cannot be read."""
    sizes = [tuple(size)] + ([tuple(edge // REDUCTION for edge in size)] if protocol == "3d-ovs" else [])
    maps = [path for ending in (".png", ".npy") if (path := view.prediction / f"{view.name}{ending}").is_file()]
    folder = view.prediction / view.name
    if len(maps) + folder.is_dir() != 1:
        why = "its prediction is missing" if not maps else "it has several predictions"
        faults.append(Fault(str(view.source), f"{why} (looked for {view.name}.png, .npy or a folder {view.name})"))
        return None
    found: list[tuple[Path, Array]] = []
    try:
        if maps:
            labels = _read_image(maps[0])
            if labels.ndim != 2:
                raise DataError(f"it has shape {'x'.join(map(str, labels.shape))}, not one class per pixel")
            known = (labels < len(view.classes)) & (labels >= 0) | (labels == NO_LABEL)
            if labels.dtype.kind not in "iu" or not known.all():
                raise DataError(
                    f"it holds {labels[~known].flat[0]}, which is not a class from 0 to {len(view.classes) - 1}"
                )
            found = [(maps[0], labels == view.classes.index(name)) for name in classes]
        else:
            files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".npy")}
            stems = {file_stem(name): name for name in view.classes}
            extra = [
                Fault(str(path), "it is not a class of the view") for stem, path in files.items() if stem not in stems
            ]
            missing = [name for name in classes if file_stem(name) not in files]
            faults += [*extra, *(Fault(str(folder), f"it has no mask of {name!r}") for name in missing)]
            if extra or missing:
                return None
            found = [(path := files[file_stem(name)], _read_mask(path)) for name in classes]
    except DataError as error:
        faults.append(Fault(str(maps[0] if maps else folder), error.message))
        return None
    wrong = [(path, mask) for path, mask in found if mask.shape not in sizes]
    for path, mask in dict(wrong).items():
        expected = " or ".join("x".join(map(str, one)) for one in sizes)
        faults.append(Fault(str(path), f"it is {'x'.join(map(str, mask.shape))} (h x w), the truth {expected}"))
    return None if wrong else [mask for _, mask in found]


def _stacked(masks: list[Bool[Array, "h w"]]) -> Bool[Array, "k h w"]:
    if len({mask.shape for mask in masks}) > 1:
        raise DataError("its masks differ in size")
    return np.stack(masks)


def file_stem(name: str) -> str:
    """The spelling of a class or query in a file name."""
    return name.replace("/", "_")


def _read_truth_mask(folder: Path, name: str) -> Bool[Array, "h w"]:
    files = [path for path in sorted(folder.iterdir()) if path.stem == file_stem(name)]
    if not files:
        raise DataError(f"it has no mask of {name!r}")
    return _read_mask(files[0])


def _read_mask(path: Path) -> Bool[Array, "h w"]:
    """A mask from an image (white is foreground), or LangSplat's mask of a relevancy in .npy."""
    values = _read_image(path)
    if values.ndim < 2:
        raise DataError(f"{path.name} has shape {values.shape}, not one value per pixel")
    if path.suffix == ".npy" and values.dtype.kind == "f":
        return mask_of_relevancy(values)
    if values.ndim == 3:  # grey in three channels, with or without an opaque fourth
        values = values[..., :3].min(axis=2)
    if values.dtype == bool:
        return values
    return values > LOSSY_FOREGROUND if path.suffix.lower() in (".jpg", ".jpeg") else values == 255


def _read_image(path: Path) -> Array:
    if path.suffix == ".npy":
        return read_npy(path, "mask")
    return load_raster(path, "mask")


def _report(spec: DatasetSpec, protocol: str, metric: ViewIoU) -> EvalReport:
    scores = metric.compute()
    scenes: dict[str, list[float]] = {}
    for (view, _), iou in scores.pairs.items():
        scenes.setdefault(view.partition("/")[0], []).append(iou)
    return replace(
        MasksTable(spec.title, scores).report(spec.name, protocol),
        title=spec.title,
        dataset_version=spec.version,
        groups={name: {"IoU": exact_mean(values)} for name, values in scenes.items()},
        notes=(spec.note,) if spec.note and "room" in scenes else (),
    )
