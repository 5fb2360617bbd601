"""Stage `pseudo-label`: every seen point takes the most similar of its scene's classes (PLG).

    y = argmax over the scene's classes k of f . t_k

with f the point's fused feature and t_k the text vector of the bare class name. Points without a feature have no label.

Sources: Xu et al. (3DSS-VLG), ECCV 2024, section 3.2; choosing the most confident points per class: DBGroup, AAAI 2026.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.base.errors import CorruptFileError, DataError
from ov3d.common.base.files import hash_text
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float16, Float32, Int32
from ov3d.common.base.tensor_files import read_tensors, write_tensors
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.scenes.scene import IGNORE
from ov3d.points.config import PseudoConfig

PSEUDO_NAME = "pseudo-labels.safetensors"
KIND = "pseudo-labels"
VERSION = 1

Spread = Callable[[Any], Any]
"""Labels [n] of a whole cloud, `IGNORE` for points without one, to labels of the same cloud."""


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabels:
    """Labels of the points that have a feature.

    Attributes:
        labels: the vocabulary's class number of each row of the lifted features, `IGNORE` where it was dropped.
        scores: its raw cosine.
        vocabulary: the classes that the numbers refer to.
        present: the classes that the scene's labels list.
        key: hash of everything they were made from.
    """

    labels: Int32[Array, " v"]
    scores: Float16[Array, " v"]
    vocabulary: tuple[str, ...]
    present: tuple[str, ...]
    key: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def present_idx(self) -> list[int]:
        """Numbers of the classes that the scene's labels list."""
        return [self.vocabulary.index(name) for name in self.present]

    def facts(self) -> dict[str, Any]:
        """What a manifest should know."""
        return {"present": list(self.present), "labelled": float((self.labels != IGNORE).mean()) if len(self) else 0.0}


def pseudo_label(
    lifted: LiftedFeatures,
    text: Float32[Array, "k d"],
    vocabulary: tuple[str, ...],
    present: tuple[str, ...],
    config: PseudoConfig,
    spread: Spread | None = None,
) -> PseudoLabels:
    """Label the rows of lifted features.

    Args:
        lifted: of one scene.
        text: unit vectors of the vocabulary.
        vocabulary: all classes.
        present: the scene's.
        config: which labels are kept.
        spread: spreads the labels of the whole cloud over superpoints; None leaves them.

    Raises:
        DataError: the scene has no row to label.
    """
    if not len(lifted):
        raise DataError("No point has a feature, so no point can be labelled.", "See: ov3d doctor SCENE")
    allowed = np.array([vocabulary.index(name) for name in present])
    scores = lifted.scores(text[allowed])
    best = scores.argmax(axis=1)
    labels, top = allowed[best].astype(np.int32), scores[np.arange(len(scores)), best]
    labels = keep_surest(labels, top, config.top_share)
    if spread is not None:
        labels = _spread(labels, lifted, spread)
    key = pseudo_key(lifted.key, text, vocabulary, present, config)
    return PseudoLabels(labels, top.astype(np.float16), vocabulary, present, key)


def keep_surest(labels: Int32[Array, " v"], scores: Float32[Array, " v"], share: float) -> Int32[Array, " v"]:
    """The labels of each class's best-scored share of points (rounded up), `IGNORE` for the others."""
    if share >= 1:
        return labels
    kept = np.full_like(labels, IGNORE)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = rows[np.argsort(-scores[rows], kind="stable")]
        kept[order[: max(1, int(np.ceil(share * len(rows))))]] = label
    return kept


def pseudo_key(
    lifted_key: str,
    text: Float32[Array, "k d"],
    vocabulary: tuple[str, ...],
    present: tuple[str, ...],
    config: PseudoConfig,
) -> str:
    """Hash of everything that pseudo labels are made from."""
    words = hash_text(*vocabulary, "present", *present)
    return hash_text("pseudo-labels-2", lifted_key, text.tobytes().hex(), words, config.model_dump_json())


def stored_pseudo_labels(path: Path, key: str, progress: Progress) -> PseudoLabels | None:
    """Labels with that key from a file; None if the file is missing or holds others."""
    if not path.is_file():
        return None
    try:
        found = read_pseudo_labels(path)
    except CorruptFileError as error:
        progress.say(f"{error.message} Recreating it.")
        return None
    return found if found.key == key else None


def write_pseudo_labels(path: Path, pseudo: PseudoLabels) -> Path:
    """Write pseudo labels; see docs/formats.md for the layout."""
    tensors = {"labels": pseudo.labels.astype(np.int16), "scores": pseudo.scores}
    metadata = {"vocabulary": list(pseudo.vocabulary), "present": list(pseudo.present), "key": pseudo.key}
    return write_tensors(path, tensors, kind=KIND, version=VERSION, metadata=metadata)


def read_pseudo_labels(path: Path) -> PseudoLabels:
    """Read and verify pseudo labels; raises as `tensor_files.read_tensors` does."""
    file = read_tensors(path, kind=KIND, version=VERSION)
    meta = file.metadata
    return PseudoLabels(
        file.tensors["labels"].astype(np.int32),
        file.tensors["scores"],
        tuple(meta["vocabulary"]),
        tuple(meta["present"]),
        meta["key"],
    )


def _spread(labels: Int32[Array, " v"], lifted: LiftedFeatures, spread: Spread) -> Int32[Array, " v"]:
    whole = np.full(lifted.num_points, IGNORE, np.int32)
    whole[lifted.point_row] = labels
    return spread(whole)[lifted.point_row]
