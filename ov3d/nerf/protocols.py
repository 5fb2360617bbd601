"""The published protocols on masks of views, for a trained field and for its 2D teacher in the same pixels.

`3d-ovs` (Liu et al., NeurIPS 2023): every class of the scene in every annotated view, at an eighth of the size; a pixel takes
the best class. Annotated views count even if used in training, as in the reference; a note says how many were.

`langsplat` (Qin et al., CVPR 2024): one mask per query, at the annotation's size. With LERF's relevancy R against negatives,

    R' = (R + box(R)) / 2,      box: the mean over 30 x 30 pixels                                                   (1)

then stretched, cut and thresholded (`mask_of_relevancy`), and each pixel takes the majority of the 7 x 7 around it. These
sizes, the threshold 0.4, the borders and the factor 10 on cosines are those of the evaluation that its authors published
(`eval/evaluate_iou_loc.py`, `eval/utils.py` and `eval/openclip_encoder.py` of LangSplat).

Counting is done by `ov3d.common.metrics.views.ViewIoU`, which also scores masks made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ov3d.common.asking.relevancy import NEGATIVE_PROMPTS, relevancy
from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float, Float32
from ov3d.common.metrics.masks import MasksTable
from ov3d.common.metrics.prompted import check_known
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.metrics.views import REDUCTION, ViewIoU, mask_of_relevancy, resized_mask
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import ClassMasks, Frame, Scene
from ov3d.common.scenes.truth import masks_of
from ov3d.nerf.bake import factorised, render_view
from ov3d.nerf.evaluate import (
    ScoredScene,
    field_scores,
    photographs,
    run_report,
    say_other_sizes,
    teacher_scores,
)
from ov3d.nerf.rays import working_camera

BOX = 30
"""Side in pixels of the box in equation (1)."""
MAJORITY = 3
"""Radius in pixels of the window of the majority."""
LERF_SCALE = 0.1
"""LERF multiplies CLIP's cosines by 10, where CLIP's own logit scale is 100."""


def evaluate_masks(
    scored: ScoredScene, protocol: str, *, classes: tuple[str, ...] = (), progress: Progress
) -> RunReport:
    """Score every annotated view of a scene.

    Args:
        scored: the scene. For `langsplat`, relevancy is rendered at its long side and enlarged.
        protocol: `3d-ovs` or `langsplat`.
        classes: queries of `langsplat`; empty means all.
        progress: receives progress.

    Raises:
        DataError: no view has labels, or a class has no mask in any.
        UsageError: a query that the scene does not know.
    """
    scene, teacher = scored.scene, scored.teacher
    frames = [frame for frame in scene.frames if frame.labels is not None]
    if not frames or not scene.classes:
        raise DataError(f"No view of {scene.name} has labels to score with.", "Give label images or masks.")
    say_other_sizes(frames, progress)
    names = _scored_classes(scene, frames, classes, progress)
    columns = [scene.classes.index(name) for name in names]
    q, triangle = factorised(scored.head)
    text = teacher.text(names if protocol == "3d-ovs" else (*names, *NEGATIVE_PROMPTS))
    queries, scale = text @ q, LERF_SCALE * teacher.card.logit_scale
    ours, theirs, rendered = ViewIoU(), ViewIoU(), {}
    with progress.task("Scoring views", len(frames)) as task:
        for frame in frames:
            assert frame.labels is not None
            camera = _eighth(frame.camera) if protocol == "3d-ovs" else working_camera(frame.camera, scored.long_side)
            view = rendered[frame.name] = render_view(scored.model, camera, frame.world_from_camera, triangle)
            shape, truth = view.distance.shape, masks_of(frame.labels, len(scene.classes))[columns]
            for metric, (scores, known) in (
                (ours, field_scores(view, queries)),
                (theirs, teacher_scores(teacher, frame, shape, text)),
            ):
                cosines = scores.reshape(*shape, len(text))
                if protocol == "3d-ovs":
                    reduced = np.stack([resized_mask(mask, shape) for mask in truth])
                    metric.update(frame.name, names, best_masks(cosines, known.reshape(shape)), reduced)
                else:
                    _score_queries(metric, frame, names, cosines, truth, scale)
            task.advance()
    where = f"{len(frames)} annotated views"
    tables = (
        MasksTable(where, ours.compute(), photographs(frames, rendered)),
        MasksTable(f"{where}, the teacher in 2D", theirs.compute()),
    )
    return run_report(scored, protocol, None, rendered, tables, _notes(protocol, frames, scored.held_out))


def best_masks(cosines: Float32[Array, "h w k"], known: Bool[Array, "h w"]) -> Bool[Array, "k h w"]:
    """The mask of each class: where it is the best one and the view has scores."""
    best = np.where(known, cosines.argmax(axis=2), -1)
    return np.asarray(best == np.arange(cosines.shape[2])[:, None, None])


def query_mask(value: Float32[Array, "a b"], shape: tuple[int, int]) -> Bool[Array, "h w"]:
    """LangSplat's mask of one query from its relevancy, at the size of the annotation."""
    from ov3d.common.exporters.view_heat import enlarged

    full = enlarged(value, shape[1], shape[0])
    return majority(mask_of_relevancy((full + box_mean(full)) / 2))


def box_mean(values: Float[Array, "h w"]) -> Float32[Array, "h w"]:
    """The mean over `BOX` x `BOX` pixels, one more before a pixel than after it; borders are mirrored."""
    padded = np.pad(values.astype(np.float64), (BOX // 2, BOX - BOX // 2 - 1), mode="reflect")
    for axis in (0, 1):
        total = np.cumsum(padded, axis=axis)
        total = np.insert(total, 0, 0, axis=axis)
        length = total.shape[axis]
        late, early = np.arange(BOX, length), np.arange(length - BOX)
        padded = (total.take(late, axis=axis) - total.take(early, axis=axis)) / BOX
    return padded.astype(np.float32)


def majority(mask: Bool[Array, "h w"]) -> Bool[Array, "h w"]:
    """Each pixel takes the value of more than half of the pixels around it, within the image.

    The last row and the last column do not vote: the published evaluation ends its windows before them.
    """
    voting = np.ones(mask.shape, np.int64)
    voting[-1], voting[:, -1] = 0, 0
    votes, voters = _window_sum(mask * voting), _window_sum(voting)
    return np.asarray(2 * votes > voters)


def _window_sum(values: Array) -> Array:
    padded = np.pad(values, MAJORITY)
    side = 2 * MAJORITY + 1
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side)).sum(axis=(2, 3))


def _score_queries(
    metric: ViewIoU,
    frame: Frame,
    names: Sequence[str],
    cosines: Float32[Array, "a b k"],
    truth: Bool[Array, "c h w"],
    scale: float,
) -> None:
    """Count a view's annotated queries; the last columns of `cosines` are the negatives'."""
    shape = cosines.shape[:2]
    flat = cosines.reshape(-1, cosines.shape[2])
    size = (truth.shape[1], truth.shape[2])
    asked = [idx for idx in range(len(names)) if truth[idx].any()]
    masks = [query_mask(relevancy(flat[:, idx], flat[:, len(names) :], scale).reshape(shape), size) for idx in asked]
    found = np.stack(masks) if masks else np.zeros((0, *size), np.bool_)
    metric.update(frame.name, [names[idx] for idx in asked], found, truth[asked], count_pixels=False)


def _eighth(camera: Camera) -> Camera:
    return camera.resized(max(1, camera.width // REDUCTION), max(1, camera.height // REDUCTION))


def _scored_classes(
    scene: Scene, frames: Sequence[Frame], classes: tuple[str, ...], progress: Progress
) -> tuple[str, ...]:
    """The classes to score.

    In a capture with one mask per class, a class without any is an error; in maps of ids it is merely absent.
    """
    check_known(scene.name, scene.classes, classes)
    wanted = classes or scene.classes
    lacking = dict.fromkeys(wanted, 0)
    present = np.zeros(len(scene.classes), np.bool_)
    for frame in frames:
        assert frame.labels is not None
        if isinstance(frame.labels, ClassMasks):
            for name in wanted:
                lacking[name] += frame.labels.paths[scene.classes.index(name)] is None
            present |= True
        else:
            present |= masks_of(frame.labels, len(scene.classes)).any(axis=(1, 2))
    for name in wanted:
        if lacking[name] == len(frames) or (classes and not present[scene.classes.index(name)]):
            raise DataError(
                f"Class {name!r} of {scene.name} has no mask in any of the {len(frames)} annotated views.",
                "Add its masks, or remove it from the class list.",
            )
    some = [name for name in wanted if lacking[name]]
    if some:
        progress.say(f"No mask in some views, treated as empty: {', '.join(some)}.")
    absent = [name for name in wanted if not present[scene.classes.index(name)]]
    if absent:
        progress.say(f"Not scored, as no view has a pixel of them: {', '.join(absent)}.")
    return tuple(name for name in wanted if name not in absent)


def _notes(protocol: str, frames: Sequence[Frame], held_out: Sequence[str]) -> tuple[str, ...]:
    learnt = sum(frame.name not in set(held_out) for frame in frames)
    notes = []
    if learnt:
        notes.append(
            f"{learnt} of {len(frames)} annotated views were used in training: photographs and features, not masks"
        )
    if protocol == "3d-ovs":
        notes.append("scored, rendered and compared with the photographs at an eighth of the size")
    return tuple(notes)
