"""Scores: streaming and mergeable (`update`, `merge`, `compute`)."""
