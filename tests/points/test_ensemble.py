"""2D-3D ensemble: the surer feature a point, the network's where no camera looked."""

from __future__ import annotations

import numpy as np
import pytest

from ov3d.common.base.errors import DataError
from ov3d.points.ensemble import ensemble_scores


def test_the_surer_feature_is_taken_whole() -> None:
    fused = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.4], [0.99, 0.0]], np.float32)
    network = np.array([[0.1, 0.8], [0.6, 0.1], [0.1, 0.5], [0.2, 0.3]], np.float32)
    seen = np.array([True, True, True, False])
    expected = np.stack([fused[0], network[1], fused[2], network[3]])
    assert np.array_equal(ensemble_scores(fused, network, seen), expected)


def test_no_prompt_and_no_point() -> None:
    for shape in ((0, 3), (4, 0)):
        empty = np.zeros(shape, np.float32)
        assert ensemble_scores(empty, empty, np.ones(shape[0], bool)).shape == shape


def test_scores_of_different_clouds_are_refused() -> None:
    with pytest.raises(DataError, match="same cloud"):
        ensemble_scores(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32), np.ones(2, bool))
