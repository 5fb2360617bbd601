"""The layout of the folder of feature stores: file names and kinds."""

from __future__ import annotations

from pathlib import Path

from ov3d.common.base.files import cache_root

CROPS_KIND, SEGMENTS_KIND, TOKENS_KIND = "image-crops", "image-segments", "image-tokens"
VERSION = 1
MEMO_NAME = "image-hashes.sqlite"


def default_root() -> Path:
    """`features` in ov3d's cache."""
    return cache_root() / "features"


def encoder_folder(root: Path, spec: str, image_identity: str) -> Path:
    """The folder of one encoder."""
    return root / f"{family_name(spec)}-{image_identity[:8]}"


def entry_in(folder: Path, key: str) -> Path:
    """The file of one image in its encoder's folder."""
    return folder / key[:2] / f"{key}.safetensors"


def family_name(spec: str) -> str:
    """The human-readable part of the name of an encoder's folder."""
    return "".join(c if c.isalnum() else "-" for c in spec)[:40].strip("-")
