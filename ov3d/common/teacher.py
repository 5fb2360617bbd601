"""The 2D side of every backend: which encoder, which store, and the features of a scene's photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ov3d.common.encoders import create_encoder, create_patch_encoder
from ov3d.common.encoding import EncoderCard, ImageTextEncoder, PatchEncoder
from ov3d.common.errors import DataError, UsageError, did_you_mean
from ov3d.common.features.extract import ExtractPlan, ExtractReport, extract_features, plan_extraction
from ov3d.common.features.refine import RefineConfig, Refiner
from ov3d.common.features.store import FeatureStore
from ov3d.common.progress import Progress
from ov3d.common.scene import Frame, Scene
from ov3d.common.shapes import Array, Float32
from ov3d.common.text_cache import TextCache, encode_prompts

if TYPE_CHECKING:
    import torch

REFINEMENTS = ("none", "dino")


@dataclass(slots=True)
class Teacher:
    """An image-text encoder with the store of what it saw.

    Attributes:
        encoder: the image-text encoder.
        store: features of images by it, refined where asked for.
        patches: the patch encoder of the refinement, or none.
        device: where both run.
    """

    encoder: ImageTextEncoder
    store: FeatureStore
    patches: PatchEncoder | None
    device: torch.device

    @classmethod
    def open(cls, encoder: str, *, refine: str = "none", device: torch.device) -> Teacher:
        """The teacher that an encoder's spec and a refinement name.

        Raises:
            UsageError: no such encoder or refinement.
            MissingModelError: it is not on this machine.
        """
        if refine not in REFINEMENTS:
            raise UsageError(f"Unknown refinement {refine!r}.", did_you_mean(refine, REFINEMENTS))
        made = create_encoder(encoder, device=device)
        patches = create_patch_encoder(device=device) if refine == "dino" else None
        refiner = Refiner(RefineConfig(), patches.identity) if patches is not None else None
        return cls(made, FeatureStore(None, made.card, refiner=refiner), patches, device)

    @property
    def card(self) -> EncoderCard:
        """What the encoder declares about itself."""
        return self.encoder.card

    def plan(self, scene: Scene) -> ExtractPlan:
        """What `extract` would do."""
        return plan_extraction(_frames(scene), self.store)

    def extract(self, scene: Scene, *, progress: Progress) -> ExtractReport:
        """Extract the features that the scene's frames lack.

        Raises:
            DataError: the scene has no frame, or none of its images can be read.
        """
        frames = _frames(scene)
        return extract_features(
            frames, self.store, self.encoder, device=self.device, patch_encoder=self.patches, progress=progress
        )

    def features_of(self, scene: Scene, *, extract: bool, progress: Progress) -> tuple[Frame, ...]:
        """Make sure that the scene's frames have features.

        Args:
            scene: at least one frame.
            extract: whether missing ones are extracted.
            progress: hears how far it is, and of images that are left out.

        Returns:
            The frames that have some: an image that cannot be read is left out, and said.

        Raises:
            DataError: features are missing and must not be extracted, or the scene has no frame.
        """
        frames = _frames(scene)
        if not extract:
            self.store.require(frames, str(scene.path))
            return tuple(frames)
        unreadable = {name for name, _ in self.extract(scene, progress=progress).failed}
        return tuple(frame for frame in frames if frame.name not in unreadable)

    def text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """Unit text vectors, from the cache where they are in it."""
        return encode_prompts(self.card, list(prompts), TextCache(), lambda: self.encoder)


def _frames(scene: Scene) -> Sequence[Frame]:
    if not scene.frames:
        raise DataError(f"Scene {scene.name} has no posed photographs.", "Give images with poses.")
    return scene.frames
