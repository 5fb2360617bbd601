"""What an encoder is: the protocols that the feature layer uses, and the card that every encoder provides.

Image-text encoders produce unit vectors on both sides, so cosine is the only similarity used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float32, UInt8

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that determines an encoder's output; encoders with equal identities produce equal vectors.

    Attributes:
        model: architecture and variant.
        weights: hash of the weight files (or `seed:N` for random weights).
        preprocessing: size, interpolation and normalisation, or templates, in words.
        dtype: the floating-point type used.
    """

    model: str
    weights: str
    preprocessing: str
    dtype: str

    @property
    def key(self) -> str:
        """32 hexadecimal digits that identify it in caches."""
        return hash_text(self.model, self.weights, self.preprocessing, self.dtype)


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """Facts about an image-text encoder; stored in every index made with it.

    Attributes:
        spec: the value of `--encoder` that names it.
        image: identity of the image side.
        text: identity of the text side.
        dim: width of both sides.
        logit_scale: factor on the cosine before a softmax.
        presence_threshold: lowest raw cosine of a fused point at which a prompt counts as present.
        knows_attributes: whether words for colour, size or material change its text vectors in ways that images match.
    """

    spec: str
    image: Identity
    text: Identity
    dim: int
    logit_scale: float
    presence_threshold: float
    knows_attributes: bool

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EncoderCard:
        """The card that `to_json` wrote."""
        fields = dict(data)
        return cls(**{**fields, "image": Identity(**fields["image"]), "text": Identity(**fields["text"])})


NO_IMAGE = Identity("none", "none", "none", "none")
"""The image side of a text-only encoder."""


@runtime_checkable
class TextEncoder(Protocol):
    """Encodes prompts as unit vectors: the side of an encoder that queries need."""

    @property
    def card(self) -> EncoderCard: ...

    def encode_text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """Unit vectors of prompts, templates included."""
        ...

    def num_tokens_lost(self, prompt: str) -> int:
        """The number of tokens of the prompt beyond the text side's limit (0: it is read whole)."""
        ...


@runtime_checkable
class ImageTextEncoder(TextEncoder, Protocol):
    """A dual encoder: encodes image crops and prompts as unit vectors in one space."""

    def encode_crops(self, crops: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of square RGB crops; the encoder resizes and normalises them. fp32, on its device."""
        ...


@runtime_checkable
class DenseEncoder(TextEncoder, Protocol):
    """A dual encoder that produces one vector per image patch.

    Attributes:
        window: (height, width) in pixels of its input images.
        patch: (height, width) in pixels of a patch.
    """

    @property
    def window(self) -> tuple[int, int]: ...

    @property
    def patch(self) -> tuple[int, int]: ...

    def encode_windows(self, windows: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw d"]:
        """Unit vectors of every patch of RGB windows of its size. fp32, on its device."""
        ...


@runtime_checkable
class PatchEncoder(Protocol):
    """A self-supervised encoder of image patches (DINO), without text."""

    @property
    def identity(self) -> Identity: ...

    @property
    def dim(self) -> int: ...

    def encode_patches(self, image: UInt8[Tensor, "3 h w"], grid: tuple[int, int]) -> Float[Tensor, "gh gw d"]:
        """Unit tokens of the image resized to a grid of `gh` x `gw` patches."""
        ...
