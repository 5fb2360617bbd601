"""What an extraction will take, before it is started: bytes on the disk, memory, and time measured on a few crops.

Time is that of one small batch through the encoder, scaled to all crops, and of one photograph's decoding: right within a
factor of about two while the machine stays as busy as it is.
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
"""A photograph while it is decoded: the decoder's pixels, the array, and one more where it is turned or straightened."""


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes; 0 where the system does not say."""
    return peak_bytes() or 0


def estimate_extraction(
    plan: ExtractPlan, store: FeatureStore, encoder: ImageTextEncoder | DenseEncoder, device: torch.device
) -> Mapping[str, Any]:
    """What encoding the images of a plan would take.

    Args:
        plan: from `plan_extraction`.
        store: it was planned for.
        encoder: is run once, on a small batch.
        device: where it runs.

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
    """Encode a small batch twice; the first time only warms up."""
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
    except DataError:  # it will be left out, and said
        return 0.0
    return time.perf_counter() - start
