"""Clouds changed before a step: shapes kept, everything drawn from the generator that is handed in."""

from __future__ import annotations

import torch

from ov3d.common.learning.augment import AugmentConfig, augment_colours, augment_positions
from ov3d.common.learning.checkpoints import generator_for


def test_augmentation_keeps_shapes_and_is_drawn_from_its_generator() -> None:
    xyz, config = torch.rand(200, 3), AugmentConfig()
    first, again, other = (augment_positions(xyz, config, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    ratio = torch.cdist(first[:50], first[:50])[0, 1:] / torch.cdist(xyz[:50], xyz[:50])[0, 1:]
    assert float(ratio.std()) < 1e-4
    assert 0.9 <= float(ratio.mean()) <= 1.1
    still = AugmentConfig(tilt=0, turn="none", scale=(1, 1), flip=0)
    moved = augment_positions(xyz, still, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved - moved[0], xyz - xyz[0], rtol=1e-5, atol=1e-5)
    rgb = torch.randint(0, 256, (200, 3), dtype=torch.uint8)
    colours = augment_colours(rgb, config, torch.Generator().manual_seed(0))
    assert float(colours.abs().max()) <= 1
    plain = AugmentConfig(contrast=0, tint=0, colour_noise=0)
    torch.testing.assert_close(augment_colours(rgb, plain, torch.Generator()), rgb.float() / 127.5 - 1)
    grey = AugmentConfig(drop_colours=1)
    assert not augment_colours(rgb, grey, torch.Generator()).any()


def test_quarter_turns_keep_straight_walls_straight() -> None:
    quarter = AugmentConfig(tilt=0, turn="quarter", scale=(1, 1), flip=0.5)
    edge = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    moved = [augment_positions(edge, quarter, generator_for(0, "turn", idx)) for idx in range(40)]
    steps = {tuple((one[1] - one[0]).round(decimals=4).abs().tolist()) for one in moved}
    assert steps == {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)}
