"""Baking: what the learning stages say about a scene's points, as an index that NumPy can ask.

After `specialise` a seen point answers with A(x), after `guide` every point with the 3D network's vector of its voxel: points
of one voxel share a code. Photographs are no longer used.

Training changes the scores, so the encoder's presence threshold no longer fits. A new one is taken from the training scenes:
for each scene and trained class, the score at which an object of that class would be found,

    p = the 99.9th percentile of the scores of the class over the points of the scene                           (1)

should reach the threshold exactly where the scene's labels list the class; of all thresholds, the one that balances both
kinds of mistakes is taken, in the middle of the gap. If no scene lacks a class, the threshold is half way between the
scores of points for their own pseudo label and for the best other class, medians over points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ov3d.common.asking.index import INDEX_NAME, LanguageIndex, read_index, write_index
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Float64, Int32
from ov3d.common.language.cards import EncoderCard
from ov3d.common.lifting.lift import LiftedFeatures
from ov3d.common.scenes.scene import IGNORE
from ov3d.common.scenes.upright import upright
from ov3d.points.adapter import Affine
from ov3d.points.material import read_features
from ov3d.points.network import PointNetwork
from ov3d.points.pseudo_labels import PseudoLabels

SPECIALISED_NAME = "specialised.safetensors"
GUIDED_NAME = "guided.safetensors"
PEAK = 99.9
SPECIALISED_FACT = "specialised"
"""The fact that records whether features were specialised, which lowers the quality of prompts outside the classes."""


def specialised_features(lifted: LiftedFeatures, affine: Affine) -> Float32[Array, "v d"]:
    """A(x) of every row, at unit length."""
    matrix = affine.on_codes(lifted.basis)
    features = lifted.code.astype(np.float32) @ matrix[:-1] + matrix[-1]
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return features


def bake_specialised(
    folder: Path,
    affine: Affine,
    card: EncoderCard,
    vocabulary: tuple[str, ...],
    text: Float32[Array, "k d"],
    *,
    tolerance: float,
) -> Path:
    """Write the index of a scene's specialised features beside the fused one.

    Args:
        folder: of the scene in the run.
        affine: A.
        card: the encoder's, with a threshold that fits.
        vocabulary: the trained classes.
        text: unit vectors whose scores the index must keep.
        tolerance: largest change of a score that its basis may make.
    """
    fused, lifted = read_index(folder / INDEX_NAME), read_features(folder)
    index = LanguageIndex.of_lifted(
        replace(lifted, code=specialised_features(lifted, affine).astype(np.float16), basis=None),
        fused.to_scene(),
        card,
        backend="points/specialise",
        vocabulary=vocabulary,
        facts={**_facts(fused), SPECIALISED_FACT: True},
        probes=text,
        tolerance=tolerance,
    )
    return write_index(folder / SPECIALISED_NAME, index)


def bake_guided(folder: Path, network: PointNetwork, facts: Mapping[str, Any]) -> Path:
    """Write the index of the network's features of a scene's points, from their positions and colours alone.

    Args:
        folder: of the scene in the run.
        network: trained, with a threshold that fits.
        facts: further facts for the index.
    """
    fused = read_index(folder / INDEX_NAME)
    codes, voxel = network.codes(upright(fused.xyz, fused.world.up), fused.rgb)
    index = replace(
        fused,
        code=codes.astype(np.float16),
        basis=network.basis,
        owner=voxel.astype(np.int32),
        backend="points/guide",
        encoder=network.card,
        vocabulary=network.vocabulary,
        facts={**_facts(fused), "network_voxel": network.voxel_size, **facts},
    )
    return write_index(folder / GUIDED_NAME, index)


def network_scores(network: PointNetwork, index: LanguageIndex, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
    """The network's own scores of an index's points, at full width."""
    vectors = network.embed(upright(index.xyz, index.world.up), index.rgb)
    return (vectors @ np.asarray(text, np.float32).T).astype(np.float32)


def calibrated(card: EncoderCard, threshold: float) -> EncoderCard:
    """The card with a threshold that fits trained scores, kept a proper cosine."""
    return replace(card, presence_threshold=float(np.clip(threshold, -1.0, 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A training scene's evidence for the threshold.

    Attributes:
        peaks: p of equation (1) for each class.
        present: which classes the scene's labels list.
        own: median score of points for their own pseudo label.
        other: median of their best score for another class.
    """

    peaks: Float64[Array, " k"]
    present: Bool[Array, " k"]
    own: float
    other: float


def scored(scores: Float[Array, "n k"], pseudo: PseudoLabels, point_row: Int32[Array, " v"]) -> Scored:
    """A scene's evidence for the threshold.

    Args:
        scores: of all its points for the trained classes.
        pseudo: labels of the points that have a feature.
        point_row: which points those are.
    """
    present = np.zeros(scores.shape[1], bool)
    present[pseudo.present_idx] = True
    labelled = np.flatnonzero(pseudo.labels != IGNORE)
    labels, rows = pseudo.labels[labelled], scores[point_row[labelled]].astype(np.float32)
    own = float(np.median(rows[np.arange(len(rows)), labels])) if len(rows) else 1.0
    rows[np.arange(len(rows)), labels] = -1
    other = float(np.median(rows.max(axis=1))) if len(rows) and rows.shape[1] > 1 else -1.0
    return Scored(np.percentile(scores, PEAK, axis=0).astype(np.float64), present, own, max(other, 0.0))


def presence_threshold(scenes: Sequence[Scored]) -> float:
    """The threshold that best separates present from absent classes: of those with the least sum of the shares of missed and
    of invented classes, the middle of the widest gap."""
    values = np.concatenate([scene.peaks for scene in scenes])
    present = np.concatenate([scene.present for scene in scenes])
    if present.all():
        return float(np.mean([(scene.own + scene.other) / 2 for scene in scenes]))
    order = np.argsort(values, kind="stable")
    values, present = values[order], present[order]
    # A threshold between two neighbours misses the present classes below it and invents the absent ones above it.
    missed = np.cumsum(present)[:-1] / present.sum()
    invented = 1 - np.cumsum(~present)[:-1] / (~present).sum()
    cost = missed + invented
    gaps = np.where(cost <= cost.min() + 1e-12, np.diff(values), -1.0)
    best = int(np.argmax(gaps))
    return float((values[best] + values[best + 1]) / 2)


def _facts(fused: LanguageIndex) -> dict[str, Any]:
    """Facts of the fused index that hold for what was learnt from it."""
    return {name: value for name, value in fused.facts.items() if not name.startswith("basis_") and name != "score"}
