"""Vectors of prompts, cached on disk so that repeated queries need no text encoder, only NumPy.

One file per text encoder and prompt. Files are written by renaming, so any number of processes may write the same one at
once; a damaged file counts as missing, is reported, and is written again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import CorruptFileError, DataError, NewerFormatError, StorageError
from ov3d.common.base.files import cache_root, hash_text
from ov3d.common.base.shapes import Array, Float32
from ov3d.common.base.tensor_files import read_tensors, write_tensors
from ov3d.common.language.cards import EncoderCard, Identity, TextEncoder

KIND = "text-vector"
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class CachedText:
    """One prompt's entry.

    Attributes:
        vector: the unit vector.
        tokens_lost: number of tokens of the prompt beyond the encoder's limit.
    """

    vector: Float32[Array, " d"]
    tokens_lost: int = 0


class TextCache:
    """Vectors by text identity and prompt.

    Args:
        root: the folder; None uses `text` under the cache root.
        say: receives one line for each file that is damaged or cannot be written.
    """

    def __init__(self, root: str | Path | None = None, *, say: Callable[[str], None] | None = None) -> None:
        self.root = Path(root) if root is not None else cache_root() / "text"
        self._say = say or (lambda _: None)

    def path(self, identity: Identity, prompt: str) -> Path:
        """The path of a prompt's vector."""
        return self.root / identity.key / f"{hash_text(prompt)}.safetensors"

    def get(self, identity: Identity, prompts: Sequence[str]) -> dict[str, Float32[Array, " d"]]:
        """The cached vectors, by prompt."""
        return {prompt: entry.vector for prompt, entry in self.entries(identity, prompts).items()}

    def entries(self, identity: Identity, prompts: Sequence[str]) -> dict[str, CachedText]:
        """The cached entries, by prompt."""
        found = {prompt: self._read(identity, prompt) for prompt in prompts}
        return {prompt: entry for prompt, entry in found.items() if entry is not None}

    def put(
        self,
        identity: Identity,
        vectors: Mapping[str, Float32[Array, " d"]],
        *,
        tokens_lost: Mapping[str, int] | None = None,
    ) -> None:
        """Store vectors by prompt. An unwritable cache is reported, not an error."""
        for prompt, vector in vectors.items():
            metadata = {"prompt": prompt, "tokens_lost": int((tokens_lost or {}).get(prompt, 0))}
            arrays = {"vector": np.asarray(vector, dtype=np.float32)}
            try:
                write_tensors(self.path(identity, prompt), arrays, kind=KIND, version=VERSION, metadata=metadata)
            except StorageError as error:
                self._say(f"{error.message} The prompt will be encoded again next time.")
                return

    def _read(self, identity: Identity, prompt: str) -> CachedText | None:
        path = self.path(identity, prompt)
        with contextlib.suppress(OSError):
            if not path.exists():
                return None
        try:
            file = read_tensors(path, kind=KIND, version=VERSION)
        except (CorruptFileError, DataError, NewerFormatError) as error:
            self._say(f"{error.message} Encoding the prompt again.")
            return None
        vector = file.tensors.get("vector")
        if vector is None or file.metadata.get("prompt") != prompt:  # another prompt with the same hash
            return None
        return CachedText(vector, int(file.metadata.get("tokens_lost", 0)))


def encode_prompts(
    card: EncoderCard,
    prompts: Sequence[str],
    cache: TextCache,
    make_encoder: Callable[[], TextEncoder],
    *,
    say: Callable[[str], None] | None = None,
) -> Float32[Array, "k d"]:
    """Unit vectors of prompts, from the cache if possible.

    Args:
        card: card of the encoder that the vectors must match, for example an index's.
        prompts: from `ov3d.common.asking.prompt.clean_prompt`, or equally clean names; they are not changed.
        cache: the cache to read and write.
        make_encoder: makes that encoder; called only if a prompt is not in the cache.
        say: receives one line for each prompt beyond the encoder's limit.

    Returns:
        One row per prompt, in order.

    Raises:
        DataError: the encoder's text side differs from the card's.
    """
    entries = cache.entries(card.text, prompts)
    entries = {prompt: entry for prompt, entry in entries.items() if entry.vector.shape == (card.dim,)}
    missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in entries]
    if missing:
        entries |= _encode_missing(card, missing, cache, make_encoder())
    for prompt in dict.fromkeys(prompts):
        if say and (lost := entries[prompt].tokens_lost):
            say(f"The encoder ignores the last {lost} tokens of the prompt {shortened(prompt)!r}; shorten it.")
    if not prompts:
        return np.empty((0, card.dim), np.float32)
    return np.stack([entries[prompt].vector for prompt in prompts])


def shortened(prompt: str, length: int = 60) -> str:
    """The prompt, shortened for messages."""
    return prompt if len(prompt) <= length else f"{prompt[: length - 1]}…"


def _encode_missing(
    card: EncoderCard, prompts: list[str], cache: TextCache, encoder: TextEncoder
) -> dict[str, CachedText]:
    if encoder.card.text != card.text:
        raise DataError(
            f"The index was made with a different text encoder ({card.text.model}, {card.text.key[:8]})"
            f" than {encoder.card.spec} has here ({encoder.card.text.model}, {encoder.card.text.key[:8]}).",
            "Train the scene again with this encoder, or install the ov3d version that made the index.",
        )
    vectors = dict(zip(prompts, encoder.encode_text(prompts), strict=True))
    lost = {prompt: encoder.num_tokens_lost(prompt) for prompt in prompts}
    cache.put(card.text, vectors, tokens_lost=lost)
    return {prompt: CachedText(vectors[prompt], lost[prompt]) for prompt in prompts}
