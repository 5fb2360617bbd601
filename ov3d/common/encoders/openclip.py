"""`openclip:`: CLIP, SigLIP and similar models through open_clip: one vector per crop, and text with templates.

Text always runs in fp32, so that cached text vectors are valid on every device. Unlike the offline encoder's, the presence
thresholds below are not calibrated on fused scenes: cosines of present things differ between models and tags, so set
`--threshold` if it matters.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import DataError, MissingModelError
from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float32, UInt8
from ov3d.common.encoders.openclip_weights import (
    LOCAL_DIR,
    OFFLINE_HINT,
    OpenClipSpec,
    find_weights,
    first_line,
    hub_from_cache,
    parse_openclip,
)
from ov3d.common.encoders.pixels import resize
from ov3d.common.encoders.precision import dtype_name, pick_dtype
from ov3d.common.encoders.templates import CLIP_TEMPLATES, fill
from ov3d.common.encoders.torchvision_shim import import_torchvision
from ov3d.common.encoders.weights import sha256_of
from ov3d.common.language.cards import EncoderCard, Identity

SOFTMAX_PRESENCE_THRESHOLD = 0.24
"""For models trained with a softmax (CLIP): matching pairs score about 0.25 to 0.35, others mostly below 0.22."""

SIGMOID_PRESENCE_PROBABILITY = 0.1
"""For models trained with a sigmoid (SigLIP): the threshold is the cosine whose probability under their scale and bias is
this."""


class OpenClipEncoder:
    """Encodes whole crops and templated prompts in a model's joint space.

    Args:
        rest: the spec after `openclip:`; see openclip_weights.py.
        device: device of the encoder.
        dtype: type of the image tower; see `pick_dtype`.

    Raises:
        UsageError: no such model, tag or type.
        MissingModelError: open_clip or the weights are not on this machine.
        DataError: a checkpoint is missing, or does not fit the model.
    """

    def __init__(self, rest: str, *, device: torch.device, dtype: str = "auto") -> None:
        open_clip = import_open_clip()
        spec = parse_openclip(rest, open_clip)
        self._device, self._dtype = device, pick_dtype(dtype, device)
        if spec.hub is not None:  # the repository's configuration names the tokenizer
            find_weights(spec, open_clip)
        self._tokenizer = _tokenizer(spec, open_clip)
        model, weights = _load(spec, open_clip)
        self._model: Any = model.eval().requires_grad_(False).to(device)
        preprocess = open_clip.get_model_preprocess_cfg(self._model)
        size = preprocess["size"]
        self._size: tuple[int, int] = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self._mean = torch.tensor(preprocess["mean"], device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(preprocess["std"], device=device).view(3, 1, 1) * 255
        dim = self.encode_text(["a thing"]).shape[1]
        # Converted last: text stays fp32, and only the image tower runs in the smaller type.
        self._model.visual.to(self._dtype)
        self._card = self._make_card(spec, weights, preprocess, dim)

    @property
    def card(self) -> EncoderCard:
        """The encoder's card."""
        return self._card

    @torch.inference_mode()
    def encode_crops(self, crops: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The image tower's unit vector of each crop."""
        resized = resize(crops.to(self._device), self._size).float()
        vectors = self._model.encode_image(((resized - self._mean) / self._std).to(self._dtype))
        return F.normalize(vectors.float(), dim=-1)

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> Float32[Array, "k d"]:
        """For each prompt the normalised mean of its templates' unit vectors."""
        rows = []
        for prompt in prompts:
            tokens = self._tokenizer(fill(CLIP_TEMPLATES, prompt)).to(self._device)
            rows.append(F.normalize(self._model.encode_text(tokens).float(), dim=-1).mean(0))
        return F.normalize(torch.stack(rows), dim=-1).cpu().numpy()

    def num_tokens_lost(self, prompt: str) -> int:
        """The number of tokens of the prompt's longest templated sentence beyond the model's context."""
        sentences = fill(CLIP_TEMPLATES, prompt)
        inner = getattr(
            self._tokenizer, "tokenizer", None
        )  # Hugging Face tokenizers add start and end tokens themselves
        if inner is not None:
            lengths = [len(inner(sentence)["input_ids"]) for sentence in sentences]
        else:
            lengths = [len(self._tokenizer.encode(sentence)) + 2 for sentence in sentences]
        return max(max(lengths) - int(self._tokenizer.context_length), 0)

    def _make_card(self, spec: OpenClipSpec, weights: str, preprocess: dict[str, Any], dim: int) -> EncoderCard:
        mean, std = ([round(float(value), 5) for value in preprocess[name]] for name in ("mean", "std"))
        name = f"open_clip {spec.model}" if not spec.model.startswith(LOCAL_DIR) else "open_clip local-dir"
        image = Identity(
            model=f"{name}, image tower",
            weights=weights,
            preprocessing=f"{self._size[0]}x{self._size[1]} px, bicubic antialiased, mean {mean}, std {std}",
            dtype=dtype_name(self._dtype),
        )
        text = Identity(f"{name}, text tower", weights, f"templates {hash_text(*CLIP_TEMPLATES)[:12]}", "float32")
        scale = float(self._model.logit_scale.exp())
        return EncoderCard(spec.spec, image, text, dim, scale, self._threshold(scale), knows_attributes=True)

    def _threshold(self, scale: float) -> float:
        bias = getattr(self._model, "logit_bias", None)
        if bias is None:
            return SOFTMAX_PRESENCE_THRESHOLD
        probability = torch.tensor(SIGMOID_PRESENCE_PROBABILITY)
        return (float(torch.logit(probability)) - float(bias)) / scale


def import_open_clip() -> Any:
    """open_clip, with torchvision made importable first.

    Raises:
        MissingModelError: it is not installed, or one of its dependencies cannot be imported.
    """
    import_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise MissingModelError(f"open_clip cannot be imported: {error}.", "pip install open_clip_torch") from error
    return open_clip


def _load(spec: OpenClipSpec, open_clip: Any) -> tuple[Any, str]:
    """The model in fp32 on the CPU, and the identity of its weights."""
    if spec.seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            return _create(spec, open_clip, pretrained_text=False), f"seed:{spec.seed}"
    path = find_weights(spec, open_clip)
    options: dict[str, Any] = {"require_pretrained": True}
    if spec.hub is None and not spec.model.startswith(LOCAL_DIR):  # local folders name their file
        options["pretrained"] = str(path)
    if spec.tag is not None:
        # Given a path, open_clip does not know the activation and normalisation that a tag was trained with.
        config = open_clip.get_pretrained_cfg(spec.model, spec.tag)
        kept = ("mean", "std", "interpolation", "resize_mode")
        options["force_preprocess_cfg"] = {name: config[name] for name in kept if name in config}
        options["quick_gelu"] = bool(config.get("quick_gelu", False))
    return _create(spec, open_clip, **options), sha256_of(path)


def _create(spec: OpenClipSpec, open_clip: Any, **options: Any) -> Any:
    hub = spec.hub or _text_config(spec, open_clip).get("hf_model_name")
    with hub_from_cache(hub) as reason, _quiet():
        try:
            return open_clip.create_model(spec.model, precision="fp32", weights_only=True, **options)
        except OSError as error:
            raise _not_here(f"The text tower of {spec.spec}", reason, error) from error
        except Exception as error:  # truncated files and files of other models fail in many ways
            first = first_line(error)
            raise DataError(
                f"Cannot load the weights of {spec.spec}: {first}.", "Check the model and the file."
            ) from error


def _tokenizer(spec: OpenClipSpec, open_clip: Any) -> Any:
    hub = _text_config(spec, open_clip).get("hf_tokenizer_name") or spec.hub
    with hub_from_cache(hub) as reason, _quiet():
        try:
            return open_clip.get_tokenizer(spec.model)
        except Exception as error:  # hub clients raise many types
            raise _not_here(f"The tokenizer of {spec.spec}", reason, error) from error


def _text_config(spec: OpenClipSpec, open_clip: Any) -> dict[str, Any]:
    with hub_from_cache(spec.hub):
        config = open_clip.get_model_config(spec.model) or {}
    return dict(config.get("text_cfg", {}))


def _not_here(what: str, reason: str, error: Exception) -> MissingModelError:
    return MissingModelError(f"{what} is not on this machine, and {reason or first_line(error)}.", OFFLINE_HINT)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's log; the important messages are errors here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
