"""The common part of teachers whose features are computed here and kept in the feature store, of crops or patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ov3d.common import encoders
from ov3d.common.base.progress import Progress
from ov3d.common.features.crops import CropPlan
from ov3d.common.features.estimate import estimate_extraction
from ov3d.common.features.extract import ExtractPlan, ExtractReport, extract_features, plan_extraction
from ov3d.common.features.refine import RefineConfig, Refiner
from ov3d.common.features.store import FeatureStore
from ov3d.common.features.tokens import TokenPlan
from ov3d.common.language.cards import DenseEncoder, EncoderCard, ImageTextEncoder, TextEncoder
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers.teacher import ImageFeatures, Teacher, frames_of

if TYPE_CHECKING:
    import torch


class StoredTeacher(Teacher):
    """An encoder with the store of its features.

    Args:
        encoder: encodes crops, or windows of patches.
        plan: which crops or windows.
        refine: `none`, or the patch encoder of the refinement.
        device: device of everything.
    """

    kind = ""

    def __init__(
        self,
        encoder: ImageTextEncoder | DenseEncoder,
        plan: CropPlan | TokenPlan,
        *,
        refine: str,
        device: torch.device,
    ) -> None:
        self.encoder = encoder
        self.device = device
        self.patches = encoders.create_patch_encoder(refine, device=device) if refine != "none" else None
        refiner = Refiner(RefineConfig(), self.patches.identity) if self.patches is not None else None
        self.store = FeatureStore(None, encoder.card, plan, refiner)

    @property
    def card(self) -> EncoderCard:
        """The encoder's card."""
        return self.encoder.card

    @property
    def source(self) -> ImageFeatures:
        """The store."""
        return self.store

    @property
    def place(self) -> str:
        """The store's folder."""
        return str(self.store.root)

    def plan(self, scene: Scene) -> ExtractPlan:
        """Plan what `extract` would do: images are hashed, not decoded."""
        return plan_extraction(frames_of(scene), self.store)

    def estimate(self, plan: ExtractPlan) -> Mapping[str, Any]:
        """Measured on a few crops of the encoder; see `estimate_extraction`."""
        return estimate_extraction(plan, self.store.unrefined(), self.encoder, self.device)

    def extract(self, scene: Scene, *, progress: Progress) -> ExtractReport:
        """Encode the missing features of the scene's frames.

        Raises:
            DataError: the scene has no frames, or none of its images can be read.
        """
        frames = frames_of(scene)
        return extract_features(
            frames, self.store, self.encoder, device=self.device, patch_encoder=self.patches, progress=progress
        )

    def features_of(self, scene: Scene, *, extract: bool, progress: Progress) -> tuple[Frame, ...]:
        """The frames that have features; see `Teacher.features_of`."""
        frames = frames_of(scene)
        if not extract:
            self.store.require(frames, str(scene.path))
            return tuple(frames)
        unreadable = {name for name, _ in self.extract(scene, progress=progress).failed}
        return tuple(frame for frame in frames if frame.name not in unreadable)

    def make_text_encoder(self) -> TextEncoder:
        """The encoder itself."""
        return self.encoder

    def sources(self) -> Mapping[str, ImageFeatures]:
        """The encoder's own features, and the refined ones where there are any."""
        found: dict[str, ImageFeatures] = {"photographs, dense 2D features": self.store.unrefined()}
        if self.store.refiner is not None:
            found["photographs, refined 2D features"] = self.store
        return found

    def describe(self) -> dict[str, Any]:
        """The plan and the refinement."""
        refiner = self.store.refiner
        return {
            "kind": self.kind,
            "plan": self.store.plan.to_json(),
            "refiner": refiner.to_json() if refiner is not None else None,
        }
