"""Scores: semantic, panoptic and per view, streaming and mergeable."""

from ov3d.common.metrics.panoptic import PanopticQuality, PanopticScores
from ov3d.common.metrics.semantic import SemanticConfusion, SemanticScores

__all__ = ["PanopticQuality", "PanopticScores", "SemanticConfusion", "SemanticScores"]
