"""Trust in targets: against its definition in fp64, and on a teacher that is wrong in the same place in every view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.base.progress import Silent
from ov3d.common.base.shapes import Array, Bool, Float, Float32
from ov3d.common.learning.checkpoints import generator_for
from ov3d.common.scenes.scene import Frame
from ov3d.nerf import trust as trust_module
from ov3d.nerf.model import Model
from ov3d.nerf.occupancy import full_occupancy
from ov3d.nerf.ray_cache import RayCache, cache_rays
from ov3d.nerf.rays import PixelBank
from ov3d.nerf.scene_type import choose_space
from ov3d.nerf.targets import PatchFeatures, Targets
from ov3d.nerf.trust import FEATURES, RIDGE, ROUNDS, Trust
from tests.common.small_scenes import box_scene
from tests.nerf.scenes import CPU
from tests.nerf.test_training import _Patches
from tests.nerf.twins import small_field


class _Mistaken:
    """A teacher that tells red from grey, but calls a spot on either of them by the other name, in every view."""

    def features_at(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float32[Array, "n s d"]:
        image = frame.load_image()[uv[:, 1].astype(int), uv[:, 0].astype(int)].astype(int)
        red = (image[:, 0] > image[:, 1]) ^ _spots(uv)
        vectors = np.eye(2, dtype=np.float32)[red.astype(int)]
        vectors[image.sum(1) == 0] = 0
        return vectors[:, None]

    def pixel_features(self, frame: Frame, uv: Float[Array, "n 2"]) -> Float32[Array, "n d"]:
        return self.features_at(frame, uv)[:, 0]

    def has(self, frame: Frame) -> bool:
        return True

    def key(self, frame: Frame) -> str:
        return "mistaken"

    def known(self, frame: Frame, uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
        return np.ones(len(uv), bool)

    def relevancy(self, frame: Frame, text: Float32[Array, " d"], step: int) -> Float32[Array, "rows columns"]:
        raise NotImplementedError


def _spots(uv: Float[Array, "n 2"]) -> Bool[Array, " n"]:
    """One on the box and one on the floor, six pixels wide."""
    found: Bool[Array, " n"] = np.zeros(len(uv), bool)
    for centre in ((30.0, 24.0), (12.0, 38.0)):
        found |= np.abs(uv - centre).max(axis=1) < 3
    return found


def _parts(tmp_path: Path) -> tuple[PixelBank, RayCache, Targets, PatchFeatures]:
    scene = box_scene(tmp_path / "s", 4)
    field = small_field((12, 12, 8))
    model = Model(field, choose_space(scene).space, full_occupancy(field.resolution, CPU), 0.5)
    bank = PixelBank(scene.frames, long_side=64, device=CPU, progress=Silent())
    text = np.eye(2, dtype=np.float32)
    targets = Targets(bank, _Mistaken(), text, logit_scale=20.0, device=CPU, progress=Silent())
    return bank, cache_rays(model, bank, Silent()), targets, PatchFeatures(bank, _Patches(), progress=Silent())


def _slow_trust(phi: Array, said: Array, known: Array, power: float) -> Float[Array, " n"]:
    """Equations (2) and (3) of the module in fp64, pixel by pixel."""
    weight = known.astype(float)
    for _ in range(ROUNDS):
        gram = sum(t * np.outer(row, row) for t, row in zip(weight, phi, strict=True))
        right = sum(t * np.outer(row, q) for t, row, q in zip(weight, phi, said, strict=True))
        answers = np.linalg.solve(gram + RIDGE * np.trace(gram) / FEATURES * np.eye(FEATURES), right)
        common = phi @ answers
        share = [max(0.0, q @ y) / max(y.max(), 1e-6) for q, y in zip(said, common, strict=True)]
        weight = np.minimum(share, 1) ** power * known
    return weight


def test_trust_equals_the_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "FIT_PIXELS", 600)
    bank, rays, targets, patches = _parts(tmp_path)
    trust = Trust(bank, rays, targets, patches, power=3.0, generator=generator_for(0, "trust", 0))
    pixels = bank.draw(600, generator_for(0, "trust", 0)).sort().values  # those that it was fitted to
    target = targets.at(pixels)
    phi = trust._kernel(pixels).double().numpy()
    said = (20.0 * target.features[:, 0].double()).softmax(1).numpy()
    expected = _slow_trust(phi, said, target.known.numpy(), 3.0)
    np.testing.assert_allclose(trust.of(pixels, target).numpy(), expected, atol=1e-4)
    assert not target.known.all()
    assert not trust.of(pixels, target)[~target.known].any()


def test_the_kernel_is_gaussian(tmp_path: Path) -> None:
    """phi(x) . phi(y) is exp(-|x - y|^2 / 2) as far as so many random features go."""
    bank, rays, targets, patches = _parts(tmp_path)
    trust = Trust(bank, rays, targets, patches, power=3.0, generator=generator_for(0, "trust", 0))
    pixels = bank.draw(60, torch.Generator().manual_seed(1))
    looks, phi = trust._looks(pixels).double(), trust._kernel(pixels).double()
    expected = (-torch.cdist(looks, looks).square() / 2).exp()
    torch.testing.assert_close(phi @ phi.T, expected, atol=5 / FEATURES**0.5, rtol=0)


@pytest.mark.parametrize("with_patches", [True, False])
def test_what_look_alikes_deny_is_doubted(tmp_path: Path, with_patches: bool) -> None:
    """The spots are wrong in every view, so that views agree on it; only look-alikes elsewhere know better."""
    bank, rays, targets, patches = _parts(tmp_path)
    known = patches if with_patches else None
    trust = Trust(bank, rays, targets, known, power=4.0, generator=generator_for(0, "trust", 0))
    pixels = torch.arange(len(bank))
    target = targets.at(pixels)
    uv = np.concatenate([bank.full_size(k, bank.of_frame(k)) for k in range(len(bank.frames))])
    wrong = torch.from_numpy(_spots(uv)) & target.known
    found = trust.of(pixels, target)
    right = target.known & ~wrong
    assert float(found[right].mean()) > 0.9
    assert float(found[wrong].mean()) < 0.3
    colour = bank.colour[pixels].int()
    rare = right & (colour[:, 0] > colour[:, 1])
    assert float(found[rare].mean()) > 0.8  # what there is less of is not swallowed


def test_places_are_means_of_samples(tmp_path: Path) -> None:
    _, rays, _, _ = _parts(tmp_path)
    pixels = torch.tensor([5, 300, 2, 700, 5])
    found = rays.places(pixels)
    for pixel, place in zip(pixels.tolist(), found, strict=True):
        rows = slice(int(rays.starts[pixel]), int(rays.starts[pixel + 1]))
        weight, unit = rays.weight[rows].double(), rays.unit[rows].double()
        expected = (weight[:, None] * unit).sum(0) / weight.sum() if len(weight) else torch.full((3,), 0.5).double()
        torch.testing.assert_close(place.double(), expected, atol=1e-5, rtol=1e-5)


def test_patch_features_of_several_views_are_those_of_each(tmp_path: Path) -> None:
    bank, _, _, patches = _parts(tmp_path)
    pixels = bank.draw(50, torch.Generator().manual_seed(0))
    features = patches.at(pixels)
    for frame_idx in range(len(bank.frames)):
        mine = bank.frame_idx(pixels) == frame_idx
        alike = patches.likeness(frame_idx, pixels[mine], 0.0)
        torch.testing.assert_close(features[mine] @ features[mine].T, alike)
    directions = patches.principal(2)
    torch.testing.assert_close(directions.T @ directions, torch.eye(2), atol=1e-5, rtol=0)
