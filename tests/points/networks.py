"""Small 3D networks with weights drawn from a seed, and runs that hold one, for tests of what is done with a trained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ov3d.common.base.runs import Run, read_run, write_manifest
from ov3d.common.language.cards import NO_IMAGE, EncoderCard, Identity
from ov3d.common.language.text_cache import TextCache
from ov3d.common.learning.checkpoints import write_checkpoint
from ov3d.points.network import CHECKPOINT_NAME, GUIDE_FOLDER, NetworkSpec, PointNetwork

DIM = 16
VOCABULARY = ("wall", "floor", "chair")
TEXT = Identity("vectors in the cache", "none", "none", "float32")
CARD = EncoderCard("labels:scene@minilm", NO_IMAGE, TEXT, DIM, 10.0, 0.2, True)
SPEC = NetworkSpec(DIM, 0.05, 8, 3, (8, 12), (8, 8), 1)


def make_network(seed: int = 0, spec: NetworkSpec = SPEC, vocabulary: tuple[str, ...] = VOCABULARY) -> PointNetwork:
    """A network whose statistics have seen a few clouds, so that its answers vary."""
    torch.manual_seed(seed)
    network = PointNetwork(spec, CARD, vocabulary)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, -0.5, 1.0)
    return network.eval()


def text_vectors(*prompts: str) -> np.ndarray:
    """Unit vectors, each from its prompt alone."""
    rows = [np.random.default_rng(list(prompt.encode())).normal(size=DIM) for prompt in prompts]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def remember(*prompts: str) -> None:
    """Put prompts into the text cache, so that nobody needs an encoder."""
    TextCache().put(TEXT, dict(zip(prompts, text_vectors(*prompts), strict=True)))


def write_run(
    folder: Path,
    network: PointNetwork | None,
    *,
    backend: str = "points",
    stages: tuple[str, ...] = ("fuse", "pseudo-label", "specialise", "guide"),
) -> Run:
    """A run's folder with a manifest and, where there is one, a trained network."""
    if network is not None:
        meta = {"network": network.spec.to_json(), "card": CARD.to_json(), "vocabulary": list(network.vocabulary)}
        write_checkpoint(folder / GUIDE_FOLDER / CHECKPOINT_NAME, {"network": network}, None, meta)
    write_manifest(folder, {"backend": backend, "stages": list(stages), "scenes": [], "indexes": {}, "facts": {}})
    return read_run(folder)


def room(seed: int = 0, size: float = 4.0, count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Points on a floor, two walls and some boxes, with colours."""
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(0, size, (2, count))
    pieces = [np.column_stack([u, v, 0 * u]), np.column_stack([u[::2], 0 * u[::2], 0.6 * v[::2]])]
    pieces.append(np.column_stack([0 * u[::2], u[::2], 0.6 * v[::2]]))
    for _ in range(4):
        corner, edge = rng.uniform(0.3, size - 1, 3) * (1, 1, 0), rng.uniform(0.3, 0.7, 3)
        faces = rng.uniform(0, 1, (count // 20, 3))
        faces[np.arange(len(faces)), rng.integers(3, size=len(faces))] = rng.integers(2, size=len(faces))
        pieces.append(corner + faces * edge)
    xyz = np.concatenate(pieces).astype(np.float32)
    base = np.repeat(rng.integers(0, 256, (len(pieces), 3)), [len(piece) for piece in pieces], axis=0)
    rgb = (base + rng.integers(-30, 30, base.shape)).clip(0, 255).astype(np.uint8)
    order = rng.permutation(len(xyz))
    return xyz[order], rgb[order]
