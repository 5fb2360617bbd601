"""Labelling a scan with a run's 3D network: no photographs, any size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common.asking.ask import text_vector
from ov3d.common.asking.corruption_note import corruption_note
from ov3d.common.base.errors import UsageError, did_you_mean
from ov3d.common.base.progress import Progress, Silent
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float32, UInt8, UInt16
from ov3d.common.language.text_cache import TextCache, clean_prompt, encode_prompts
from ov3d.common.scenes.upright import upright
from ov3d.common.sparse.tiles import voxels_of
from ov3d.points.network import PointNetwork, load_network
from ov3d.points.scan import NO_LABEL, Scan, read_scan, write_labelled
from ov3d.points.tiles import score_voxels, tile_cosines
from ov3d.points.turns import Pose, poses

if TYPE_CHECKING:
    import torch

    from ov3d.common.language.cards import TextEncoder


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What the network says of a scan.

    Attributes:
        labels: a number into the prompts for each point of the file, `NO_LABEL` for none.
        scores: raw cosine of the best prompt, 0 for points that are not finite.
        num_voxels, num_tiles: what the network saw.
    """

    labels: UInt16[Array, " n"]
    scores: Float32[Array, " n"]
    num_voxels: int
    num_tiles: int


@dataclass(frozen=True, slots=True)
class Words:
    """What a scan is asked for.

    Attributes:
        prompts: in the order of the labels' numbers.
        outside: those that the network was not trained with.
        whole: whether they are its whole vocabulary: then each point is one of them, and no threshold is needed.
    """

    prompts: tuple[str, ...]
    outside: tuple[str, ...] = ()
    whole: bool = False


def predict_scan(
    run: Run,
    scan_path: Path,
    output: Path,
    *,
    classes: Sequence[str] = (),
    prompts: Sequence[str] = (),
    threshold: float | None = None,
    turns: int = 1,
    seed: int = 0,
    layout: str | None = None,
    scale: float | None = None,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label a scan and write it; what `ov3d predict` does.

    Args:
        run: with a finished 3D network.
        scan_path: a cloud's file, or a scene that has a cloud.
        output: the PLY to write.
        classes: names of the network's vocabulary; with no prompts either, all of it.
        prompts: any words instead.
        threshold: raw cosine below which a point gets no label; none takes the network's own, but where the whole vocabulary
            is asked for every point gets one.
        turns: how many copies of the scan, turned as in training and moved among the voxels, are averaged; one is the scan
            itself.
        seed: of the copies.
        layout: how a scene is stored; none detects it.
        scale: metres a unit of the file.
        device: where the network runs.
        progress: hears how far it is, and what is to be known.

    Returns:
        What was done, JSON-able: points by class, seconds, voxels, tiles, notes.

    Raises:
        UsageError: classes and prompts together, an unknown class, an impossible threshold, an output that is no PLY, a run
            without a network.
        DataError: the scan cannot be read, or has no point.
    """
    listener: Progress = progress or Silent()
    start = time.perf_counter()
    _check(scan_path, output, threshold, turns)
    network = network_of(run, device)
    words = words_of(network, classes, prompts)
    scan = read_scan(scan_path, layout=layout, scale=scale)
    notes = _notes(run, network, scan, words)
    for note in notes:
        listener.say(f"Note: {note}.")
    text = _text_vectors(network, words, str(device), listener)
    if threshold is None and not words.whole:
        threshold = network.threshold
    labelled = label_scan(network, scan, text, threshold=threshold, turns=turns, seed=seed, progress=listener)
    comments = [f"labelled by {run.path.name}, encoder {network.card.spec}"]
    write_labelled(output, scan, labelled.labels, labelled.scores, words.prompts, comments)
    counts = np.bincount(labelled.labels, minlength=NO_LABEL + 1)
    return {
        "run": str(run.path),
        "scan": str(scan_path),
        "output": str(output),
        "encoder": network.card.spec,
        "threshold": threshold,
        "turns": turns,
        "points": len(scan),
        "not_finite": scan.num_dropped,
        "unlabelled": int(counts[NO_LABEL]),
        "classes": {name: int(counts[number]) for number, name in enumerate(words.prompts)},
        "weakly_supervised": list(words.outside),
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
        raise UsageError(f"Run {run.path} is of the backend {backend}, which labels no new scans.", train)
    if "guide" not in stages:
        raise UsageError(f"Run {run.path} has no 3D network (its stages: {', '.join(stages)}; missing: guide).", train)
    return load_network(run.path, device)


def words_of(network: PointNetwork, classes: Sequence[str], prompts: Sequence[str]) -> Words:
    """What to ask for, from what the user typed.

    Raises:
        UsageError: both were typed, a class is unknown, something is named twice or empty.
    """
    if classes and prompts:
        raise UsageError("--classes and --prompts exclude each other.", "Give known classes as prompts, too.")
    known = {name.casefold(): name for name in network.vocabulary}
    if not classes and not prompts:
        if not known:
            raise UsageError("The run's network has no vocabulary of its own.", "Say what to look for: --prompts a,b")
        return Words(network.vocabulary, whole=True)
    asked = tuple(known.get(clean_prompt(name).casefold(), clean_prompt(name)) for name in (*classes, *prompts))
    for number, name in enumerate(asked):
        if name in asked[:number]:
            raise UsageError(f"{name!r} is named twice.", "Take one of them out.")
        if classes and name.casefold() not in known:
            hint = f"{did_you_mean(name, network.vocabulary)} Any other words: --prompts"
            raise UsageError(f"{name!r} is no class of this run.", hint)
    if len(asked) >= NO_LABEL:
        raise UsageError(f"{len(asked):,} prompts are more than labels of 16 bits can number.", "Ask for fewer.")
    outside = tuple(name for name in asked if name.casefold() not in known)
    return Words(asked, outside, whole=not outside and len(asked) == len(known))


def label_scan(
    network: PointNetwork,
    scan: Scan,
    text: Float32[Array, "k d"],
    *,
    threshold: float | None = None,
    turns: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Labelled:
    """The best of some texts for every point of a scan.

    Args:
        network: its voxels decide what a point is.
        scan: from `read_scan`.
        text: unit vectors.
        threshold: raw cosine below which a point gets no label; none gives every finite point one.
        turns, seed: as in `predict_scan`; more than one keep a score a point and text in memory.
        progress: hears how far it is.
    """
    listener: Progress = progress or Silent()
    xyz = upright(scan.xyz, scan.up)
    if turns == 1:
        voxels = voxels_of(xyz, scan.rgb, network.voxel_size, coarsest=1 << len(network.spec.down))
        best, score, num_tiles = score_voxels(network, voxels, text, progress=listener)
        num_voxels, best, score = len(voxels), best[voxels.of_point], score[voxels.of_point]
    else:
        mean, num_voxels, num_tiles = _averaged(
            network,
            xyz,
            scan.rgb,
            text,
            poses(turns, network.spec.turn, seed),
            progress=listener,
        )
        best, score = mean.argmax(axis=1).astype(np.int32), mean.max(axis=1)
    given = best.astype(np.uint16)
    if threshold is not None:
        given[score < threshold] = NO_LABEL
    labels, scores = np.full(len(scan), NO_LABEL, np.uint16), np.zeros(len(scan), np.float32)
    labels[scan.finite], scores[scan.finite] = given, score
    return Labelled(labels, scores, num_voxels, num_tiles)


def _averaged(
    network: PointNetwork,
    xyz: Float32[Array, "m 3"],
    rgb: UInt8[Array, "m 3"] | None,
    text: Float32[Array, "k d"],
    copies: Sequence[Pose],
    *,
    progress: Progress,
) -> tuple[Float32[Array, "m k"], int, int]:
    """Mean cosines of points over turned copies, and how many voxels and tiles there were in all."""
    total = np.zeros((len(xyz), len(text)), np.float32)
    num_voxels = num_tiles = 0
    for pose in copies:
        moved = pose.of(xyz, network.voxel_size)
        voxels = voxels_of(moved, rgb, network.voxel_size, coarsest=1 << len(network.spec.down))
        cosines = np.empty((len(voxels), len(text)), np.float32)
        for rows, values in tile_cosines(network, voxels, text, progress=progress):
            cosines[rows] = values
            num_tiles += 1
        total += cosines[voxels.of_point]
        num_voxels += len(voxels)
    return total / np.float32(len(copies)), num_voxels, num_tiles


def peak_bytes() -> int | None:
    """The largest resident size of this process so far; none where the system does not say."""
    import sys

    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _check(scan_path: Path, output: Path, threshold: float | None, turns: int) -> None:
    if turns < 1:
        raise UsageError(f"{turns} turns of a scan cannot be averaged.", "One is the scan itself: --turns 1")
    if output.suffix.lower() != ".ply":
        raise UsageError(
            f"{output} is no name of a PLY, the one format that is written.", "For example: -o labelled.ply"
        )
    if scan_path.exists() and output.exists() and scan_path.samefile(output):
        raise UsageError(f"{output} is the scan itself.", "Give another name with -o.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"Threshold {threshold:g} is no cosine.", "Give a number between -1 and 1.")


def _text_vectors(network: PointNetwork, words: Words, device: str, progress: Progress) -> Float32[Array, "k d"]:
    """Classes as they were trained with, other words as `ov3d query` takes them."""
    card = network.card

    def make_encoder() -> TextEncoder:
        from ov3d.common.base.device import pick_device
        from ov3d.common.encoders import create_text_encoder

        return create_text_encoder(card.spec, device=pick_device(device))

    cache = TextCache(say=progress.say)
    vectors = np.empty((len(words.prompts), card.dim), np.float32)
    trained = [number for number, name in enumerate(words.prompts) if name not in words.outside]
    if trained:
        names = [words.prompts[number] for number in trained]
        vectors[trained] = encode_prompts(card, names, cache, make_encoder, say=progress.say)
    for number, name in enumerate(words.prompts):
        if name in words.outside:
            vectors[number], ignored = text_vector(card, name, device=device, say=progress.say)
            if ignored:
                progress.say(f"Ignored, the encoder {card.spec} cannot see it: {', '.join(ignored)}.")
    return vectors


def _notes(run: Run, network: PointNetwork, scan: Scan, words: Words) -> list[str]:
    notes = list(scan.notes)
    if scan.num_dropped:
        notes.append(f"{scan.num_dropped:,} of {len(scan):,} points are not finite: they get no label")
    if scan.rgb is None:
        notes.append("the scan has no colours, which the network was trained with: expect worse labels")
    if words.outside:
        listed = ", ".join(words.outside)
        notes.append(f"outside the training vocabulary, so weakly supervised: {listed}")
    extent = float(np.ptp(scan.xyz, axis=0).max())
    if len(scan.xyz) > 1 and extent < 10 * network.voxel_size:
        notes.append(f"the scan is {extent:.3g} m across, no more than a few voxels: is it in metres? (--scale)")
    corrupted = (corruption_note(facts) for facts in run.manifest.get("facts", {}).values())
    return [*notes, *[note for note in corrupted if note][:1]]
