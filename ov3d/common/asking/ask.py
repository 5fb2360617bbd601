"""Asking a run: its index, the prompt's vector, the answer. What `ov3d query` does, for programs.

Nothing here imports torch while the prompt is in the text cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ov3d.common.asking.answer import Answer, ask
from ov3d.common.asking.index import LanguageIndex, read_index
from ov3d.common.base.errors import UsageError, did_you_mean
from ov3d.common.language.text_cache import TextCache, clean_prompt, encode_prompts

if TYPE_CHECKING:
    from pathlib import Path

    from ov3d.common.base.runs import Run
    from ov3d.common.base.shapes import Array, Float32
    from ov3d.common.language.cards import EncoderCard, TextEncoder


def index_path(run: Run, scene: str | None = None) -> Path:
    """The index of a scene of a run, or of its only one.

    Raises:
        UsageError: the run has several scenes and none was named, or it has no such scene.
    """
    names = sorted(run.indexes)
    if scene is None and len(names) != 1:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise UsageError(f"Run {run.path} has {len(names)} scenes: {listed}.", "Choose one: --scene NAME")
    name = names[0] if scene is None else scene
    if name not in run.indexes:
        raise UsageError(f"Run {run.path} has no scene {name!r}.", did_you_mean(name, names))
    return run.indexes[name]


def ask_run(
    run: Run,
    prompt: str,
    *,
    scene: str | None = None,
    threshold: float | None = None,
    top: int = 5,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Answer:
    """Ask a run for something; raises as `index_path`, `clean_prompt` and `ask` do.

    Args:
        run: from `ov3d.common.base.runs.find_run`.
        prompt: what to find.
        scene: which scene of the run; may be left out where there is one.
        threshold: raw cosine from which something counts as present; none takes the encoder's own.
        top: how many objects to give at most.
        device: where the text encoder runs if the prompt was never asked before.
        say: hears what the text cache has to say.
    """
    return ask_index(read_index(index_path(run, scene)), prompt, threshold=threshold, top=top, device=device, say=say)


def ask_index(
    index: LanguageIndex,
    prompt: str,
    *,
    threshold: float | None = None,
    top: int = 5,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Answer:
    """Ask an index that was read already; see `ask_run`."""
    prompt = clean_prompt(prompt)
    text, ignored = text_vector(index.encoder, prompt, device=device, say=say)
    return ask(index, prompt, text, threshold=threshold, top=top, ignored_words=ignored)


def text_vector(
    card: EncoderCard, prompt: str, *, device: str = "auto", say: Callable[[str], None] = lambda line: None
) -> tuple[Float32[Array, " d"], tuple[str, ...]]:
    """The prompt's unit vector, and the words of it that the encoder cannot see."""
    kept: str = prompt
    ignored: tuple[str, ...] = ()
    if not card.knows_attributes:
        from ov3d.common.language.attributes import split_attributes

        kept, ignored = split_attributes(prompt)

    def make_encoder() -> TextEncoder:
        from ov3d.common.base.device import pick_device
        from ov3d.common.encoders import create_text_encoder

        return create_text_encoder(card.spec, device=pick_device(device))

    return encode_prompts(card, [kept], TextCache(say=say), make_encoder, say=say)[0], ignored
