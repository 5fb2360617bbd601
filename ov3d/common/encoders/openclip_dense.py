"""`openclip-dense:`: one vector per patch, in the space of the same model's text.

A CLIP-like vision transformer is trained only through its class token, but the value of each patch in the last block is
already in the same space: if attention is the identity, a patch keeps what it would pass to the class token. So the last
block runs without mixing,

    y = x + g1 (W_o (W_v LN1(x) + b_v) + b_o),    z = y + g2 MLP(LN2(y)),    t = LN_post(z) P,

with x the patch tokens after all blocks but the last, g1 and g2 its layer scales (1 where it has none) and P the projection
into the joint space; the normalised t is the patch's vector. All earlier layers are unchanged, and run at the training size.
Source: Zhou, Loy and Dai, *Extract Free Dense Labels from CLIP*, ECCV 2022 (MaskCLIP), section 3.2 and its ViT code, which
keeps the residual and the MLP.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import UsageError
from ov3d.common.base.shapes import Float, UInt8
from ov3d.common.encoders.openclip import OpenClipEncoder

ALGORITHM = "value tokens of the last block, residual and MLP kept"


class OpenClipDense(OpenClipEncoder):
    """Encodes windows of an image as patch vectors, and templated prompts in the same space.

    Args:
        rest: the spec after `openclip-dense:`; as for `openclip:`.
        device: device of the encoder.
        dtype: type of the image tower; see `pick_dtype`.

    Raises:
        UsageError: no such model, tag or type, or its image tower is not one of open_clip's own vision transformers.
        MissingModelError, DataError: as `OpenClipEncoder`.
    """

    def __init__(self, rest: str, *, device: torch.device, dtype: str = "auto") -> None:
        super().__init__(rest, device=device, dtype=dtype)
        self._tower: Any = self._model.visual
        _refuse_other_towers(self._tower, rest)
        self._patch: tuple[int, int] = tuple(int(side) for side in self._tower.conv1.kernel_size)  # type: ignore[assignment]
        image = replace(
            self._card.image,
            model=f"{self._card.image.model}, {ALGORITHM}",
            preprocessing=f"windows of {self._card.image.preprocessing}",
        )
        spec = self._card.spec.replace("openclip:", "openclip-dense:", 1)
        self._card = replace(self._card, spec=spec, image=image)

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of the training images, in pixels."""
        return self._size

    @property
    def patch(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        return self._patch

    @torch.inference_mode()
    def encode_windows(self, windows: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw d"]:
        """The unit vector of each patch of windows of `window` pixels."""
        pixels = (windows.to(self._device).float() - self._mean) / self._std
        tokens = value_tokens(self._tower, pixels.to(self._dtype))
        rows, columns = (side // patch for side, patch in zip(self.window, self.patch, strict=True))
        return F.normalize(tokens.float(), dim=-1).view(len(windows), rows, columns, -1)


def value_tokens(tower: Any, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
    """Patch vectors of preprocessed images through the value path of a tower's last block, not normalised."""
    x = tower._embeds(images)
    blocks = tower.transformer.resblocks
    batch_first = tower.transformer.batch_first
    x = x if batch_first else x.transpose(0, 1)
    for block in blocks[:-1]:
        x = block(x)
    x = x if batch_first else x.transpose(0, 1)
    last, patches = blocks[-1], x[:, 1:]  # the class token is first
    width = patches.shape[-1]
    attention = last.attn
    value = F.linear(last.ln_1(patches), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    y = patches + last.ls_1(attention.out_proj(value))
    z = y + last.ls_2(last.mlp(last.ln_2(y)))
    t = tower.ln_post(z)
    return t if tower.proj is None else t @ tower.proj


def _refuse_other_towers(tower: Any, rest: str) -> None:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    plain = (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and type(tower.transformer.resblocks[-1]) is ResidualAttentionBlock
    )
    if not plain:
        raise UsageError(
            f"openclip-dense:{rest} has no patch tokens in the text's space: its image tower is not a plain ViT.",
            "Use it with openclip:, or use a ViT such as openclip-dense:ViT-B-16/openai.",
        )
