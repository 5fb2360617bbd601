"""Estimates the cost of an extraction: bytes on disk, memory, and time measured on a few crops.

Time is extrapolated from one small batch of crops and the decoding of one photograph: right within a factor of about two if
the load of the machine does not change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ov3d.common.base.device import peak_bytes
from ov3d.common.base.errors import DataError
from ov3d.common.features.batches import MAX_BATCH_BYTES, MAX_WAITING
from ov3d.common.features.crops import CropPlan
from ov3d.common.features.encode import READ_AHEAD
from ov3d.common.features.extract import ExtractPlan
from ov3d.common.features.store import FeatureStore
from ov3d.common.features.tokens import TokenPlan
from ov3d.common.language.cards import DenseEncoder, ImageTextEncoder
from ov3d.common.scenes.scene import Frame

PROBE_CROPS, PROBE_WINDOWS = 16, 2
DECODED_COPIES = 3
"""Copies of a photograph during decoding: the decoder's, the array, and one more if it is rotated or undistorted."""


def peak_memory() -> int:
    """The peak memory of this process so far, in bytes; 0 if unknown."""
    return peak_bytes() or 0


def estimate_extraction(
    plan: ExtractPlan, store: FeatureStore, encoder: ImageTextEncoder | DenseEncoder, device: torch.device
) -> Mapping[str, Any]:
    """Estimate the cost of encoding the images of a plan.

    Args:
        plan: from `plan_extraction`.
        store: the store of the plan.
        encoder: run on a small batch.
        device: device of the encoder.

    Returns:
        `bytes` on the disk, `peak_bytes` of this process's memory, `seconds`.
    """
    frames = plan.crops_of or plan.refinement_of
    if not frames:
        return {"bytes": 0, "peak_bytes": peak_memory(), "seconds": 0.0}
    seconds = plan.crops * _seconds_a_crop(frames[0], store.plan, encoder, device) + len(frames) * _decoding(frames[0])
    sizes = [(frame.camera.width, frame.camera.height) for frame in frames]
    working = max(3 * w * h for w, h in (store.plan.working_size(*size) for size in sizes))
    pixels = max(width * height for width, height in sizes)
    peak = peak_memory() + DECODED_COPIES * 3 * pixels + (READ_AHEAD + MAX_WAITING) * working + 2 * MAX_BATCH_BYTES
    return {"bytes": plan.bytes, "peak_bytes": peak, "seconds": round(seconds, 1)}


def _seconds_a_crop(
    frame: Frame, plan: CropPlan | TokenPlan, encoder: ImageTextEncoder | DenseEncoder, device: torch.device
) -> float:
    """Encode a small batch twice; the first time is a warm-up."""
    run: Callable[[Tensor], Tensor]
    if isinstance(plan, CropPlan):
        assert isinstance(encoder, ImageTextEncoder)
        grids, run = plan.boxes(frame.camera.width, frame.camera.height), encoder.encode_crops
        shape, count = (grids[0].size, grids[0].size), PROBE_CROPS
    else:
        assert isinstance(encoder, DenseEncoder)
        run, shape, count = encoder.encode_windows, plan.window, PROBE_WINDOWS
    batch = torch.randint(0, 256, (count, 3, *shape), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        run(batch).cpu()
        start = time.perf_counter()
        run(batch).cpu()
    return (time.perf_counter() - start) / len(batch)


def _decoding(frame: Frame) -> float:
    start = time.perf_counter()
    try:
        frame.load_image()
    except DataError:  # it will be skipped and reported
        return 0.0
    return time.perf_counter() - start
