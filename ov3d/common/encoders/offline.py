"""`offline`: a true dual encoder whose weights ship in packages, so it needs no hub and no network.

Both sides are unit vectors over the K = 1000 ImageNet classes:

    image   u = sqrt(p),          p = posterior of EfficientNet-Lite for the crop
    text    t = sqrt(w / sum w),  w_k = relu(cos(n_k - m, e - m))^6

with n_k the MiniLM vector of class k (of its names and definition, see imagenet_names.py), m their mean over the classes
and e the prompt's MiniLM vector. Then u . t = sum_k sqrt(p_k w_k / sum w) is the Bhattacharyya coefficient (1943) of two
distributions over classes: 1 where they agree, 0 where they share no class. A bare wall has a flat posterior, so it
scores low for every prompt.

It sees kinds of things, not their colour, size or material: no class corresponds to such words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import UsageError, did_you_mean
from ov3d.common.base.shapes import Array, Float, Float32, UInt8
from ov3d.common.encoders import minilm
from ov3d.common.encoders.efficientnet_lite import (
    NUM_CLASSES,
    VARIANTS,
    EfficientNetLite,
    Variant,
    load_efficientnet_lite,
)
from ov3d.common.encoders.imagenet_names import class_texts_hash, class_vectors
from ov3d.common.encoders.minilm import MiniLM
from ov3d.common.encoders.parallel import map_batches
from ov3d.common.encoders.pixels import resize
from ov3d.common.encoders.precision import dtype_name, pick_dtype
from ov3d.common.encoders.templates import noun_phrase
from ov3d.common.language.cards import EncoderCard, Identity

DEFAULT_VARIANT = "lite0"

SHARPNESS = 6
"""The exponent that turns cosines between words into weights of classes."""

LOGIT_SCALE = 40.0
"""Scores of present and absent things differ by about 0.1: a softmax at this scale turns that into odds of e^4."""

PRESENCE_THRESHOLD = 0.25
"""Midway between the highest 99.5th percentile of the fused scores of twelve absent things (0.24, a clock) and the lowest of
four present ones (0.27), on generated rooms with seeds 100 to 104, Lite0, features refined with DINOv2."""

_CPU_BATCH = 8  # activations of 8 crops stay in the processor's cache: twice as fast as a batch of 32


class OfflineEncoder:
    """Encodes crops and prompts as distributions over ImageNet's classes.

    Args:
        variant: `lite0`, or the larger and slower `lite2`; empty for the default.
        device: device of the encoder.
        dtype: type of the image network; see `pick_dtype`.

    Raises:
        UsageError: no such variant or type.
        MissingModelError: a package of the `offline` extra is not installed.
        CorruptFileError: a weight file does not match its known hash.
    """

    def __init__(self, variant: str, *, device: torch.device, dtype: str = "auto") -> None:
        name = variant or DEFAULT_VARIANT
        if name not in VARIANTS:
            hint = did_you_mean(name, VARIANTS)
            raise UsageError(f"The offline encoder has no variant {name!r}.", hint)
        self._variant: Variant = VARIANTS[name]
        self._device = device
        self._dtype = pick_dtype(dtype, device)
        # A side is loaded when it is needed, but missing or changed files are reported now.
        for file in (self._variant.file, minilm.WEIGHTS, minilm.TOKENIZER):
            file.verified()
        self._card = EncoderCard(
            spec=f"offline:{name}",
            image=self._image_identity(),
            text=text_identity(),
            dim=NUM_CLASSES,
            logit_scale=LOGIT_SCALE,
            presence_threshold=PRESENCE_THRESHOLD,
            knows_attributes=False,
        )

    @property
    def card(self) -> EncoderCard:
        """The encoder's card."""
        return self._card

    @torch.inference_mode()
    def encode_crops(self, crops: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The square root of the classes' posterior, one unit vector per crop."""
        if self._device.type != "cpu":
            return self._posterior(crops.to(self._device), self._network).sqrt_()
        network = self._network  # load it once, before threads use it
        batches = torch.split(crops.cpu(), _CPU_BATCH)
        return torch.cat(map_batches(lambda batch: self._posterior(batch, network), batches)).sqrt_()

    def encode_text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """The square root of the classes' weights, one unit vector per prompt."""
        centre, names = self._centred_names
        embedded = self._language.encode([noun_phrase(prompt) for prompt in prompts])
        cosine = (F.normalize(embedded - centre, dim=1) @ names.T).double()
        return weights_from_cosines(cosine).sqrt().float().cpu().numpy()

    def num_tokens_lost(self, prompt: str) -> int:
        """The number of tokens of the prompt beyond MiniLM's limit."""
        return max(self._language.num_tokens(noun_phrase(prompt)) - minilm.MAX_TOKENS, 0)

    def _posterior(self, crops: UInt8[Tensor, "b 3 h w"], network: EfficientNetLite) -> Float[Tensor, "b d"]:
        resized = resize(crops, (network.size, network.size))
        images = resized.to(self._dtype, memory_format=torch.channels_last).mul_(2 / 255).sub_(1)
        return network(images).float().softmax(dim=1)

    def _image_identity(self) -> Identity:
        size = self._variant.size
        return Identity(
            model=f"EfficientNet-{self._variant.name}, sqrt of the ImageNet-1k posterior",
            weights=self._variant.file.sha256,
            preprocessing=f"{size} px, bicubic antialiased, mean 0.5, std 0.5",
            dtype=dtype_name(self._dtype),
        )

    @cached_property
    def _network(self) -> EfficientNetLite:
        return load_efficientnet_lite(self._variant, self._device, self._dtype)

    @cached_property
    def _language(self) -> MiniLM:
        return MiniLM(self._device)

    @cached_property
    def _centred_names(self) -> tuple[Float[Tensor, " e"], Float[Tensor, "1000 e"]]:
        names = class_vectors(self._language, _language_key()).to(self._device)
        centre = names.mean(0)
        return centre, F.normalize(names - centre, dim=1)


def text_identity() -> Identity:
    """The identity of the text side: the same for every variant and device."""
    return Identity(
        model=f"all-MiniLM-L6-v2 against the names and definitions of ImageNet-1k, power {SHARPNESS}",
        weights=f"{_language_key()} names {class_texts_hash()}",
        preprocessing="article put before a bare noun, mean pooling, centred on the mean name",
        dtype="float32",
    )


def _language_key() -> str:
    return f"{minilm.WEIGHTS.sha256} {minilm.TOKENIZER.sha256}"


def weights_from_cosines(cosine: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
    """Distributions over classes: relu(cos)^6, scaled to sum 1.

    A prompt without a positive cosine whose sixth power is a normal number gets only its nearest class, so that no row is
    empty.
    """
    weights = cosine.clamp(min=0) ** SHARPNESS
    total = weights.sum(1, keepdim=True)
    nearest = F.one_hot(cosine.argmax(1), cosine.shape[1]).to(weights)
    tiny = torch.finfo(weights.dtype).tiny
    return torch.where(total >= tiny, weights / total.clamp(min=tiny), nearest)
