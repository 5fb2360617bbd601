"""Feature arrays made elsewhere: found, mapped into memory, and checked once per content.

A folder holds one file per frame, `[SCENE/]NAME.npy` or `.safetensors`, of shape [h, w, d] (the photograph's size, or any
coarser grid over it), or one file per scene, `SCENE.npy` or `[SCENE/]points.npy`, of shape [n, d], one row per point of the
cloud. A safetensors file holds one tensor, or one named `features`. If the folder has a file SHA256SUMS (as written by
sha256sum), files are verified against it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, StorageError
from ov3d.common.base.files import cache_root, hash_text, read_json, write_json
from ov3d.common.base.shapes import Array, Float
from ov3d.common.encoders.weights import sha256_of
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.scenes.scene import Scene

ENDINGS = (".npy", ".safetensors")
TENSOR_NAME = "features"
SUMS_NAME = "SHA256SUMS"
BLOCK = 1 << 22
"""Values checked at a time."""

_KIND, _VERSION = "array-check", 1


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """One file of features.

    Attributes:
        path: the file.
        dim: required width.
    """

    path: Path
    dim: int

    def shape(self) -> tuple[int, ...]:
        """The array's shape, from the file's header.

        Raises:
            DataError: it cannot be read, or has another type or width.
        """
        kind, shape = _header(self.path)
        if kind not in ("f", "F16", "F32", "F64") or len(shape) not in (2, 3) or 0 in shape:
            raise DataError(
                f"{self.path} has shape {shape} of {kind}, which is not an array of features.",
                "Features must be fp16, fp32 or fp64, of shape [h, w, d] per frame or [n, d] per cloud.",
            )
        if shape[-1] != self.dim:
            hint = "Name the text encoder that the features were made for."
            if shape[0] == self.dim:
                hint = "The width must be the last axis: save them transposed, as [h, w, d]."
            raise DataError(
                f"{self.path} has shape {shape}: features of width {shape[-1]}, "
                f"the text encoder's vectors have {self.dim}.",
                hint,
            )
        return shape

    def load(self) -> Float[Array, "*cells d"]:
        """The array, mapped from the file if possible; raises as `shape` does."""
        self.shape()
        return _read(self.path)

    def check(self, hasher: ContentHasher) -> None:
        """Check every value, once per content.

        Raises:
            DataError: some values are not finite.
        """
        memo = cache_root() / "arrays" / f"{hash_text(hasher.hash(self.path), str(self.dim))}.json"
        with contextlib.suppress(DataError, CorruptFileError, NewerFormatError, OSError):
            read_json(memo, kind=_KIND, version=_VERSION)
            return
        rows = self.load().reshape(-1, self.dim)
        step = max(1, BLOCK // self.dim)
        num_bad = sum(
            int((~np.isfinite(rows[start : start + step]).all(axis=1)).sum()) for start in range(0, len(rows), step)
        )
        if num_bad:
            raise DataError(
                f"{self.path} holds NaN or infinity in {num_bad} of {len(rows)} vectors.",
                "Use zeros for missing features.",
            )
        with contextlib.suppress(StorageError):  # an unwritable cache costs only time
            write_json(memo, {"path": str(self.path)}, kind=_KIND, version=_VERSION)


class ArrayFolder:
    """A folder of arrays, and the arrays of a scene in it.

    Args:
        folder: the folder.
        dim: required width.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self._dim = dim
        self._sums = _read_sums(folder / SUMS_NAME)

    def points(self, scene: Scene) -> ArrayFile | None:
        """The file of the scene's points, or None."""
        for stem in (scene.name, f"{scene.name}/points", "points"):
            found = self._file(stem)
            if found is not None and len(found.shape()) == 2:
                return self._verified(found)
        return None

    def frames(self, scene: Scene) -> dict[str, ArrayFile]:
        """The file of each frame, by name.

        Raises:
            DataError: a frame has no file, two share one, or a file has another shape or does not match SHA256SUMS.
        """
        own = f"{scene.name}/" if (self.folder / scene.name).is_dir() else ""
        found: dict[str, ArrayFile] = {}
        owners: dict[Path, str] = {}
        missing = []
        for frame in scene.frames:
            file = self._file(f"{own}{frame.name}") or self._file(f"{own}{frame.image_path.stem}")
            if file is None:
                missing.append(f"{own}{frame.image_path.stem}")
                continue
            if file.path in owners:
                raise DataError(
                    f"The frames {owners[file.path]} and {frame.name} of {scene.name} would share {file.path}.",
                    f"Name it after the frame: {own}{frame.name}.npy",
                )
            if len(file.shape()) != 3:
                raise DataError(
                    f"{file.path} has shape {file.shape()}; features of a frame must be [h, w, d].",
                    "Name features of points after the scene, or points.npy.",
                )
            owners[file.path] = frame.name
            found[frame.name] = self._verified(file)
        if missing or not scene.frames:
            looked = f"{missing[0] if missing else scene.name}{ENDINGS[0]}"
            raise DataError(
                f"No features for {len(missing)} of {len(scene.frames)} frames of {scene.name} in {self.folder} "
                f"(looked for {looked}), and no features for its points.",
                "Name files after the frames, or points.npy for features of points.",
            )
        return found

    def _file(self, stem: str) -> ArrayFile | None:
        for ending in ENDINGS:
            path = self.folder / f"{stem}{ending}"
            if path.is_file():
                return ArrayFile(path, self._dim)
        return None

    def _verified(self, file: ArrayFile) -> ArrayFile:
        if self._sums is None:
            return file
        name = file.path.relative_to(self.folder).as_posix()
        listed = self._sums.get(name)
        if listed is None:
            raise DataError(f"{file.path} is not listed in {SUMS_NAME}.", "Add it to the list, or remove the list.")
        if sha256_of(file.path) != listed:
            raise DataError(f"{file.path} does not match its hash in {SUMS_NAME}: it has changed.", "Copy it again.")
        return file


def _header(path: Path) -> tuple[str, tuple[int, ...]]:
    """Data type and shape."""
    with _read_errors(path):
        if path.suffix == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            return values.dtype.kind, values.shape
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as opened:
            part = opened.get_slice(_tensor_name(path, list(opened.keys())))
            return str(part.get_dtype()), tuple(part.get_shape())


def _read(path: Path) -> Any:
    with _read_errors(path):
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as opened:
            return opened.get_tensor(_tensor_name(path, list(opened.keys())))


def _tensor_name(path: Path, names: list[str]) -> str:
    name = names[0] if len(names) == 1 else TENSOR_NAME
    if name not in names:
        raise DataError(
            f"{path} holds {len(names)} tensors, none of them named {TENSOR_NAME}.", f"Name one {TENSOR_NAME}."
        )
    return name


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # truncated files and files of other kinds fail in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"Cannot read the array {path}: {reason}.", "It must be .npy or safetensors, fp16, fp32 or fp64."
        ) from None


def _read_sums(path: Path) -> dict[str, str] | None:
    """sha256 by file name, from the list of sha256sum; empty without a list."""
    if not path.is_file():
        return None
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if found is None and line.strip():
            raise DataError(
                f"Line {number} of {path} must be a hash and a file name.", "Write the file with sha256sum."
            )
        if found is not None:
            sums[found[2]] = found[1].lower()
    return sums
