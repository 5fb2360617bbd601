"""Clouds that lie on their side, put upright."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.scenes.upright import upright


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.6, 0.0, -0.8), (0.0, 0.0, -1.0)])
def test_positions_are_put_upright(up: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    xyz = np.concatenate([np.array([up]), rng.normal(size=(20, 3))]).astype(np.float32)
    turned = upright(xyz, up)
    np.testing.assert_allclose(turned[0], (0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(turned @ turned.T, xyz @ xyz.T, atol=1e-4)
