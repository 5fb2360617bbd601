"""A trained field seen from anywhere: colour and the score of a prompt, for animations.

With B the basis of the index and W = Q R the feature head (see `bake`), B = Q^t, so R = B W: the code of a ray in the index's
own basis, and the prompt's cosine is its product with the prompt in that basis.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.device import pick_device
from ov3d.common.base.shapes import Array, Float32, Float64, UInt8
from ov3d.common.exporters.view_heat import code_scores
from ov3d.common.scenes.cameras import Camera
from ov3d.nerf.bake import render_view
from ov3d.nerf.stages.distil import load_trained


class FieldViews:
    """Views of a scene's field, a `ViewRenderer`.

    Args:
        folder: of the scene in its run, with the files of distillation.
        index: the scene's.
        answer: to the prompt whose score is rendered.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        DataError: the trained field is missing or damaged.
    """

    def __init__(self, folder: Path, index: LanguageIndex, answer: Answer, device: str = "auto") -> None:
        self._model, head = load_trained(folder, pick_device(device))
        weight = head.weight.detach().cpu().numpy()
        self._triangle = (index.basis.astype(np.float64) @ weight).astype(np.float32)
        self._query = answer.query

    def __call__(
        self, camera: Camera, world_from_camera: Float64[Array, "4 4"]
    ) -> tuple[UInt8[Array, "h w 3"], Float32[Array, "h w"]]:
        """The field as that camera sees it."""
        seen = render_view(self._model, camera, world_from_camera, self._triangle)
        somewhere = (seen.code != 0).any(axis=2)
        return seen.colour, np.where(somewhere, code_scores(seen.code, self._query), np.float32(-np.inf))
