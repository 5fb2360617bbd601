"""Extraction: encode the crops (or the patches) of images and store them, image by image.

Stored images are skipped, damaged files are reported and recomputed, and each image is written after its last crop, so that a
killed run resumes where it stopped. Unreadable images do not stop the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.shapes import Array, UInt8
from ov3d.common.features.batches import Batcher, PendingImage, not_finite
from ov3d.common.features.crops import CropPlan, channels_first, resized
from ov3d.common.features.refine import refine
from ov3d.common.features.store import FeatureStore
from ov3d.common.features.tokens import TokenPlan
from ov3d.common.features.windows import encode_tokens
from ov3d.common.language.cards import DenseEncoder, ImageTextEncoder, PatchEncoder
from ov3d.common.scenes.scene import Frame

READ_AHEAD = 2
"""Images decoded ahead while the encoder works on an earlier one."""


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """The results of an extraction.

    Attributes:
        images: number of newly stored images.
        skipped: number of images that were already stored, or are copies of a stored one.
        failed: (name, reason) of unreadable images.
        crops: number of encoded crops, or windows for encoders of patches.
        bytes: size of the written files.
        seconds: time taken.
    """

    images: int
    skipped: int
    failed: tuple[tuple[str, str], ...]
    crops: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {**asdict(self), "failed": [{"image": name, "reason": reason} for name, reason in self.failed]}


@dataclass(slots=True)
class ExtractPlan:
    """A plan of an extraction.

    Attributes:
        images: total number of images.
        crops_of: images whose crops must be encoded.
        refinement_of: images that must be refined.
        copies: pairs of an image and an earlier image to process with the same content.
        failed: (name, reason) of unreadable images.
        damaged: (name, reason) of stored files that must be recomputed.
        crops: number of crops to encode, or windows for encoders of patches.
        bytes: approximate size of the files to write.
    """

    images: int
    crops_of: list[Frame] = field(default_factory=list)
    refinement_of: list[Frame] = field(default_factory=list)
    copies: list[tuple[Frame, Frame]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    crops: int = 0
    bytes: int = 0

    @property
    def missing(self) -> int:
        """Number of images to process."""
        return len({id(frame) for frame in (*self.crops_of, *self.refinement_of)})

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "images": self.images,
            "missing": self.missing,
            "crops": self.crops,
            "bytes": self.bytes,
            "failed": [{"image": name, "reason": reason} for name, reason in self.failed],
            "damaged": [{"image": name, "reason": reason} for name, reason in self.damaged],
        }


def plan_extraction(frames: Sequence[Frame], store: FeatureStore) -> ExtractPlan:
    """Plan `extract_features`, without an encoder; images are hashed, not decoded."""
    plan, unrefined, seen = ExtractPlan(len(frames)), store.unrefined(), dict[str, Frame]()
    for frame in frames:
        try:
            key = store.key(frame)
        except DataError as error:
            plan.failed.append((frame.name, error.message))
            continue
        fault = store.fault(frame)
        if not fault:
            continue
        if key in seen:
            plan.copies.append((frame, seen[key]))
            continue
        seen[key] = frame
        crops_fault = unrefined.fault(frame) if store.refiner else fault
        for found in {fault, crops_fault} - {"", "missing"}:
            plan.damaged.append((frame.name, found))
        if crops_fault:
            plan.crops_of.append(frame)
            width, height = frame.camera.width, frame.camera.height
            plan.crops += store.plan.num_crops(width, height)
            plan.bytes += store.plan.estimated_bytes(width, height, store.card.dim)
        if store.refiner:
            plan.refinement_of.append(frame)
            plan.bytes += store.refiner.config.estimated_bytes(frame.camera.width, frame.camera.height, store.card.dim)
    return plan


def extract_features(
    frames: Sequence[Frame],
    store: FeatureStore,
    encoder: ImageTextEncoder | DenseEncoder,
    *,
    device: torch.device | str = "cpu",
    patch_encoder: PatchEncoder | None = None,
    progress: Progress | None = None,
    batch_size: int = 64,
) -> ExtractReport:
    """Fill the store with the features of frames.

    Args:
        frames: posed photographs.
        store: receives the features; stored ones are kept.
        encoder: must match the store's card.
        device: where crops are cut; the encoder's device.
        patch_encoder: provides the tokens of the refinement; required if the store refines.
        progress: receives progress, and reports of damaged files and unreadable images.
        batch_size: maximum number of crops or windows per batch; does not affect results.

    Raises:
        UsageError: encoder and store do not match.
        DataError: no image can be read, or the encoder returns NaN or infinity.
        StorageError: a file cannot be written; files already written are kept.
    """
    start, listener, device = time.perf_counter(), progress or Silent(), torch.device(device)
    _check_fit(store, encoder, patch_encoder)
    plan = plan_extraction(frames, store)
    for name, fault in plan.damaged:
        listener.say(f"Features of image {name} are extracted again: {fault}")
    done = _Done()
    if isinstance(store.plan, CropPlan):
        assert isinstance(encoder, ImageTextEncoder)
        _encode_crops(plan.crops_of, store.unrefined(), encoder, device, listener, batch_size, done)
    else:
        assert isinstance(encoder, DenseEncoder)
        _encode_patches(plan.crops_of, store.unrefined(), encoder, device, listener, batch_size, done)
    if patch_encoder is not None and store.refiner is not None:
        frames_left = [frame for frame in plan.refinement_of if id(frame) not in done.unreadable]
        _refine_all(frames_left, store, patch_encoder, device, listener, done)
    for copy, original in plan.copies:
        if id(original) in done.unreadable:
            done.unreadable[id(copy)] = copy, done.unreadable[id(original)][1]
    failed = plan.failed + [(frame.name, reason) for frame, reason in done.unreadable.values()]
    for name, reason in failed:
        listener.say(f"Image {name} is skipped: {reason}")
    if failed and len(failed) == len(frames):
        raise DataError(
            f"None of {len(frames)} images can be read; the first, {failed[0][0]}: {failed[0][1]}",
            "Check the files.",
        )
    store.pack()
    skipped = len(frames) - len(done.written) - len(failed)
    seconds = time.perf_counter() - start
    return ExtractReport(len(done.written), skipped, tuple(failed), done.crops, done.bytes, seconds)


@dataclass(slots=True)
class _Done:
    """The work done so far; frames by `id`, because names may repeat between scenes."""

    written: set[int] = field(default_factory=set)
    unreadable: dict[int, tuple[Frame, str]] = field(default_factory=dict)
    crops: int = 0
    bytes: int = 0

    def wrote(self, frame: Frame, path: Path) -> None:
        self.written.add(id(frame))
        self.bytes += path.stat().st_size


def _check_fit(
    store: FeatureStore, encoder: ImageTextEncoder | DenseEncoder, patch_encoder: PatchEncoder | None
) -> None:
    if encoder.card.image != store.card.image:
        raise UsageError(
            f"The store is of encoder {store.card.spec} ({store.card.image.dtype}), "
            f"not of {encoder.card.spec} ({encoder.card.image.dtype}).",
            "Make the store from the encoder's own card.",
        )
    kind, needed = ("crops", ImageTextEncoder) if isinstance(store.plan, CropPlan) else ("patches", DenseEncoder)
    if not isinstance(encoder, needed):
        raise UsageError(f"The store holds {kind}, which {encoder.card.spec} does not encode.", "Use a matching plan.")
    if store.refiner is not None and (patch_encoder is None or patch_encoder.identity != store.refiner.patches):
        raise UsageError(
            f"The store refines with {store.refiner.patches.model}, but that patch encoder was not given.",
            "Make the refiner from the patch encoder's own identity.",
        )


def _encode_crops(
    frames: Sequence[Frame],
    store: FeatureStore,
    encoder: ImageTextEncoder,
    device: torch.device,
    listener: Progress,
    batch_size: int,
    done: _Done,
) -> None:
    """Encode and store the crops of frames."""
    if not frames:
        return

    def finish(pending: PendingImage) -> None:
        done.wrote(pending.frame, store.write_crops(pending.frame, pending.vectors))
        done.crops += sum(map(len, pending.vectors))

    assert isinstance(store.plan, CropPlan)
    plan = store.plan
    grids_of = [plan.boxes(frame.camera.width, frame.camera.height) for frame in frames]
    with listener.task("Encoding crops", sum(len(grid) for grids in grids_of for grid in grids)) as task:
        batcher = Batcher(encoder, batch_size, finish, task.advance)
        for (frame, image), grids in zip(_working_images(frames, store), grids_of, strict=True):
            if isinstance(image, DataError):
                done.unreadable[id(frame)] = frame, image.message
                task.advance(sum(map(len, grids)))
            else:
                batcher.add(PendingImage(frame, channels_first(image, device), grids, store.card.dim))
        batcher.flush()


def _encode_patches(
    frames: Sequence[Frame],
    store: FeatureStore,
    encoder: DenseEncoder,
    device: torch.device,
    listener: Progress,
    batch_size: int,
    done: _Done,
) -> None:
    """Encode and store the patches of frames, window by window."""
    if not frames:
        return
    assert isinstance(store.plan, TokenPlan)
    plan = store.plan
    counts = [plan.num_crops(frame.camera.width, frame.camera.height) for frame in frames]
    with listener.task("Encoding windows", sum(counts)) as task:
        for (frame, image), count in zip(_working_images(frames, store), counts, strict=True):
            if isinstance(image, DataError):
                done.unreadable[id(frame)] = frame, image.message
                task.advance(count)
                continue
            pixels = channels_first(image, device)
            tokens = encode_tokens(pixels, plan, encoder.encode_windows, batch_size=batch_size, advance=task.advance)
            vectors = tokens.cpu().numpy()
            if not np.isfinite(vectors).all():
                raise not_finite(encoder.card.spec, f"image {frame.name}")
            done.wrote(frame, store.write_tokens(frame, vectors))
            done.crops += count


def _refine_all(
    frames: Sequence[Frame],
    store: FeatureStore,
    patch_encoder: PatchEncoder,
    device: torch.device,
    listener: Progress,
    done: _Done,
) -> None:
    """Refine frames whose crops are stored."""
    unrefined, refiner = store.unrefined(), store.refiner
    if refiner is None or not frames:
        return
    with listener.task("Refining", len(frames)) as task:
        for frame, image in _working_images(frames, store):
            if isinstance(image, DataError):
                done.unreadable[id(frame)] = frame, image.message
            else:
                size = (frame.camera.width, frame.camera.height)
                view = unrefined.load(frame)
                segments, vectors = refine(view, image, size, patch_encoder, refiner.config, device=device)
                done.wrote(frame, store.write_segments(frame, segments, vectors))
            task.advance(1)


def _working_images(
    frames: Sequence[Frame], store: FeatureStore
) -> Iterator[tuple[Frame, UInt8[Array, "h w 3"] | DataError]]:
    """Each frame with its photograph at working size or its read error; a thread reads ahead."""

    def read(frame: Frame) -> UInt8[Array, "h w 3"] | DataError:
        try:
            image = frame.load_image()
        except DataError as error:
            return error
        return resized(image, store.plan.working_size(frame.camera.width, frame.camera.height))

    with ThreadPoolExecutor(1) as reader:
        ahead: deque[tuple[Frame, Future[UInt8[Array, "h w 3"] | DataError]]] = deque()
        try:
            for frame in frames:
                ahead.append((frame, reader.submit(read, frame)))
                if len(ahead) > READ_AHEAD:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()
