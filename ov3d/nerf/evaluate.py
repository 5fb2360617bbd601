"""How well a run labels views that it never saw, compared with how well its 2D teacher labels the same views.

Protocol `held-out`: every pixel of the held-out views takes the best of the prompted classes (all that have a true
pixel there), or `other` where even the best cosine stays below a threshold, if one is given. The teacher answers in the
same pixels, from the same photographs: the difference is what the field adds. If nothing was held out, the training
views are scored, and a note says so.

Also PSNR and SSIM of the rendered photographs (Wang et al., *Image quality assessment*, TIP 2004: windows of 11
pixels, sigma 1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import DataError
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float32, Int32, UInt8
from ov3d.common.features.crops import resized
from ov3d.common.metrics.prompted import PromptedTable, Question, check_known, true_classes
from ov3d.common.metrics.run_report import RunReport, Table
from ov3d.common.metrics.semantic import SemanticConfusion
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.scenes.truth import other_size
from ov3d.common.teachers.teacher import Teacher
from ov3d.nerf.bake import RenderedView, factorised, render_frame
from ov3d.nerf.language import FeatureHead
from ov3d.nerf.losses import psnr
from ov3d.nerf.model import Model

TEACHER_ROWS = 1 << 14
"""Pixels per request to the teacher."""
WINDOW, SIGMA = 11, 1.5


@dataclass(frozen=True, slots=True, eq=False)
class ScoredScene:
    """A trained scene with its truth and its teacher: what every protocol scores.

    Attributes:
        model, head: trained.
        scene: with labelled frames.
        teacher: with features of them.
        held_out: names of the views kept out of all losses.
        long_side: views are rendered at this long side.
    """

    model: Model
    head: FeatureHead
    scene: Scene
    teacher: Teacher
    held_out: tuple[str, ...]
    long_side: int


def evaluate_views(
    scored: ScoredScene, *, classes: tuple[str, ...] = (), threshold: float | None = None, progress: Progress
) -> RunReport:
    """Score the held-out views or, if nothing was held out, all views.

    Args:
        scored: the scene.
        classes: prompted ones, by the scene's names; empty takes every class with a true pixel in the views.
        threshold: raw cosine from which a class is present; None lets the best class always win.
        progress: receives progress.

    Raises:
        DataError: no view has labels, or a class has no pixel.
        UsageError: a class that the scene does not know.
    """
    scene, teacher = scored.scene, scored.teacher
    frames = [frame for frame in scene.frames if not scored.held_out or frame.name in scored.held_out]
    labelled = [frame for frame in frames if frame.labels is not None]
    if not labelled or not scene.classes:
        raise DataError(
            f"None of the {len(frames)} {'held-out ' if scored.held_out else ''}views of {scene.name} has labels to score "
            "with.",
            _where_labels_are(scene, bool(scored.held_out)),
        )
    say_other_sizes(labelled, progress)
    rendered = _rendered(scored, frames, progress)
    truths = {
        frame.name: _nearest(frame.labels.load(), rendered[frame.name].distance.shape)
        for frame in labelled
        if frame.labels is not None
    }
    asked = _asked(scene, list(truths.values()), classes)
    question = Question.of(scene.classes, asked, teacher.text(asked), threshold)
    queries = question.text @ factorised(scored.head)[0]
    ours, theirs = question.confusion(), question.confusion()
    for frame in labelled:
        truth, view = question.numbers[truths[frame.name]].reshape(-1), rendered[frame.name]
        ours.update(question.answers(*field_scores(view, queries)), truth)
        theirs.update(question.answers(*teacher_scores(teacher, frame, view.distance.shape, question.text)), truth)
    where = f"{len(labelled)} {'held-out' if scored.held_out else 'training'} views"
    tables = (
        _table(where, question, ours, photographs(frames, rendered)),
        _table(f"{where}, the teacher in 2D", question, theirs),
    )
    notes = () if scored.held_out else ("nothing was held out: these are training views",)
    return run_report(scored, "held-out", question.threshold, rendered, tables, notes)


def run_report(
    scored: ScoredScene,
    protocol: str,
    threshold: float | None,
    rendered: dict[str, RenderedView],
    tables: tuple[Table, ...],
    notes: tuple[str, ...],
) -> RunReport:
    """The report of a trained scene whose rendered views were scored."""
    return RunReport(
        scene=scored.scene.name,
        backend="nerf",
        protocol=protocol,
        encoder=scored.teacher.card.spec,
        threshold=threshold,
        share_seen=float(np.mean([(view.code != 0).any(2).mean() for view in rendered.values()])),
        tables=tables,
        notes=notes,
    )


def say_other_sizes(frames: Sequence[Frame], progress: Progress) -> None:
    """Report, once, that truth is resized if its size differs from its photograph's."""
    odd = [found for frame in frames if frame.labels and (found := other_size(frame.labels, frame.camera)) is not None]
    if odd:
        path, (width, height) = odd[0]
        views = "1 view has" if len(odd) == 1 else f"{len(odd)} views have"
        first = f"first: {path}, {width}x{height}"
        progress.say(f"{views} truth of a different size than the photograph, resized by nearest neighbour ({first}).")


def _where_labels_are(scene: Scene, held_out: bool) -> str:
    names = [frame.name for frame in scene.frames if frame.labels is not None]
    if not (names and held_out):
        return "Give label images or masks."
    few = ", ".join(f'"{name}"' for name in names[:4]) + (", ..." if len(names) > 4 else "")
    return f"Labelled views: {few}. Train with --set 'held_out=[{few}]', or score with --protocol 3d-ovs."


def ssim(first: UInt8[Array, "h w 3"], second: UInt8[Array, "h w 3"]) -> float:
    """Structural similarity of two images, mean over pixels and channels; NaN if a window does not fit."""
    if min(first.shape[:2]) < WINDOW:
        return float("nan")
    along = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-(along**2) / (2 * SIGMA**2))
    line = line / line.sum()
    window = (line[:, None] * line).expand(3, 1, WINDOW, WINDOW)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values[None], window, groups=3)[0]

    x, y = (torch.from_numpy(image.astype(np.float64) / 255).permute(2, 0, 1) for image in (first, second))
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(value.mean())


def photographs(frames: Sequence[Frame], rendered: dict[str, RenderedView]) -> dict[str, float]:
    """Mean PSNR and SSIM of rendered views."""
    decibels, likeness = [], []
    for frame in frames:
        view = rendered[frame.name].colour
        photograph = resized(frame.load_image(), (view.shape[1], view.shape[0]))
        error = np.square((view.astype(np.float64) - photograph) / 255).mean()
        decibels.append(psnr(float(error)))
        likeness.append(ssim(view, photograph))
    return {"PSNR": float(np.mean(decibels)), "SSIM": float(np.mean(likeness))}


def field_scores(view: RenderedView, queries: Float32[Array, "k r"]) -> tuple[Float32[Array, "n k"], Bool[Array, " n"]]:
    """The field's cosines at the pixels of a rendered view, and where there is a surface."""
    code = view.code.reshape(-1, view.code.shape[2]).astype(np.float32)
    return code @ queries.T, (code != 0).any(axis=1)


def teacher_scores(
    teacher: Teacher, frame: Frame, shape: tuple[int, ...], text: Float32[Array, "k d"]
) -> tuple[Float32[Array, "n k"], Bool[Array, " n"]]:
    """The teacher's cosines at the pixels of a rendered view, and where it knows anything."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].reshape(2, -1) + 0.5
    uv = np.column_stack([columns * frame.camera.width / shape[1], rows * frame.camera.height / shape[0]])
    scores, known = np.zeros((len(uv), len(text)), np.float32), np.zeros(len(uv), bool)
    for start in range(0, len(uv), TEACHER_ROWS):
        part = slice(start, start + TEACHER_ROWS)
        features = np.asarray(teacher.source.pixel_features(frame, uv[part].astype(np.float32)), np.float32)
        scores[part] = features @ text.T
        known[part] = (features != 0).any(axis=1)
    return scores, known


def _rendered(scored: ScoredScene, frames: Sequence[Frame], progress: Progress) -> dict[str, RenderedView]:
    """Views of a scene as the field sees them, by name."""
    _, triangle = factorised(scored.head)
    rendered = {}
    with progress.task("Rendering views", len(frames)) as task:
        for frame in frames:
            rendered[frame.name] = render_frame(scored.model, frame, scored.long_side, triangle)
            task.advance()
    return rendered


def _nearest(ids: Int32[Array, "h w"], shape: tuple[int, ...]) -> Int32[Array, "h2 w2"]:
    """Label ids at another size, by nearest neighbour."""
    rows = ((np.arange(shape[0]) + 0.5) * ids.shape[0] / shape[0]).astype(np.int64)
    columns = ((np.arange(shape[1]) + 0.5) * ids.shape[1] / shape[1]).astype(np.int64)
    return ids[rows[:, None], columns]


def _asked(scene: Scene, truths: Sequence[Int32[Array, "_ _"]], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes to prompt for, each of which has a true pixel."""
    check_known(scene.name, scene.classes, classes)
    found = true_classes(scene.classes, np.concatenate([truth.reshape(-1) for truth in truths]))
    for name in classes:
        if name not in found:
            raise DataError(f"Class {name!r} has no true pixel in the views to score.", "Leave it out of --classes.")
    if not (classes or found):
        raise DataError(
            f"The labels of {scene.name} contain no class in the views to score.", "Check the label images."
        )
    return classes or found


def _table(
    title: str, question: Question, confusion: SemanticConfusion, extra: dict[str, float] | None = None
) -> PromptedTable:
    """The table of a confusion, with the share of right pixels before the extra numbers."""
    scores = confusion.compute()
    total = scores.matrix.sum()
    right = float(np.trace(scores.matrix) / total) if total else float("nan")
    return PromptedTable(title, question.classes, scores, {"pixel acc": right, **(extra or {})})
