"""What a teacher is: the 2D side of every backend, wherever its knowledge comes from.

`ov3d.common.teachers.open_teacher` makes one from what a user types after `--encoder`. A backend asks it for the frames that
have features, takes those at pixels from `source`, text vectors from `text`, and writes `describe()` into its manifest.
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
    """Features of photographs that can be asked for words directly."""

    def has(self, frame: Frame) -> bool:
        """Whether the frame has features."""
        ...

    def relevancy(self, frame: Frame, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        """Raw cosine of a text vector at every `step`-th pixel of every `step`-th row; 0 where there is no feature."""
        ...


class Teacher(ABC):
    """Where 2D knowledge comes from, and the text side that questions to it go through."""

    @property
    @abstractmethod
    def card(self) -> EncoderCard:
        """Spec, identities, width, scale and presence threshold: what an index keeps."""

    @property
    @abstractmethod
    def source(self) -> ImageFeatures:
        """Features at pixels of the frames that `features_of` returned. Zeros mean none; see `PartialFeatures`."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the features are kept, or come from."""

    def bind(self, scene: Scene, *, progress: Progress) -> None:  # noqa: B027 - most need to know no more than a frame
        """Get to know a scene, so that `source` answers for its frames; nothing is made. `features_of` does it by itself.

        Raises:
            DataError: what the teacher was given does not fit the scene.
        """

    @abstractmethod
    def plan(self, scene: Scene) -> ExtractPlan:
        """What `extract` would do.

        Raises:
            DataError: the scene has no frame, or what the teacher was given does not fit it.
        """

    def estimate(self, plan: ExtractPlan) -> Mapping[str, Any]:
        """About what carrying a plan out takes: `bytes`, `peak_bytes`, `seconds`; nothing where nothing is encoded here."""
        return {}

    @abstractmethod
    def extract(self, scene: Scene, *, progress: Progress) -> ExtractReport:
        """Make the features that the scene's frames lack, or check those that were made elsewhere; raises as `plan` does."""

    @abstractmethod
    def features_of(self, scene: Scene, *, extract: bool, progress: Progress) -> tuple[Frame, ...]:
        """Make sure that the scene's frames have features.

        Args:
            scene: at least one frame.
            extract: whether missing ones are made.
            progress: hears how far it is, and of images that are left out.

        Returns:
            The frames that have some: an image that cannot be read is left out, and said.

        Raises:
            DataError: features are missing and must not be made, or do not fit the scene.
        """

    @abstractmethod
    def make_text_encoder(self) -> TextEncoder:
        """The text side; asked only for prompts that are not in the cache."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a manifest keeps, JSON-able: its kind and what decides its numbers."""

    def text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """Unit vectors of prompts or class names, from the cache where they are in it; raises as `clean_prompt` does."""
        cleaned = [clean_prompt(prompt) for prompt in prompts]
        return encode_prompts(self.card, cleaned, TextCache(), self.make_text_encoder)

    def needs_images(self, scene: Scene) -> bool:
        """Whether it knows the scene's photographs; otherwise `lift` gives features of its points without any."""
        return True

    def sources(self) -> Mapping[str, ImageFeatures]:
        """The features that an evaluation compares on photographs, by what they are called."""
        return {"photographs": self.source}

    def facts(self, scene: Scene) -> dict[str, Any]:
        """What must stand beside every result on a scene whose features were asked for (a stated corruption), JSON-able."""
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
        """Features of the cloud's points, or their codes, or a sample; by default the mean over the frames that see them."""
        return lift(cloud, frames, self.source, config, progress=progress, coder=coder, sample_rows=sample_rows)

    def lifted_key(self, scene: Scene, cloud: PointCloud, frames: Sequence[Frame], config: LiftConfig) -> str:
        """The key that `lift` would give its result, without lifting."""
        return lifted_key(cloud, frames, self.source, config)


def frames_of(scene: Scene) -> Sequence[Frame]:
    """The scene's frames.

    Raises:
        DataError: it has none.
    """
    if not scene.frames:
        raise DataError(f"Scene {scene.name} has no posed photographs.", "Give images with poses.")
    return scene.frames
