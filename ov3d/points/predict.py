"""Labelling a scan with a run's 3D network: no photographs, any size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common.asking.corruption_note import corruption_note
from ov3d.common.asking.words import NO_LABEL, Words, word_vectors, words_of
from ov3d.common.base.device import peak_bytes
from ov3d.common.base.errors import UsageError
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float32, UInt8, UInt16
from ov3d.common.exporters.labelled import write_labelled
from ov3d.common.learning.prediction_request import PredictRequest
from ov3d.common.readers.scan import Scan, read_scan
from ov3d.common.scenes.upright import upright
from ov3d.common.sparse.tiles import Voxels, voxels_of
from ov3d.points.ensemble import FusedScores, fused_scores, takes_fused
from ov3d.points.network import PointNetwork, load_network
from ov3d.points.tiles import score_voxels, tile_cosines
from ov3d.points.turns import Pose, poses

if TYPE_CHECKING:
    import torch


MAX_TURNS = 360
"""More copies of a scan than this change nothing but the time they take."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labels of a scan's points.

    Attributes:
        labels: number of the prompt for each point of the file, `NO_LABEL` for points without one.
        scores: raw cosine of the best prompt, 0 for points that are not finite.
        num_voxels, num_tiles: what the network saw.
        num_fused: points labelled from photographs.
    """

    labels: UInt16[Array, " n"]
    scores: Float32[Array, " n"]
    num_voxels: int
    num_tiles: int
    num_fused: int = 0


def predict_scan(
    run: Run,
    scan_path: Path,
    output: Path,
    request: PredictRequest = PredictRequest(),
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label a scan and write it; what `ov3d predict` does.

    Args:
        run: with a finished 3D network.
        scan_path: a cloud's file, or a scene that has a cloud.
        output: the PLY to write.
        request: what to look for, and how.
        device: where the network runs.
        progress: receives progress, and notes on the scan.

    Returns:
        What was done, JSON-able: points by class, seconds, voxels, tiles, notes.

    Raises:
        UsageError: the request contradicts itself or the run, the run has no network, the output is not a PLY, or an ensemble
            has no photographs.
        DataError: the scan cannot be read, or has no point.
    """
    listener: Progress = progress or Silent()
    start = time.perf_counter()
    _check(scan_path, output, request)
    network = network_of(run, device)
    words = words_of(network.vocabulary, request.classes, request.prompts)
    scan = read_scan(scan_path, layout=request.layout, scale=request.scale)
    notes = _notes(run, network, scan, words)
    for note in notes:
        listener.say(f"Note: {note}.")
    text = word_vectors(network.card, words, device=str(device), say=listener.say)
    threshold = network.threshold if request.threshold is None and not words.whole else request.threshold
    fused = fused_scores(run, scan, text, device=device, progress=listener) if request.ensemble else None
    copies = poses(request.turns, network.spec.turn, request.seed)
    labelled = label_scan(network, scan, text, threshold=threshold, copies=copies, fused=fused, progress=listener)
    comments = [f"labelled by {run.path.name}, encoder {network.card.spec}"]
    write_labelled(output, scan, labelled.labels, labelled.scores, words.prompts, comments)
    return {
        "run": str(run.path),
        "scan": str(scan_path),
        "output": str(output),
        "encoder": network.card.spec,
        "threshold": threshold,
        "turns": request.turns,
        **_counted(scan, labelled, words),
        "weakly_supervised": list(words.outside),
        **({"from_photographs": labelled.num_fused} if request.ensemble else {}),
        "voxels": labelled.num_voxels,
        "tiles": labelled.num_tiles,
        "notes": notes,
        "seconds": round(time.perf_counter() - start, 3),
        "peak_bytes": peak_bytes(),
    }


def network_of(run: Run, device: torch.device) -> PointNetwork:
    """The 3D network of a run.

    Raises:
        UsageError: another backend made the run, or it stopped before the stage that trains a network.
    """
    backend, stages = run.manifest.get("backend"), run.manifest.get("stages", [])
    train = "Train one: ov3d train points ROOMS --preset cpu"
    if backend != "points":
        raise UsageError(f"Run {run.path} was made by the backend {backend}, which cannot label new scans.", train)
    if "guide" not in stages:
        raise UsageError(f"Run {run.path} has no 3D network (its stages: {', '.join(stages)}; missing: guide).", train)
    return load_network(run.path, device)


def label_scan(
    network: PointNetwork,
    scan: Scan,
    text: Float32[Array, "k d"],
    *,
    threshold: float | None = None,
    copies: Sequence[Pose] = (Pose(),),
    fused: FusedScores | None = None,
    progress: Progress | None = None,
) -> Labelled:
    """The best of some texts for every point of a scan.

    Args:
        network: all points of a voxel get the same answer.
        scan: from `read_scan`.
        text: unit vectors.
        threshold: raw cosine below which a point gets no label; without one every finite point has a label.
        copies: poses of the scan's copies whose scores are averaged; more than one needs a score per point and text in memory,
            as does `fused`.
        fused: scores of the finite points from photographs, used where they are higher than the network's.
        progress: receives progress.
    """
    listener: Progress = progress or Silent()
    xyz = upright(scan.xyz, scan.up)
    num_fused = 0
    if len(copies) == 1 and fused is None:
        voxels = _voxels(network, xyz, scan.rgb, copies[0])
        best, score, num_tiles = score_voxels(network, voxels, text, progress=listener)
        num_voxels, best, score = len(voxels), best[voxels.of_point], score[voxels.of_point]
    else:
        cosines, num_voxels, num_tiles = _averaged(network, xyz, scan.rgb, text, copies, progress=listener)
        if fused is not None:
            taken = takes_fused(fused.scores, cosines, fused.seen)
            cosines[taken] = fused.scores[taken]
            num_fused = int(taken.sum())
        best, score = cosines.argmax(axis=1).astype(np.int32), cosines.max(axis=1)
    given = best.astype(np.uint16)
    if threshold is not None:
        given[score < threshold] = NO_LABEL
    labels, scores = np.full(len(scan), NO_LABEL, np.uint16), np.zeros(len(scan), np.float32)
    labels[scan.finite], scores[scan.finite] = given, score
    return Labelled(labels, scores, num_voxels, num_tiles, num_fused)


def _averaged(
    network: PointNetwork,
    xyz: Float32[Array, "m 3"],
    rgb: UInt8[Array, "m 3"] | None,
    text: Float32[Array, "k d"],
    copies: Sequence[Pose],
    *,
    progress: Progress,
) -> tuple[Float32[Array, "m k"], int, int]:
    """Mean cosines of points over turned copies, and the total number of voxels and tiles."""
    total = np.zeros((len(xyz), len(text)), np.float32)
    num_voxels = num_tiles = 0
    for pose in copies:
        voxels = _voxels(network, xyz, rgb, pose)
        cosines = np.empty((len(voxels), len(text)), np.float32)
        for rows, values in tile_cosines(network, voxels, text, progress=progress):
            cosines[rows] = values
            num_tiles += 1
        total += cosines[voxels.of_point]
        num_voxels += len(voxels)
    return total / np.float32(len(copies)), num_voxels, num_tiles


def _voxels(network: PointNetwork, xyz: Float32[Array, "m 3"], rgb: UInt8[Array, "m 3"] | None, pose: Pose) -> Voxels:
    """The network's voxels of a copy of the points."""
    moved = pose.of(xyz, network.voxel_size)
    return voxels_of(moved, rgb, network.voxel_size, coarsest=1 << len(network.spec.down))


def _counted(scan: Scan, labelled: Labelled, words: Words) -> dict[str, Any]:
    """The number of points, of points per label, and of points without a label."""
    counts = np.bincount(labelled.labels, minlength=NO_LABEL + 1)
    classes = {name: int(counts[number]) for number, name in enumerate(words.prompts)}
    known = {"points": len(scan), "not_finite": scan.num_dropped}
    return {**known, "unlabelled": int(counts[NO_LABEL]), "classes": classes}


def _check(scan_path: Path, output: Path, request: PredictRequest) -> None:
    threshold = request.threshold
    if not 1 <= request.turns <= MAX_TURNS:
        raise UsageError(f"--turns must be between 1 and {MAX_TURNS}, got {request.turns}.", "1 is the scan itself.")
    if output.suffix.lower() != ".ply":
        raise UsageError(f"Output must end in .ply, got {output}.", "For example: -o labelled.ply")
    if scan_path.exists() and output.exists() and scan_path.samefile(output):
        raise UsageError(f"Output {output} would overwrite the scan.", "Choose another name with -o.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"--threshold must be between -1 and 1, got {threshold:g}.", "Scores are cosines.")


def _notes(run: Run, network: PointNetwork, scan: Scan, words: Words) -> list[str]:
    notes = list(scan.notes)
    if scan.num_dropped:
        notes.append(f"{scan.num_dropped:,} of {len(scan):,} points are not finite and get no label")
    if scan.rgb is None:
        notes.append("the scan has no colours, which the network was trained with: expect worse labels")
    if words.outside:
        listed = ", ".join(words.outside)
        notes.append(f"outside the training vocabulary, so weakly supervised: {listed}")
    extent = float(np.ptp(scan.xyz, axis=0).max())
    if len(scan.xyz) > 1 and extent < 10 * network.voxel_size:
        notes.append(f"the scan is only {extent:.3g} m across, a few voxels: is it in metres? (--scale)")
    corrupted = (corruption_note(facts) for facts in run.manifest.get("facts", {}).values())
    return [*notes, *[note for note in corrupted if note][:1]]
