"""The work of an extraction: images are read ahead, encoded and refined; each is written after its last crop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress, Task
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


class Encoding:
    """Encodes and refines frames into a store, and counts the work done.

    Args:
        store: receives the features.
        device: where crops are cut.
        progress: receives progress in crops, windows and refined images.
        batch_size: maximum number of crops or windows per batch.

    Attributes:
        written: stored frames by `id`, because names may repeat between scenes.
        unreadable: reasons why frames cannot be read, by `id`.
        crops: number of encoded crops, or windows for encoders of patches.
        bytes: size of the written files.
    """

    def __init__(self, store: FeatureStore, device: torch.device, progress: Progress, batch_size: int) -> None:
        self._store, self._unrefined = store, store.unrefined()
        self._device, self._progress, self._batch_size = device, progress, batch_size
        self.written: set[int] = set()
        self.unreadable: dict[int, tuple[Frame, str]] = {}
        self.crops = self.bytes = 0

    def encode(self, frames: Sequence[Frame], encoder: ImageTextEncoder | DenseEncoder) -> None:
        """Encode and store the crops or patches of frames, following the store's plan."""
        if not frames:
            return
        plan = self._store.plan
        if isinstance(plan, CropPlan):
            assert isinstance(encoder, ImageTextEncoder)
            self._encode_crops(frames, plan, encoder)
        else:
            assert isinstance(encoder, DenseEncoder)
            self._encode_patches(frames, plan, encoder)

    def refine(self, frames: Sequence[Frame], patch_encoder: PatchEncoder) -> None:
        """Refine and store frames whose crops are stored; does nothing if the store does not refine."""
        refiner = self._store.refiner
        if refiner is None or not frames:
            return
        with self._progress.task("Refining", len(frames)) as task:
            for frame, image, _ in self._readable(frames, [1] * len(frames), task):
                size = (frame.camera.width, frame.camera.height)
                view = self._unrefined.load(frame)
                segments, vectors = refine(view, image, size, patch_encoder, refiner.config, device=self._device)
                self._wrote(frame, self._store.write_segments(frame, segments, vectors))
                task.advance(1)

    def _encode_crops(self, frames: Sequence[Frame], plan: CropPlan, encoder: ImageTextEncoder) -> None:
        def finish(pending: PendingImage) -> None:
            self._wrote(pending.frame, self._unrefined.write_crops(pending.frame, pending.vectors))
            self.crops += sum(map(len, pending.vectors))

        grids_of = [plan.boxes(frame.camera.width, frame.camera.height) for frame in frames]
        counts = [sum(map(len, grids)) for grids in grids_of]
        with self._progress.task("Encoding crops", sum(counts)) as task:
            batcher = Batcher(encoder, self._batch_size, finish, task.advance)
            for frame, image, idx in self._readable(frames, counts, task):
                pixels = channels_first(image, self._device)
                batcher.add(PendingImage(frame, pixels, grids_of[idx], self._store.card.dim))
            batcher.flush()

    def _encode_patches(self, frames: Sequence[Frame], plan: TokenPlan, encoder: DenseEncoder) -> None:
        counts = [plan.num_crops(frame.camera.width, frame.camera.height) for frame in frames]
        with self._progress.task("Encoding windows", sum(counts)) as task:
            for frame, image, idx in self._readable(frames, counts, task):
                pixels = channels_first(image, self._device)
                tokens = encode_tokens(
                    pixels, plan, encoder.encode_windows, batch_size=self._batch_size, advance=task.advance
                )
                vectors = tokens.cpu().numpy()
                if not np.isfinite(vectors).all():
                    raise not_finite(encoder.card.spec, f"image {frame.name}")
                self._wrote(frame, self._unrefined.write_tokens(frame, vectors))
                self.crops += counts[idx]

    def _readable(
        self, frames: Sequence[Frame], counts: Sequence[int], task: Task
    ) -> Iterator[tuple[Frame, UInt8[Array, "h w 3"], int]]:
        """Readable frames with their photographs and their indices in the list; other frames are skipped."""
        for idx, (frame, image) in enumerate(_working_images(frames, self._unrefined)):
            if isinstance(image, DataError):
                self.unreadable[id(frame)] = frame, image.message
                task.advance(counts[idx])
            else:
                yield frame, image, idx

    def _wrote(self, frame: Frame, path: Path) -> None:
        self.written.add(id(frame))
        self.bytes += path.stat().st_size


def _working_images(
    frames: Sequence[Frame], store: FeatureStore
) -> Iterator[tuple[Frame, UInt8[Array, "h w 3"] | DataError]]:
    """Each frame with its photograph at working size, or its read error; a thread reads ahead."""

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
