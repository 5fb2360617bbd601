"""Label files: pairing ground truth with predictions, and reading a file.

Nothing is guessed. A scan without a prediction, a prediction without a scan, a truncated file or a wrong shape each become a
`Fault`; all faults are collected into one error.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.npy_files import UNREADABLE
from ov3d.common.base.shapes import Array, Integer, UInt8
from ov3d.common.datasets import DatasetSpec

ALL = "all"
"""The subset of all sequences in the ground truth."""

POINT_ENDINGS = ("_vh_clean_2.labels.ply", ".labels.ply", "_vh_clean_2.ply", ".ply", ".txt", ".npy")
"""Endings of per-point label files, longest first; the name before them is the scene."""


NAMED = 3
"""Number of faults named in an error's message; the error holds all of them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that cannot be scored, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class FaultyFilesError(DataError):
    """Some files cannot be scored; `faults` holds every one of them."""

    def __init__(self, faults: Sequence[Fault], hint: str = "") -> None:
        hint = f"Fix these files; nothing was guessed. {hint}".strip()
        if len(faults) == 1:
            message = f"{faults[0].path} cannot be scored: {faults[0].why}."
        else:
            named = "; ".join(f"{fault.path} ({fault.why})" for fault in faults[:NAMED])
            more = f"; and {len(faults) - NAMED:,} more" if len(faults) > NAMED else ""
            message = f"{len(faults):,} files cannot be scored: {named}{more}."
        super().__init__(message, hint)
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class LabelPair:
    """The two files of one scan.

    Attributes:
        name: the scan, for example `08/000012`.
        truth, prediction: the files.
    """

    name: str
    truth: Path
    prediction: Path


def pair_files(
    spec: DatasetSpec,
    truth_root: Path,
    prediction_root: Path,
    *,
    subset: str | None = None,
    wanted: Iterable[str] | None = None,
) -> tuple[list[LabelPair], list[Fault]]:
    """Find the truth and the prediction of every scan.

    Args:
        spec: the data set, for its layout and subsets.
        truth_root, prediction_root: folders, laid out as `docs/protocols.md` says.
        subset: train, val or test where the data set has them, or `all`; None means the data set's default.
        wanted: names of the scans to score; None means all of the subset.

    Returns:
        The pairs in order of their names, and missing or unexpected files.

    Raises:
        DataError: a folder is missing, or holds no label files.
        UsageError: no such subset.
    """
    for root, what in ((truth_root, "ground truth"), (prediction_root, "predictions")):
        if not root.is_dir():
            raise DataError(f"The folder of {what} {root} does not exist.", "Check the path.")
    if spec.layout == "semantickitti":
        sequences = _sequences(spec, truth_root, subset or (ALL if wanted is not None else None))
        truth, faults = _sequence_files(truth_root, "labels", sequences)
        prediction, more = _sequence_files(prediction_root, "predictions", sequences)
        faults += more
        looked_for = "sequences/XX/labels/*.label", "sequences/XX/predictions/*.label"
    else:
        if subset not in (None, ALL):
            raise UsageError(f"{spec.title} has no subset {subset!r}.", "Name the scans with --list FILE.")
        truth, faults = _files_by_name(truth_root, spec.layout)
        prediction, more = _files_by_name(prediction_root, spec.layout)
        faults += more
        looked_for = (_pattern(spec.layout),) * 2
    if not truth:
        raise DataError(f"No label file in {truth_root} (looked for {looked_for[0]}).", "Check --ground-truth.")
    if not prediction:
        raise DataError(f"No label file in {prediction_root} (looked for {looked_for[1]}).", "Check --predictions.")
    if wanted is not None:
        return _wanted_pairs(truth, prediction, list(wanted))
    faults += [
        Fault(str(truth[name]), "its prediction is missing") for name in sorted(truth.keys() - prediction.keys())
    ]
    faults += [Fault(str(prediction[name]), "it has no truth") for name in sorted(prediction.keys() - truth.keys())]
    both = sorted(truth.keys() & prediction.keys())
    return [LabelPair(name, truth[name], prediction[name]) for name in both], faults


class LabelReader:
    """Reads label files one after another into the same memory.

    A new array per file would take longer than reading it: the system provides its pages one by one, each filled with zeros.
    The result of `read` is valid until the next `read`.
    """

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self._buffer = np.empty(1 << 20, np.uint8)

    def read(self, path: Path) -> Integer[Array, " n"]:
        """The labels of one file, as they are in it.

        Raises:
            DataError: it is truncated, has the wrong shape, or does not hold integers; the message does not repeat the path.
        """
        try:
            if self.layout == "semantickitti":
                data = self._read_bytes(path)
                if len(data) % 4:
                    raise DataError(f"its size of {len(data)} bytes is not a multiple of 4: cut short")
                return data.view("<u4")
            if self.layout == "nuscenes-lidarseg":
                return self._read_bytes(path)
            labels = _read_array(path)
        except (*UNREADABLE, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"it cannot be read ({' '.join(str(error).split()) or type(error).__name__})") from None
        if labels.ndim != 1:
            raise DataError(f"it has shape {'x'.join(map(str, labels.shape))}, not one label per point")
        if labels.dtype.kind not in "iu":
            raise DataError(f"it holds {labels.dtype}, not integers")
        return labels

    def _read_bytes(self, path: Path) -> UInt8[Array, " b"]:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - unbuffered, straight into place
            size = os.fstat(stream.fileno()).st_size
            if size > len(self._buffer):
                self._buffer = np.empty(2 * size, np.uint8)
            done = 0
            while done < size:
                count = stream.readinto(self._buffer[done:size].data)
                if not count:  # the file became shorter while it was read
                    break
                done += count
        return self._buffer[:done]


def _read_array(path: Path) -> Array:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            if "data" not in archive:
                raise DataError("it has no array named data")
            return archive["data"]
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".ply":
        return _read_ply(path)
    return _read_lines(path)


def _read_lines(path: Path) -> Array:
    """An integer per line."""
    try:
        labels = np.loadtxt(path, dtype=np.int64, ndmin=1, comments=None)
        if labels.ndim == 1 and len(labels):
            return labels
    except ValueError:
        pass
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            int(line)
        except ValueError:
            shown = line.strip()[:24] or "empty"
            raise DataError(f"line {number} is not an integer: {shown}") from None
    return np.zeros(0, np.int64)


def _read_ply(path: Path) -> Array:
    from plyfile import PlyData, PlyParseError

    try:
        vertices = PlyData.read(str(path))["vertex"]
    except PlyParseError as error:
        raise DataError(f"it is not a complete PLY file ({error})") from None
    names = [one.name for one in vertices.properties]
    if "label" not in names:
        raise DataError(f"its vertices have no property label, only {', '.join(names)}")
    return np.asarray(vertices["label"])


def _sequences(spec: DatasetSpec, root: Path, subset: str | None) -> list[str]:
    """The sequences to score, by the subset's name."""
    folder = _sequences_folder(root)
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not found:
        raise DataError(f"No label file in {root} (looked for sequences/XX/labels/*.label).", "Check --ground-truth.")
    chosen = subset or spec.default_subset or ALL
    if chosen == ALL:
        return found
    if chosen not in spec.subsets:
        raise UsageError(f"{spec.title} has no subset {chosen!r}.", did_you_mean(chosen, [*spec.subsets, ALL]))
    sequences = list(spec.subsets[chosen])
    if not set(sequences) & set(found):
        raise DataError(
            f"{folder} has none of the sequences of {chosen} ({', '.join(sequences)}), only {', '.join(found)}.",
            "To score what is there: --subset all",
        )
    return sequences


def _sequences_folder(root: Path) -> Path:
    return root if root.name == "sequences" else root / "sequences"


def _sequence_files(root: Path, kind: str, sequences: Sequence[str]) -> tuple[dict[str, Path], list[Fault]]:
    files: dict[str, Path] = {}
    faults: list[Fault] = []
    for sequence in sequences:
        folder = _sequences_folder(root) / sequence / kind
        if not folder.is_dir():
            faults.append(Fault(str(folder), "the folder does not exist"))
            continue
        for path in folder.iterdir():
            if path.suffix == ".label":
                files[f"{sequence}/{path.stem}"] = path
    return files, faults


def _pattern(layout: str) -> str:
    patterns = {"nuscenes-panoptic": "*_panoptic.npz", "nuscenes-lidarseg": "*_lidarseg.bin"}
    return patterns.get(layout, "*.txt, *.npy or *.ply")


def _files_by_name(root: Path, layout: str) -> tuple[dict[str, Path], list[Fault]]:
    """Label files anywhere below a folder, by the scan they belong to."""
    endings: tuple[str, ...] = (_pattern(layout)[1:],)
    candidates = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if layout == "points":
        # ScanNet keeps the coloured mesh beside the labels: where there are .labels.ply files, other .ply are no labels.
        only_labels = any(path.name.endswith(".labels.ply") for path in candidates)
        endings = tuple(end for end in POINT_ENDINGS if not (only_labels and end in ("_vh_clean_2.ply", ".ply")))
    files: dict[str, Path] = {}
    faults: list[Fault] = []
    for path in candidates:
        ending = next((end for end in endings if path.name.endswith(end)), None)
        if ending is None:
            continue
        name = path.name.removesuffix(ending)
        if name in files:
            faults.append(Fault(str(path), f"{files[name].name} is of the same scan"))
        else:
            files[name] = path
    return files, faults


def _wanted_pairs(
    truth: Mapping[str, Path], prediction: Mapping[str, Path], wanted: Sequence[str]
) -> tuple[list[LabelPair], list[Fault]]:
    """The scans of a list; what is not on it is left alone."""
    pairs, faults = [], []
    for name in dict.fromkeys(wanted):
        if name not in truth:
            faults.append(Fault(name, "it is on the list, but has no ground truth"))
        elif name not in prediction:
            faults.append(Fault(str(truth[name]), "its prediction is missing"))
        else:
            pairs.append(LabelPair(name, truth[name], prediction[name]))
    return pairs, faults
