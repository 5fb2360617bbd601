"""Scores: semantic, panoptic and per view, streaming and mergeable."""

from ov3d.common.metrics.semantic import SemanticConfusion, SemanticScores

__all__ = ["SemanticConfusion", "SemanticScores"]
