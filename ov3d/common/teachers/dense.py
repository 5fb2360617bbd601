"""Patch tokens of photographs by an image-text encoder: `openclip-dense:MODEL/TAG`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ov3d.common import encoders
from ov3d.common.features.tokens import TokenPlan
from ov3d.common.teachers.stored import StoredTeacher

if TYPE_CHECKING:
    import torch


class DenseTeacher(StoredTeacher):
    """One vector per patch, in overlapping windows of the model's training size.

    Args:
        spec: of a dense encoder.
        refine: `none`, or the patch encoder of the refinement.
        device: device of everything.
    """

    kind = "tokens"

    def __init__(self, spec: str, *, refine: str = "none", device: torch.device) -> None:
        encoder = encoders.create_dense_encoder(spec, device=device)
        super().__init__(encoder, TokenPlan(encoder.window, encoder.patch), refine=refine, device=device)
