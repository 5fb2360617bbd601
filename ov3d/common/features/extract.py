"""Extraction: encode the crops (or the patches) of images and store them, image by image.

Stored images are skipped, damaged files are reported and recomputed, and each image is written after its last crop, so that a
killed run resumes where it stopped. Unreadable images do not stop the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.features.crops import CropPlan
from ov3d.common.features.encode import Encoding
from ov3d.common.features.store import FeatureStore
from ov3d.common.language.cards import DenseEncoder, ImageTextEncoder, PatchEncoder
from ov3d.common.scenes.scene import Frame


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
    encoding = Encoding(store, device, listener, batch_size)
    encoding.encode(plan.crops_of, encoder)
    if patch_encoder is not None:
        encoding.refine([frame for frame in plan.refinement_of if id(frame) not in encoding.unreadable], patch_encoder)
    failed = _failures(plan, encoding, listener)
    store.pack()
    skipped = len(frames) - len(encoding.written) - len(failed)
    seconds = time.perf_counter() - start
    return ExtractReport(len(encoding.written), skipped, failed, encoding.crops, encoding.bytes, seconds)


def _failures(plan: ExtractPlan, encoding: Encoding, listener: Progress) -> tuple[tuple[str, str], ...]:
    """(name, reason) of the images that cannot be read, told to the listener; an error where that is all of them."""
    unreadable = dict(encoding.unreadable)
    for copy, original in plan.copies:
        if id(original) in unreadable:
            unreadable[id(copy)] = copy, unreadable[id(original)][1]
    failed = (*plan.failed, *((frame.name, reason) for frame, reason in unreadable.values()))
    for name, reason in failed:
        listener.say(f"Image {name} is skipped: {reason}")
    if failed and len(failed) == plan.images:
        name, reason = failed[0]
        raise DataError(f"None of {plan.images} images can be read; the first, {name}: {reason}", "Check the files.")
    return failed


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
