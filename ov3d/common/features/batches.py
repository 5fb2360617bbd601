"""Batches crops of several images.

Crops of one pixel size are encoded together, even from different images. The last crops of an image wait until the next
image fills the batch; if too many images wait, incomplete batches are encoded, so that memory stays bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Float32, UInt8
from ov3d.common.features.crops import CropGrid, cut
from ov3d.common.language.cards import ImageTextEncoder
from ov3d.common.scenes.scene import Frame

MAX_WAITING = 8
"""Maximum number of images waiting for their last crops."""

MAX_BATCH_BYTES = 1 << 27
"""Size of a batch of crops, 8 bits a channel; the encoder's resized copy comes on top."""


class PendingImage:
    """An image whose crops are being encoded.

    Attributes:
        frame: its frame.
        vectors: the crops' unit vectors, one array per scale, filled as batches come back.
    """

    def __init__(self, frame: Frame, image: UInt8[Tensor, "3 h w"], grids: list[CropGrid], dim: int) -> None:
        self.frame = frame
        self.image = image
        self.grids = grids
        self.corners = [grid.corners() for grid in grids]
        self.vectors: list[Float32[Array, "_ d"]] = [np.empty((len(grid), dim), dtype=np.float32) for grid in grids]
        self.num_left = sum(map(len, grids))


class Batcher:
    """Collects crops and encodes them in batches.

    Args:
        encoder: its image side is used.
        batch_size: maximum number of crops per batch.
        finished: called with each image after its last crop.
        advance: called with the number of crops of each batch.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        batch_size: int,
        finished: Callable[[PendingImage], None],
        advance: Callable[[int], None],
    ) -> None:
        self._encoder = encoder
        self._batch_size = batch_size
        self._finished = finished
        self._advance = advance
        self._queues: dict[int, deque[tuple[PendingImage, int, int, int]]] = {}
        self._waiting: list[PendingImage] = []

    def add(self, pending: PendingImage) -> None:
        """Add an image, and encode every full batch."""
        self._waiting.append(pending)
        for scale, grid in enumerate(pending.grids):
            self._queues.setdefault(grid.size, deque()).append((pending, scale, 0, len(grid)))
        for size in list(self._queues):
            while self._num_queued(size) >= self._limit(size):
                self._encode(size)
        while len(self._waiting) > MAX_WAITING:
            for grid in self._waiting[0].grids:
                while self._num_queued(grid.size):
                    self._encode(grid.size)

    def flush(self) -> None:
        """Encode the remaining crops."""
        for size in list(self._queues):
            while self._num_queued(size):
                self._encode(size)

    def _num_queued(self, size: int) -> int:
        return sum(stop - start for _, _, start, stop in self._queues.get(size, ()))

    def _limit(self, size: int) -> int:
        return max(1, min(self._batch_size, MAX_BATCH_BYTES // (3 * size * size)))

    def _take(self, size: int) -> Iterator[tuple[PendingImage, int, int, int]]:
        """Runs of crops (image, scale, start, stop) of one size, up to a batch."""
        queue, room = self._queues[size], self._limit(size)
        while queue and room:
            pending, scale, start, stop = queue.popleft()
            if stop - start > room:
                queue.appendleft((pending, scale, start + room, stop))
                stop = start + room
            room -= stop - start
            yield pending, scale, start, stop

    def _encode(self, size: int) -> None:
        runs = list(self._take(size))
        counts = [stop - start for _, _, start, stop in runs]
        device = runs[0][0].image.device
        crops = torch.empty((sum(counts), 3, size, size), dtype=torch.uint8, device=device)
        for (pending, scale, start, stop), part in zip(runs, torch.split(crops, counts), strict=True):
            cut(pending.image, pending.corners[scale][start:stop], size, part)
        vectors = self._encoder.encode_crops(crops).detach().to("cpu", torch.float32).numpy()
        if not np.isfinite(vectors).all():
            names = ", ".join(dict.fromkeys(pending.frame.name for pending, *_ in runs))
            raise not_finite(self._encoder.card.spec, f"crops of {names}")
        self._advance(len(vectors))
        for (pending, scale, start, stop), rows in zip(runs, np.split(vectors, np.cumsum(counts)[:-1]), strict=True):
            pending.vectors[scale][start:stop] = rows
            pending.num_left -= stop - start
            if pending.num_left == 0:
                self._waiting.remove(pending)
                self._finished(pending)


def not_finite(spec: str, images: str) -> DataError:
    """The error for an encoder that returns NaN or infinity for some images."""
    return DataError(f"Encoder {spec} returned NaN or infinity for {images}.", "Try another encoder.")
