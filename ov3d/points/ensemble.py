"""2D-3D ensemble: of a point's fused feature and the network's, the one that is surer of some class.

    f = f2 if max_k f2 . t_k >= max_k f3 . t_k and some camera saw the point, else f3

Source: Peng et al., *OpenScene*, CVPR 2023, section 3.4. Both are unit vectors of one space, so their cosines compare.
"""

from __future__ import annotations

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array, Bool, Float32


def ensemble_scores(
    fused: Float32[Array, "n k"], network: Float32[Array, "m c"], seen: Bool[Array, " s"]
) -> Float32[Array, "n k"]:
    """Raw cosines of the feature that is taken for each point.

    Args:
        fused: cosines of 2D features with the k prompts; whatever stands there for unseen points is not looked at.
        network: cosines of the 3D network's.
        seen: whether a point has a 2D feature.

    Raises:
        DataError: the three are of different clouds or prompts.
    """
    if fused.shape != network.shape or len(seen) != len(fused):
        raise DataError(
            f"Scores of shapes {fused.shape} and {network.shape} for {len(seen)} points cannot be put together.",
            "They must be of the same cloud and prompts.",
        )
    if not fused.shape[1]:
        return network
    take_fused = seen & (fused.max(axis=1) >= network.max(axis=1))
    return np.where(take_fused[:, None], fused, network)
