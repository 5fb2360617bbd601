"""How well a run labels views that it never saw, beside how well its 2D teacher labels the same views.

Protocol `held-out`: every pixel of the held-out views takes the best of the prompted classes (all that have a true
pixel there), or none where even the best cosine stays below a threshold, if one is given. The teacher answers in the
same pixels, from the same photographs: what the field adds is the difference. Where nothing was held out, the training
views are scored, and that is said.

Also PSNR and SSIM of the rendered photographs (Wang et al., *Image quality assessment*, TIP 2004: windows of 11
pixels, sigma 1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import DataError, UsageError, did_you_mean
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Bool, Float, Float32, Int32, UInt8
from ov3d.common.features.crops import resized
from ov3d.common.metrics.prompted import PromptedTable, prompt_numbers, prompted_confusion
from ov3d.common.metrics.semantic import SemanticScores
from ov3d.common.scenes.scene import IGNORE, Frame, Scene
from ov3d.common.scenes.truth import other_size
from ov3d.common.teachers.teacher import ImageFeatures, Teacher
from ov3d.nerf.bake import RenderedView, factorised, render_frame
from ov3d.nerf.language import FeatureHead
from ov3d.nerf.losses import psnr
from ov3d.nerf.model import Model

TEACHER_ROWS = 1 << 14
"""Pixels that the teacher is asked for at once."""
WINDOW, SIGMA = 11, 1.5


@runtime_checkable
class Table(Protocol):
    """One way of labelling views, scored."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class ViewsReport:
    """What an evaluation found.

    Attributes:
        scene: its name.
        encoder: spec of the encoder.
        threshold: raw cosine from which a class counts as present; -1 where the best class always is; none where the
            protocol has another.
        share_seen: share of the views' pixels that see a surface.
        tables: the field's, then the teacher's.
        notes: what should be read beside the numbers.
        protocol: how they were scored.
    """

    scene: str
    encoder: str
    threshold: float | None
    share_seen: float
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    protocol: str = "held-out"

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "scene": self.scene,
            "backend": "nerf",
            "protocol": self.protocol,
            "encoder": self.encoder,
            "threshold": self.threshold,
            "share_seen": self.share_seen,
            "tables": [table.to_json() for table in self.tables],
            "notes": list(self.notes),
        }


def evaluate_views(
    model: Model,
    head: FeatureHead,
    scene: Scene,
    names: Sequence[str],
    teacher: Teacher,
    *,
    held_out: bool,
    long_side: int,
    classes: tuple[str, ...],
    threshold: float | None,
    progress: Progress,
) -> ViewsReport:
    """Score views.

    Args:
        model, head: trained.
        scene: with labelled frames.
        names: the views to score.
        teacher: with features of them.
        held_out: whether no loss ever saw them.
        long_side: views are rendered at this long side.
        classes: prompted ones, by the scene's names; empty takes every class with a true pixel in the views.
        threshold: raw cosine from which a class is present; none lets the best class always win.
        progress: hears how far it is.

    Raises:
        DataError: none of the views has labels.
        UsageError: a class that the scene does not know.
    """
    frames = [frame for frame in scene.frames if frame.name in set(names)]
    labelled = [frame for frame in frames if frame.labels is not None]
    if not labelled or not scene.classes:
        raise DataError(
            f"None of the {len(frames)} {'held-out ' if held_out else ''}views of {scene.name} has labels to score with.",
            _where_labels_are(scene, held_out),
        )
    say_other_sizes(labelled, progress)
    limit = -1.0 if threshold is None else threshold
    q, triangle = factorised(head)
    rendered, truths = {}, {}
    with progress.task("Rendering views", len(frames)) as task:
        for frame in frames:
            rendered[frame.name] = render_frame(model, frame, long_side, triangle)
            task.advance()
    for frame in labelled:
        assert frame.labels is not None
        truths[frame.name] = _nearest(frame.labels.load(), rendered[frame.name].distance.shape)
    prompted = _prompted(scene, list(truths.values()), classes)
    text = teacher.text(prompted)
    remap = prompt_numbers(scene.classes, prompted)
    ours, theirs = prompted_confusion(len(prompted)), prompted_confusion(len(prompted))
    for frame in labelled:
        truth = remap[truths[frame.name]].reshape(-1)
        view = rendered[frame.name]
        code = view.code.reshape(-1, view.code.shape[2]).astype(np.float32)
        ours.update(_labels(code @ (text @ q).T, limit, (code != 0).any(1)), truth)
        scores, known = teacher_scores(teacher.source, frame, view.distance.shape, text)
        theirs.update(_labels(scores, limit, known), truth)
    where = "held-out views" if held_out else "training views"
    found, taught = ours.compute(), theirs.compute()
    likeness = photographs(frames, rendered)
    tables = (
        PromptedTable(f"{len(labelled)} {where}", prompted, found, {"pixel acc": _right(found), **likeness}),
        PromptedTable(f"{len(labelled)} {where}, the teacher in 2D", prompted, taught, {"pixel acc": _right(taught)}),
    )
    notes = () if held_out else ("nothing was held out: these views were learnt from",)
    share_seen = float(np.mean([(view.code != 0).any(2).mean() for view in rendered.values()]))
    return ViewsReport(scene.name, teacher.card.spec, limit, share_seen, tables, notes)


def say_other_sizes(frames: Sequence[Frame], progress: Progress) -> None:
    """Say, once, that truth of another size than its photograph is brought to it."""
    odd = [found for frame in frames if frame.labels and (found := other_size(frame.labels, frame.camera)) is not None]
    if odd:
        path, (width, height) = odd[0]
        views = "1 view has" if len(odd) == 1 else f"{len(odd)} views have"
        first = f"first: {path}, {width}x{height}"
        progress.say(f"{views} truth of another size than the photograph, resized to the nearest pixel ({first}).")


def _where_labels_are(scene: Scene, held_out: bool) -> str:
    names = [frame.name for frame in scene.frames if frame.labels is not None]
    if not (names and held_out):
        return "Give label images or masks."
    few = ", ".join(f'"{name}"' for name in names[:4]) + (", ..." if len(names) > 4 else "")
    return f"Labelled are {few}: train with --set 'held_out=[{few}]', or score with --protocol 3d-ovs."


def ssim(first: UInt8[Array, "h w 3"], second: UInt8[Array, "h w 3"]) -> float:
    """Structural similarity of two images, mean over pixels and channels; NaN where a window does not fit."""
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


def teacher_scores(
    source: ImageFeatures, frame: Frame, shape: tuple[int, ...], text: Float32[Array, "k d"]
) -> tuple[Float32[Array, "n k"], Bool[Array, " n"]]:
    """The teacher's cosines at the pixels of a rendered view, and where it knows anything."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].reshape(2, -1) + 0.5
    uv = np.column_stack([columns * frame.camera.width / shape[1], rows * frame.camera.height / shape[0]])
    scores, known = np.zeros((len(uv), len(text)), np.float32), np.zeros(len(uv), bool)
    for start in range(0, len(uv), TEACHER_ROWS):
        part = slice(start, start + TEACHER_ROWS)
        features = np.asarray(source.pixel_features(frame, uv[part].astype(np.float32)), np.float32)
        scores[part] = features @ text.T
        known[part] = (features != 0).any(axis=1)
    return scores, known


def _labels(scores: Float[Array, "n k"], limit: float, known: Bool[Array, " n"]) -> Int32[Array, " n"]:
    """The best class, or `other` where nothing reaches the limit or nothing is known."""
    best = scores.argmax(axis=1)
    return np.where(known & (scores.max(axis=1) >= limit), best, scores.shape[1]).astype(np.int32)


def _nearest(ids: Int32[Array, "h w"], shape: tuple[int, ...]) -> Int32[Array, "h2 w2"]:
    rows = ((np.arange(shape[0]) + 0.5) * ids.shape[0] / shape[0]).astype(np.int64)
    columns = ((np.arange(shape[1]) + 0.5) * ids.shape[1] / shape[1]).astype(np.int64)
    return ids[rows[:, None], columns]


def _prompted(scene: Scene, truths: Sequence[Int32[Array, "_ _"]], classes: tuple[str, ...]) -> tuple[str, ...]:
    for name in classes:
        if name not in scene.classes:
            raise UsageError(f"Scene {scene.name} has no class {name!r}.", did_you_mean(name, scene.classes))
    present = np.unique(np.concatenate([truth.reshape(-1) for truth in truths]))
    found = tuple(scene.classes[label] for label in present if label != IGNORE)
    for name in classes:
        if name not in found:
            raise DataError(f"Class {name!r} has no true pixel in the views to score.", "Leave it out of --classes.")
    if not (classes or found):
        raise DataError(f"The labels of {scene.name} name no class in the views to score.", "Check the label images.")
    return classes or found


def _right(scores: SemanticScores) -> float:
    total = scores.matrix.sum()
    return float(np.trace(scores.matrix) / total) if total else float("nan")
