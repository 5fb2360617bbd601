"""The feature store: an encoder's features of images, keyed by content.

One file per image and encoder (and refinement). Its name is a hash of everything that determines its numbers: the image's
bytes, the encoder's identity, the crop plan, the refinement. So no entry is ever stale, the same image at two paths is
stored once, and two processes that write the same entry write the same bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base import tensor_files
from ov3d.common.base.errors import CorruptFileError, DataError, UsageError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float16, Float32, UInt16
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.crops import CropGrid, CropPlan
from ov3d.common.features.layout import (
    CROPS_KIND,
    MEMO_NAME,
    SEGMENTS_KIND,
    TOKENS_KIND,
    VERSION,
    default_root,
    encoder_folder,
    entry_in,
)
from ov3d.common.features.pixels import of_distinct_pixels
from ov3d.common.features.refine import Refiner
from ov3d.common.features.shards import ShardEntry, Shards
from ov3d.common.features.tokens import TokenFeatures, TokenPlan
from ov3d.common.features.verify import VerifyReport, verify_cache
from ov3d.common.features.views import CropFeatures, SegmentFeatures, ViewFeatures
from ov3d.common.language.cards import EncoderCard
from ov3d.common.scenes.scene import Frame

__all__ = ["FeatureStore", "VerifyReport", "verify_cache"]


@dataclass(frozen=True, slots=True)
class _Signature:
    """Signature by which a file is recognised as already verified."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Signature | None:
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class FeatureStore:
    """Features of images by one encoder and plan, refined or not.

    Args:
        root: the folder of all stores; None uses `features` in ov3d's cache.
        card: the encoder.
        plan: the crops, or windows of patches, to encode.
        refiner: how features are refined; None keeps the encoder's own.
        keep: number of views kept loaded.
    """

    def __init__(
        self,
        root: Path | None,
        card: EncoderCard,
        plan: CropPlan | TokenPlan | None = None,
        refiner: Refiner | None = None,
        *,
        keep: int = 16,
    ) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.card = card
        self.plan: CropPlan | TokenPlan = plan or CropPlan()
        self.refiner = refiner
        self.hasher = ContentHasher(self.root / MEMO_NAME)
        self._keep = keep
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, tuple[_Signature, ViewFeatures]] = OrderedDict()
        self._verified: dict[Path, _Signature] = {}
        # The part that does not depend on the frame: a data set needs the keys of a hundred thousand frames.
        self._folder = encoder_folder(self.root, card.spec, card.image.key)
        self._decides = (card.image.key, self.plan.key, refiner.key if refiner else "")
        self._shards = Shards(self._folder)

    def unrefined(self) -> FeatureStore:
        """The store of the unrefined features; itself if it does not refine."""
        if self.refiner is None:
            return self
        store = FeatureStore(self.root, self.card, self.plan, keep=self._keep)
        store.hasher, store._shards = self.hasher, self._shards
        return store

    # ------------------------------------------------------------------------------------------------------- names

    def key(self, frame: Frame) -> str:
        """32 hexadecimal digits that identify the frame's features: equal keys, equal numbers.

        Raises:
            DataError: the image cannot be read.
        """
        image = self.hasher.hash(frame.image_path) + frame.pixels_key
        return hash_text(f"features-{VERSION}", image, *self._decides)

    def path(self, frame: Frame) -> Path:
        """The path of the frame's features."""
        return entry_in(self._folder, self.key(frame))

    # ------------------------------------------------------------------------------------------------- what is there

    def has(self, frame: Frame) -> bool:
        """Whether the frame's features are stored and intact."""
        return self.fault(frame) == ""

    def fault(self, frame: Frame) -> str:
        """Why the frame's features are unusable: `missing`, what is wrong with their file, or empty.

        A file is verified once per process, and again if its size or modification time changes.
        """
        path = self.path(frame)
        signature, entry = self._find(path)
        if signature is None:
            return "missing"
        if entry is not None or self._verified.get(path) == signature:
            return ""  # a shard's entries were verified when packed, and are verified on every read
        try:
            self._read(path)
        except CorruptFileError as error:
            return error.message
        self._verified[path] = signature
        return ""

    def missing(self, frames: Sequence[Frame]) -> list[Frame]:
        """The frames without usable features, in order."""
        return [frame for frame in frames if not self.has(frame)]

    def require(self, frames: Sequence[Frame], scene: str) -> None:
        """Check that all frames have features.

        Args:
            frames: posed photographs.
            scene: argument of `ov3d extract-features`, for the message.

        Raises:
            DataError: some have no features; the message says how many, and what to run.
        """
        missing = self.missing(frames)
        if missing:
            raise DataError(
                f"No cached features for {len(missing)} of {len(frames)} images in {scene} (encoder {self.card.spec}).",
                f"Run: ov3d extract-features {scene} --encoder {self.card.spec}",
            )

    # -------------------------------------------------------------------------------------------------- what it says

    def features_at(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float32[Array, "n s d"]:
        """Unit features of every scale at pixels.

        Args:
            frame: a stored frame.
            uv: image coordinates in pixels of the frame's camera, centres at +0.5; features are those of pixel centres.

        Raises:
            DataError: the frame has no features, or a pixel is outside the image.
            CorruptFileError: the file was cut or changed.
        """
        return of_distinct_pixels(self.load(frame).features_at, frame, uv)

    def pixel_features(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float32[Array, "n d"]:
        """Unit features at pixels: the mean of the scales' unit features, normalised; else as `features_at`."""
        return of_distinct_pixels(self.load(frame).pixel_features, frame, uv)

    def relevancy(self, frame: Frame, text: Float32[Array, " d"], step: int = 8) -> Float32[Array, "rows columns"]:
        """Raw cosine of a text vector with the features of every `step`-th pixel, in the order of `Camera.pixel_centres`."""
        return self.load(frame).relevancy(text, step)

    def load(self, frame: Frame) -> ViewFeatures:
        """The frame's features, verified; a few views are kept loaded.

        Raises:
            DataError: the frame has no features.
            CorruptFileError: the file was cut or changed.
        """
        path = self.path(frame)
        signature, entry = self._find(path)
        if signature is None:
            raise DataError(
                f"No cached features for image {frame.name} (encoder {self.card.spec}).",
                f"Run: ov3d extract-features SCENE --encoder {self.card.spec}",
            )
        with self._lock:
            found = self._loaded.get(path)
            if found is not None and found[0] == signature:
                self._loaded.move_to_end(path)
                return found[1]
        view = self._view(frame, self._read(path) if entry is None else self._read_entry(path.stem, entry))
        with self._lock:
            self._verified[path] = signature
            self._loaded[path] = (signature, view)
            while len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        return view

    # ------------------------------------------------------------------------------------------------------- writing

    def write_crops(self, frame: Frame, vectors: Sequence[Float32[Array, "_ d"]]) -> Path:
        """Store the unit vectors of a frame's crops, one array per scale, each in the order of `CropGrid.corners`."""
        if self.refiner is not None or not isinstance(self.plan, CropPlan):
            raise UsageError("A refined store, or one of patches, cannot store crops.", "Write to its unrefined().")
        width, height = frame.camera.width, frame.camera.height
        grids = self.plan.boxes(width, height)
        boxes = [np.column_stack([grid.corners(), np.full(len(grid), grid.size)]) for grid in grids]
        metadata = {
            **self._metadata(frame),
            "plan": self.plan.to_json(),
            "working_size": list(self.plan.working_size(width, height)),
            "grids": [{"columns": len(grid.xs), "rows": len(grid.ys), "size": grid.size} for grid in grids],
        }
        tensors = {
            "vectors": np.concatenate(vectors).astype(np.float16),
            "boxes": np.concatenate(boxes).astype(np.uint16),
        }
        return tensor_files.write_tensors(
            self.path(frame), tensors, kind=CROPS_KIND, version=VERSION, metadata=metadata
        )

    def write_tokens(self, frame: Frame, tokens: Float32[Array, "gh gw d"]) -> Path:
        """Store the unit vectors of a frame's patches."""
        if self.refiner is not None or not isinstance(self.plan, TokenPlan):
            raise UsageError("A refined store, or one of crops, cannot store patches.", "Write to its unrefined().")
        metadata = {**self._metadata(frame), "plan": self.plan.to_json()}
        tensors = {"tokens": tokens.astype(np.float16)}
        return tensor_files.write_tensors(
            self.path(frame), tensors, kind=TOKENS_KIND, version=VERSION, metadata=metadata
        )

    def write_segments(self, frame: Frame, segments: UInt16[Array, "sh sw"], vectors: Float16[Array, "m d"]) -> Path:
        """Store the superpixels of a frame and their unit vectors."""
        if self.refiner is None:
            raise UsageError("A store without a refiner cannot store superpixels.", "Write crops to it.")
        metadata = {**self._metadata(frame), "refiner": self.refiner.to_json()}
        tensors = {"segments": segments, "vectors": vectors}
        return tensor_files.write_tensors(
            self.path(frame), tensors, kind=SEGMENTS_KIND, version=VERSION, metadata=metadata
        )

    def _metadata(self, frame: Frame) -> dict[str, Any]:
        return {
            "image": str(frame.image_path.absolute()),
            "image_hash": self.hasher.hash(frame.image_path),
            "size": [frame.camera.width, frame.camera.height],
            "encoder": self.card.to_json(),
        }

    def pack(self) -> int:
        """Pack the encoder's small files into shards if there are many; returns the number packed."""
        return self._shards.pack()

    @property
    def _kind(self) -> str:
        own = CROPS_KIND if isinstance(self.plan, CropPlan) else TOKENS_KIND
        return own if self.refiner is None else SEGMENTS_KIND

    def _find(self, path: Path) -> tuple[_Signature | None, ShardEntry | None]:
        """The signature of a file; for a packed file, its shard's signature and the entry."""
        signature = _Signature.of(path)
        if signature is not None:
            return signature, None
        entry = self._shards.find(path.stem)
        return (None, None) if entry is None else (_Signature.of(entry.shard), entry)

    def _read(self, path: Path) -> tensor_files.TensorFile:
        try:
            return tensor_files.read_tensors(path, kind=self._kind, version=VERSION)
        except DataError:
            entry = None if path.exists() else self._shards.find(path.stem)
            if entry is None:
                raise
            return self._read_entry(path.stem, entry)  # another process has just packed it

    def _read_entry(self, key: str, entry: ShardEntry) -> tensor_files.TensorFile:
        try:
            return tensor_files.parse_tensors(entry.read(), entry.shard, kind=self._kind, version=VERSION)
        except CorruptFileError as error:
            self._shards.reject(key)
            raise CorruptFileError(
                error.message, "Run ov3d extract-features again to encode the image again."
            ) from error

    def _view(self, frame: Frame, file: tensor_files.TensorFile) -> ViewFeatures:
        size = (frame.camera.width, frame.camera.height)
        if self.refiner is not None:
            return SegmentFeatures(file.tensors["segments"], file.tensors["vectors"], size)
        if isinstance(self.plan, TokenPlan):
            return TokenFeatures(file.tensors["tokens"].astype(np.float32), size)
        grids, start = [], 0
        for grid in file.metadata["grids"]:
            columns, num = grid["columns"], grid["columns"] * grid["rows"]
            boxes = file.tensors["boxes"][start : start + num].astype(np.int32)
            grids.append(CropGrid(boxes[:columns, 0], boxes[::columns, 1], grid["size"]))
            start += num
        width, height = file.metadata["working_size"]
        return CropFeatures(grids, file.tensors["vectors"], size, (width, height), self.plan.sigma)
