"""The affine head, kept rays and codes in an index: all the same numbers as the long way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ov3d.common.base.progress import Silent
from ov3d.nerf.bake import factorised
from ov3d.nerf.language import FeatureHead, SelectionVolume
from ov3d.nerf.model import Model, composite_code
from ov3d.nerf.occupancy import full_occupancy
from ov3d.nerf.ray_cache import cache_rays
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.rendering import accumulate
from ov3d.nerf.scene_type import choose_space
from tests.common.small_scenes import box_scene
from tests.nerf.scenes import CPU
from tests.nerf.twins import small_field


def _model(tmp_path: Path) -> tuple[Model, PixelBank]:
    scene = box_scene(tmp_path / "s", 2)
    field = small_field((12, 12, 8))
    model = Model(field, choose_space(scene).space, full_occupancy(field.resolution, CPU), 0.5)
    return model, PixelBank(scene.frames, long_side=32, device=CPU, progress=Silent())


def test_an_affine_map_may_come_after_compositing(tmp_path: Path) -> None:
    """sum w (M c + b), sample by sample, equals [M b] z."""
    model, bank = _model(tmp_path)
    seen = model.see(model.lines(*bank.rays(torch.arange(0, len(bank), 7)))).visible()
    head = FeatureHead(9)
    with torch.no_grad():
        matrix, shift = head.weight[:, :-1], head.weight[:, -1]
        slow = accumulate(seen.weight, model.field.code(seen.taps) @ matrix.T + shift, seen.samples)
        torch.testing.assert_close(head(composite_code(model.field, seen)), slow, atol=1e-4, rtol=1e-4)


def test_kept_rays_are_what_a_march_sees(tmp_path: Path) -> None:
    model, bank = _model(tmp_path)
    cache = cache_rays(model, bank, Silent())
    pixels = torch.tensor([5, 300, 2, 700, 5])
    kept = cache.seen(model, pixels)
    fresh = model.see(model.lines(*bank.rays(pixels))).visible()
    torch.testing.assert_close(kept.weight, fresh.weight.detach())
    torch.testing.assert_close(kept.samples.unit, fresh.samples.unit)
    assert torch.equal(kept.samples.ray_idx, fresh.samples.ray_idx)
    code = composite_code(model.field, fresh).detach()
    torch.testing.assert_close(cache.z[pixels].float(), code, atol=2e-3, rtol=2e-3)
    selection = SelectionVolume(model.field.resolution, (2, 1, 1), 3)
    shares = selection(kept)
    torch.testing.assert_close(shares.sum(1), torch.ones(5))


def test_codes_in_an_orthonormal_basis_give_the_same_cosines() -> None:
    head = FeatureHead(40)
    z = torch.randn(30, 28, generator=torch.Generator().manual_seed(0))
    text = torch.nn.functional.normalize(torch.randn(5, 40, generator=torch.Generator().manual_seed(1)), dim=1)
    q, triangle = factorised(head)
    code = z.numpy() @ triangle.T
    code /= np.linalg.norm(code, axis=1, keepdims=True)
    expected = torch.nn.functional.normalize(head(z), dim=1) @ text.T
    np.testing.assert_allclose(code @ (text.numpy() @ q).T, expected.detach().numpy(), atol=1e-5)


def test_a_head_is_fitted_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    z, weight = torch.randn(200, 28, generator=generator), torch.randn(6, 28, generator=generator)
    head = FeatureHead(6)
    head.fit(z, z @ weight.T, torch.ones(200))
    torch.testing.assert_close(head.weight.detach(), weight, atol=2e-2, rtol=2e-2)
    features = z @ weight.T
    features[150:] = 7.0
    head.fit(z, features, (torch.arange(200) < 150).float())  # what is not trusted has no say
    torch.testing.assert_close(head.weight.detach(), weight, atol=2e-2, rtol=2e-2)
