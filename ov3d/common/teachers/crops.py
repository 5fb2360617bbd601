"""Crops of photographs through an image-text encoder: `offline`, `openclip:MODEL/TAG`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ov3d.common import encoders
from ov3d.common.features.crops import CropPlan
from ov3d.common.teachers.stored import StoredTeacher

if TYPE_CHECKING:
    import torch


class CropTeacher(StoredTeacher):
    """One vector per crop, many crops per image.

    Args:
        spec: of an image-text encoder.
        refine: `none`, or the patch encoder of the refinement.
        device: device of everything.
    """

    kind = "crops"

    def __init__(self, spec: str, *, refine: str = "none", device: torch.device) -> None:
        encoder = encoders.create_encoder(spec, device=device)
        super().__init__(encoder, CropPlan(), refine=refine, device=device)
