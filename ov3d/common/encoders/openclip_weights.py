"""The model that an `openclip:` spec names, and its weights.

    openclip:MODEL/TAG            a pretrained tag of open_clip, from its local caches or downloaded
    openclip:MODEL/PATH           a checkpoint: .safetensors, or a .pt or .bin that torch loads with weights_only
    openclip:local-dir:FOLDER     a folder with open_clip_config.json and a checkpoint
    openclip:hf-hub:OWNER/NAME    a repository of the Hugging Face hub with the same two, cached or downloaded
    openclip:MODEL/random:SEED    seeded random weights, for tests

A tag that is neither cached nor downloadable is an error with the reason. No other weights are ever used instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov3d.common.base.errors import DataError, MissingModelError, UsageError, did_you_mean

OFFLINE_HINT = "Use --encoder offline, which needs no download, or replace the tag with the path of a checkpoint."
LOCAL_DIR = "local-dir:"
HF_HUB = "hf-hub:"
CONFIG_NAME = "open_clip_config.json"
_RANDOM = "random:"
_CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz")
_CONNECT_SECONDS = 4.0
_TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True, slots=True)
class OpenClipSpec:
    """The parts of a spec.

    Attributes:
        model: an architecture of open_clip, `local-dir:FOLDER` or `hf-hub:OWNER/NAME`.
        tag: a pretrained tag.
        path: a checkpoint, or the folder.
        seed: seed of random weights.
        hub: OWNER/NAME of a repository of the hub.
    """

    model: str
    tag: str | None = None
    path: Path | None = None
    seed: int | None = None
    hub: str | None = None

    @property
    def spec(self) -> str:
        """The spec that works from any folder."""
        if self.model.startswith(LOCAL_DIR):
            return f"openclip:{LOCAL_DIR}{self.path}"
        if self.hub is not None:
            return f"openclip:{self.model}"
        return f"openclip:{self.model}/{self.path or self.tag or f'{_RANDOM}{self.seed}'}"


def parse_openclip(rest: str, open_clip: Any) -> OpenClipSpec:
    """Parse the spec after `openclip:`.

    Raises:
        UsageError: no such model or tag; the message suggests the nearest.
        DataError: a path does not exist.
    """
    if rest.startswith(LOCAL_DIR):
        folder = Path(rest.removeprefix(LOCAL_DIR)).expanduser().resolve()
        if not (folder / CONFIG_NAME).is_file():
            raise DataError(f"No {CONFIG_NAME} in {folder}.", "Name a folder saved by open_clip.")
        return OpenClipSpec(f"{LOCAL_DIR}{folder}", path=folder)
    if rest.startswith(HF_HUB):
        hub = rest.removeprefix(HF_HUB)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub):
            raise UsageError(f"openclip:{rest} names no repository.", "Write openclip:hf-hub:OWNER/NAME.")
        return OpenClipSpec(rest, hub=hub)
    model, _, weights = rest.partition("/")
    models = open_clip.list_models()
    if model not in models:
        close = did_you_mean(model, models) if model else ""
        hint = close if close.startswith("Did") else "Name one as in openclip:ViT-B-16/openai."
        raise UsageError(f"open_clip has no model {model!r}.", hint)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not weights:
        raise UsageError(f"openclip:{model} names no weights.", f"Add one of its tags: {_some(model, tags)}.")
    if weights.startswith(_RANDOM):
        return OpenClipSpec(model, seed=_seed(weights))
    if weights.casefold() in (tag.casefold() for tag in tags):
        return OpenClipSpec(model, tag=next(tag for tag in tags if tag.casefold() == weights.casefold()))
    path = Path(weights).expanduser()
    if path.is_file():
        return OpenClipSpec(model, path=path.resolve())
    if "/" in weights or path.suffix in _CHECKPOINT_SUFFIXES:
        raise DataError(f"No checkpoint {path}.", "Check the path.")
    raise UsageError(f"open_clip's {model} has no weights {weights!r}.", did_you_mean(weights, tags))


def find_weights(spec: OpenClipSpec, open_clip: Any) -> Path:
    """The checkpoint that a spec names, downloaded if necessary.

    Raises:
        MissingModelError: the weights of a tag are neither cached nor downloadable, with the reason.
        DataError: a folder without a checkpoint.
    """
    if spec.path is not None and spec.path.is_dir():
        found = sorted(file for file in spec.path.iterdir() if file.suffix in _CHECKPOINT_SUFFIXES)
        found.sort(key=lambda file: file.suffix != ".safetensors")
        if not found:
            raise DataError(f"No checkpoint in {spec.path}.", f"Known endings: {', '.join(_CHECKPOINT_SUFFIXES)}.")
        return found[0]
    if spec.path is not None:
        return spec.path
    if spec.hub is not None:
        return _from_hub(spec, open_clip)
    config = open_clip.get_pretrained_cfg(spec.model, spec.tag)
    cached = _cached(config)
    if cached is not None:
        return cached
    reason = why_no_download(config)
    if reason:
        raise _not_here(spec, reason)
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # hub clients raise many types
        raise _not_here(spec, first_line(error)) from error


def why_no_download(config: dict[str, Any]) -> str:
    """Why a download cannot work, or empty. Takes seconds, whereas clients would retry for minutes."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").casefold() in _TRUE:
            return f"{variable} forbids downloads"
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return ""  # only the proxy can tell
    host = "huggingface.co" if config.get("hf_hub") else str(config.get("url", "")).split("/")[2:3]
    host = os.environ.get("HF_ENDPOINT", host).split("//")[-1].split("/")[0] if isinstance(host, str) else host[0]
    name, _, port = host.partition(":")
    try:
        socket.create_connection((name, int(port or 443)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"{name} cannot be reached ({first_line(error)})"
    return ""


@contextlib.contextmanager
def hub_from_cache(hub: str | None) -> Iterator[str]:
    """Restrict hub clients in the block to their caches if a download cannot work; yields the reason, or empty.

    Args:
        hub: the repository that the block may need; None does nothing.
    """
    reason = why_no_download({"hf_hub": hub}) if hub else ""
    if not reason:
        yield ""
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def _cached(config: dict[str, Any]) -> Path | None:
    """The checkpoint of a tag in open_clip's cache, without using the network."""
    if config.get("file"):
        return Path(config["file"])
    if hub := config.get("hf_hub"):
        repository, filename = os.path.split(hub)
        with contextlib.suppress(ImportError):
            from huggingface_hub import try_to_load_from_cache

            names = [filename] if filename else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
            names = [str(Path(name).with_suffix(".safetensors")) for name in names] + names
            for name in names:
                found = try_to_load_from_cache(repository, name)
                if isinstance(found, str):
                    return Path(found)
    elif url := config.get("url"):
        kept = Path("~/.cache/clip").expanduser() / url.rpartition("/")[2]
        if kept.is_file():
            return kept
    return None


def _from_hub(spec: OpenClipSpec, open_clip: Any) -> Path:
    """The weights of a repository; its configuration is then in the cache as well."""
    from huggingface_hub import try_to_load_from_cache

    assert spec.hub is not None
    weights = _cached({"hf_hub": f"{spec.hub}/"})
    if weights is not None and isinstance(try_to_load_from_cache(spec.hub, CONFIG_NAME), str):
        return weights
    reason = why_no_download({"hf_hub": spec.hub})
    if reason:
        raise _not_here(spec, reason)
    download = open_clip.pretrained.download_pretrained_from_hf
    try:
        download(spec.hub, filename=CONFIG_NAME)
        return Path(download(spec.hub))
    except Exception as error:  # hub clients raise many types
        raise _not_here(spec, first_line(error)) from error


def _not_here(spec: OpenClipSpec, reason: str) -> MissingModelError:
    return MissingModelError(f"The weights of {spec.spec} are not on this machine, and {reason}.", OFFLINE_HINT)


def _seed(weights: str) -> int:
    text = weights.removeprefix(_RANDOM)
    if not text.isdigit():
        raise UsageError(f"The seed of random weights must be an integer, got {text!r}.", "Write random:0.")
    return int(text)


def _some(model: str, tags: list[str]) -> str:
    return ", ".join(tags[:8]) if tags else f"{model} has no tags; give the path of a checkpoint"


def first_line(error: Exception) -> str:
    """An exception's reason, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
