"""Rendering in blocks, with what colour and language share made once, against the long way round."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ov3d.nerf import model as model_module
from ov3d.nerf.model import Model, composite_code
from ov3d.nerf.occupancy import full_occupancy
from ov3d.nerf.rendering import accumulate, render_colour
from ov3d.nerf.spaces import Space, SpaceKind
from tests.nerf.scenes import CPU
from tests.nerf.twins import small_field


@pytest.mark.parametrize("kind", ["box", "contraction", "forward"])
def test_rendering_shares_what_colour_and_code_have_in_common(kind: SpaceKind, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = 0.5 * turn, (0.1, 0.2, -0.1)
    field = small_field((9, 9, 9))
    space = Space(kind, similarity, np.full(3, -1.5), np.full(3, 1.5), 0.05)
    model = Model(field, space, full_occupancy(field.resolution, CPU), 0.5, background=0.25)
    generator = torch.Generator().manual_seed(3)
    origin = torch.rand(70, 3, generator=generator)
    direction = torch.randn(70, 3, generator=generator) - torch.tensor([0.0, 0.0, 1.0])
    direction /= direction.norm(dim=1, keepdim=True)
    monkeypatch.setattr(model_module, "FIRST_RAYS", 4)
    monkeypatch.setattr(model_module, "LEAST_RAYS", 16)
    monkeypatch.setattr(model_module, "RENDER_SAMPLES", 600)
    found = model.render(origin, direction)
    with torch.no_grad():
        seen = model.see(model.lines(origin, direction))
        samples = seen.samples
        away = (space.to_world(samples.position) - origin[samples.ray_idx]).norm(dim=1).clamp(max=1e6)
        total = accumulate(seen.weight, away[:, None], samples)[:, 0]
        close = {"atol": 1e-6, "rtol": 1e-6}
        torch.testing.assert_close(found.colour, render_colour(field, seen, direction, 0.25), **close)
        torch.testing.assert_close(found.opacity, seen.opacity, **close)
        torch.testing.assert_close(found.code, composite_code(field, seen), **close)
        torch.testing.assert_close(found.distance, total / seen.opacity.clamp(min=1e-6), atol=1e-6, rtol=2e-6)
    assert float(found.opacity.max()) > 0.9
