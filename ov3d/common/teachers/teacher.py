"""What a teacher is: the source of 2D features for every backend.

`ov3d.common.teachers.open_teacher` makes one from the value of `--encoder`. A backend asks it for the frames that have
features, reads features at pixels from `source` and text vectors from `text`, and writes `describe()` into its manifest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ov3d.common.asking.prompt import clean_prompt
from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float32
from ov3d.common.features.extract import ExtractPlan, ExtractReport
from ov3d.common.language.cards import EncoderCard, TextEncoder
from ov3d.common.language.text_cache import TextCache, encode_prompts
from ov3d.common.lifting.basis import Coder
from ov3d.common.lifting.lift import LiftConfig, LiftedFeatures, PixelFeatures, lift, lifted_key
from ov3d.common.scenes.scene import Frame, PointCloud, Scene


@runtime_checkable
class ImageFeatures(PixelFeatures, Protocol):
    """Features of photographs that can be compared with text directly."""

    def has(self, frame: Frame) -> bool:
        """Whether the frame has features."""
        ...

    def relevancy(self, frame: Frame, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Raw cosine with a text vector at every `step`-th pixel of every `step`-th row; 0 without a feature."""
        ...


class Teacher(ABC):
    """A source of 2D features, and the text side that encodes prompts for it."""

    @property
    @abstractmethod
    def card(self) -> EncoderCard:
        """Spec, identities, width, scale and presence threshold, as stored in indexes."""

    @property
    @abstractmethod
    def source(self) -> ImageFeatures:
        """Features at pixels of the frames that `features_of` returned. Zeros mean none; see `PartialFeatures`."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the features are stored or come from."""

    def bind(self, scene: Scene, *, progress: Progress) -> None:  # noqa: B027 - most need to know no more than a frame
        """Register a scene, so that `source` knows its frames; nothing is computed. `features_of` calls this itself.

        Raises:
            DataError: the teacher's inputs do not fit the scene.
        """

    @abstractmethod
    def plan(self, scene: Scene) -> ExtractPlan:
        """Plan what `extract` would do.

        Raises:
            DataError: the scene has no frames, or the teacher's inputs do not fit it.
        """

    def estimate(self, plan: ExtractPlan) -> Mapping[str, Any]:
        """Estimated cost of a plan: `bytes`, `peak_bytes`, `seconds`; zero if nothing is encoded here."""
        return {}

    @abstractmethod
    def extract(self, scene: Scene, *, progress: Progress) -> ExtractReport:
        """Compute the missing features of the scene's frames, or check features made elsewhere; raises as `plan` does."""

    @abstractmethod
    def features_of(self, scene: Scene, *, extract: bool, progress: Progress) -> tuple[Frame, ...]:
        """Ensure that the scene's frames have features.

        Args:
            scene: at least one frame.
            extract: compute missing features.
            progress: receives progress, and reports of skipped images.

        Returns:
            The frames that have features; unreadable images are skipped and reported.

        Raises:
            DataError: features are missing and `extract` is false, or they do not fit the scene.
        """

    @abstractmethod
    def make_text_encoder(self) -> TextEncoder:
        """The text side; used only for prompts that are not in the cache."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a manifest records, JSON-able: its kind and everything that determines its numbers."""

    def text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """Unit vectors of prompts or class names, from the cache if possible; raises as `clean_prompt` does."""
        cleaned = [clean_prompt(prompt) for prompt in prompts]
        return encode_prompts(self.card, cleaned, TextCache(), self.make_text_encoder)

    def needs_images(self, scene: Scene) -> bool:
        """Whether it has features of the scene's photographs; otherwise `lift` works without photographs."""
        return True

    def sources(self) -> Mapping[str, ImageFeatures]:
        """The features that an evaluation compares on photographs, by name."""
        return {"photographs": self.source}

    def facts(self, scene: Scene) -> dict[str, Any]:
        """Facts to report with every result on a scene with requested features (a stated corruption), JSON-able."""
        return {}

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
        """Features of the cloud's points, their codes, or a sample; by default the mean over the frames that see them."""
        return lift(cloud, frames, self.source, config, progress=progress, coder=coder, sample_rows=sample_rows)

    def lifted_key(self, scene: Scene, cloud: PointCloud, frames: Sequence[Frame], config: LiftConfig) -> str:
        """The key of the result of `lift`, without lifting."""
        return lifted_key(cloud, frames, self.source, config)


def frames_of(scene: Scene) -> Sequence[Frame]:
    """The scene's frames.

    Raises:
        DataError: it has no frames.
    """
    if not scene.frames:
        raise DataError(f"Scene {scene.name} has no posed photographs.", "Provide images with poses.")
    return scene.frames
