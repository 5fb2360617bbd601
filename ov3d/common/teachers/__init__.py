"""Teachers, one per file; `open_teacher` makes one from the value of `--encoder`.

    offline, openclip:…       crops through an image-text encoder           crops.py
    openclip-dense:…          patch tokens of an image-text encoder         dense.py
    labels:DIR[@TEXT]         label maps of any segmenter, and their names  labels.py
    features:DIR@TEXT         arrays made elsewhere                         arrays.py

Families are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ov3d.common.base.errors import UsageError
from ov3d.common.language.specs import AUTO, DEFAULT_TEXT, parse_brought, split_spec, suitable_refinement, with_text

if TYPE_CHECKING:
    import torch

    from ov3d.common.teachers.teacher import Teacher


def open_teacher(spec: str, *, refine: str = AUTO, text_encoder: str | None = None, device: torch.device) -> Teacher:
    """The teacher that a spec and a refinement name.

    Args:
        spec: see `ov3d.common.language.specs`.
        refine: `none`, `dino` (the patch encoder that ships in a package) or `timm:NAME`: spreads features along what a
            self-supervised patch encoder finds alike; for encoders of crops and patches only. `auto`: see
            `suitable_refinement`.
        text_encoder: the text side of `labels:DIR` or `features:DIR`, if the spec does not name it.
        device: device of the networks.

    Raises:
        UsageError: no such encoder or refinement, or they cannot be combined.
        MissingModelError: a model is not on this machine.
        DataError: a folder is missing, or lacks the expected files.
    """
    spec = with_text(spec.strip(), text_encoder)
    refine = suitable_refinement(refine, spec)
    brought = parse_brought(spec)
    if brought is not None:
        if refine != "none":
            raise UsageError(f"--refine does not apply to {brought.family}:DIR.", "Leave --refine out.")
        if brought.family == "labels":
            from ov3d.common.teachers.labels import LabelTeacher

            return LabelTeacher(brought, device=device)
        from ov3d.common.teachers.arrays import ArrayTeacher

        return ArrayTeacher(brought, device=device)
    family, _ = split_spec(spec)
    if family == DEFAULT_TEXT:
        raise UsageError(f"{spec} encodes only text, not photographs.", f"Use it as labels:DIR@{spec}.")
    if family == "openclip-dense":
        from ov3d.common.teachers.dense import DenseTeacher

        return DenseTeacher(spec, refine=refine, device=device)
    from ov3d.common.teachers.crops import CropTeacher

    return CropTeacher(spec, refine=refine, device=device)
