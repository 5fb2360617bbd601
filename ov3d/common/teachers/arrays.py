"""Features made elsewhere as a teacher: `features:DIR@TEXT`, or `features:DIR --text-encoder TEXT`.

The arrays come from OpenSeg, LSeg or any other model, run on the photographs or fused onto the points; TEXT names the text
encoder that they were trained with, which encodes prompts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common import encoders
from ov3d.common.base.errors import DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.extract import ExtractPlan, ExtractReport
from ov3d.common.features.layout import MEMO_NAME, default_root
from ov3d.common.language.cards import EncoderCard, Identity, TextEncoder
from ov3d.common.language.specs import BroughtSpec, text_spec
from ov3d.common.lifting.basis import Coder
from ov3d.common.lifting.features import LiftedFeatures, encoded, thinned
from ov3d.common.lifting.lift import LiftConfig, lifted_key
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from ov3d.common.teachers.array_files import ArrayFile, ArrayFolder
from ov3d.common.teachers.array_source import ALGORITHM, ArraySource
from ov3d.common.teachers.labels import existing_folder
from ov3d.common.teachers.teacher import Teacher, frames_of

if TYPE_CHECKING:
    import torch

BLOCK_ROWS = 1 << 14


class ArrayTeacher(Teacher):
    """Arrays of features per frame or point, and their text encoder.

    Args:
        spec: folder of the arrays, and their text encoder.
        device: device of the text encoder.

    Raises:
        UsageError: no text encoder is named.
        DataError: the folder is missing or empty.
        MissingModelError: the text encoder is not on this machine.
    """

    def __init__(self, spec: BroughtSpec, *, device: torch.device) -> None:
        wanted = text_spec(spec.format())
        folder = existing_folder(spec)
        self._text = encoders.create_text_encoder(wanted, device=device)
        text = self._text.card
        self._card = replace(
            text,
            spec=spec.format(place=str(folder), text=text.spec),
            image=Identity("arrays made elsewhere", "by content", f"as given, {ALGORITHM}", "as given"),
        )
        self._folder = ArrayFolder(folder, text.dim)
        self._hasher = ContentHasher(default_root() / MEMO_NAME)
        self._source = ArraySource(self._hasher)

    @property
    def card(self) -> EncoderCard:
        """The text side, and which arrays."""
        return self._card

    @property
    def source(self) -> ArraySource:
        """The arrays of frames; empty if the scene has an array of points."""
        return self._source

    @property
    def place(self) -> str:
        """The folder of the arrays."""
        return str(self._folder.folder)

    def needs_images(self, scene: Scene) -> bool:
        """Whether the scene has no array of points."""
        return self._folder.points(scene) is None

    def bind(self, scene: Scene, *, progress: Progress) -> None:
        """Find and check the scene's arrays."""
        self._files(scene, progress)

    def plan(self, scene: Scene) -> ExtractPlan:
        """A plan with nothing to compute; the arrays are checked for existence."""
        if self._folder.points(scene) is None:
            self._folder.frames(scene)
        return ExtractPlan(len(scene.frames))

    def extract(self, scene: Scene, *, progress: Progress) -> ExtractReport:
        """Check every array, so that problems are reported now."""
        start = time.perf_counter()
        num_files = len(self._files(scene, progress))
        return ExtractReport(num_files, 0, (), 0, 0, time.perf_counter() - start)

    def features_of(self, scene: Scene, *, extract: bool, progress: Progress) -> tuple[Frame, ...]:
        """All frames of the scene."""
        self._files(scene, progress)
        return scene.frames

    def make_text_encoder(self) -> TextEncoder:
        """The text encoder that was named."""
        return self._text

    def describe(self) -> dict[str, Any]:
        """Where the arrays are, and their text encoder."""
        return {"kind": "arrays", "arrays": self.place, "text_encoder": self._text.card.spec}

    def lift(
        self,
        scene: Scene,
        cloud: PointCloud,
        frames: Sequence[Frame],
        config: LiftConfig,
        *,
        progress: Progress,
        coder: Coder | None = None,
        sample_rows: int | None = None,
    ) -> LiftedFeatures:
        """The normalised array of the points if there is one; else the mean over views."""
        file = self._folder.points(scene)
        if file is None:
            return super().lift(scene, cloud, frames, config, progress=progress, coder=coder, sample_rows=sample_rows)
        whole = self._points(file, scene, cloud, self.lifted_key(scene, cloud, frames, config))
        return encoded(whole, coder) if sample_rows is None else thinned(whole, sample_rows)

    def _points(self, file: ArrayFile, scene: Scene, cloud: PointCloud, key: str) -> LiftedFeatures:
        values = file.load()
        if len(values) != len(cloud):
            raise DataError(
                f"{file.path} has {len(values):,} rows, the cloud of {scene.name} {len(cloud):,} points.",
                "It must have one row per point of the cloud, in order.",
            )
        lengths = np.empty(len(cloud), np.float32)
        for start in range(0, len(cloud), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            lengths[rows] = np.linalg.norm(values[rows].astype(np.float32), axis=1)
        point_row = np.flatnonzero(lengths).astype(np.int32)
        code = np.empty((len(point_row), values.shape[1]), np.float16)
        for start in range(0, len(point_row), BLOCK_ROWS):
            points = point_row[start : start + BLOCK_ROWS]
            code[start : start + BLOCK_ROWS] = values[points].astype(np.float32) / lengths[points, None]
        ones = np.ones(len(point_row))
        return LiftedFeatures(code, point_row, ones.astype(np.float32), ones.astype(np.int32), len(cloud), key)

    def lifted_key(self, scene: Scene, cloud: PointCloud, frames: Sequence[Frame], config: LiftConfig) -> str:
        """Identifies the array and the cloud, or the inputs of the mean over views."""
        file = self._folder.points(scene)
        if file is None:
            return super().lifted_key(scene, cloud, frames, config)
        return hash_text("point-arrays-1", self._hasher.hash(file.path), lifted_key(cloud, (), self._source, config))

    def _files(self, scene: Scene, progress: Progress) -> list[ArrayFile]:
        """The scene's arrays, checked; arrays of frames are registered."""
        of_points = self._folder.points(scene)
        files = {"": of_points} if of_points is not None else self._folder.frames(scene)
        with progress.task("Checking arrays", len(files)) as task:
            for file in files.values():
                file.check(self._hasher)
                task.advance()
        if of_points is None:
            for frame in frames_of(scene):
                self._source.bind(frame, files[frame.name])
        return list(files.values())
