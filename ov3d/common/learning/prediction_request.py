"""What `ov3d predict` asks of a backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """How scans are labelled.

    Attributes:
        classes: names from the run's vocabulary; without classes and prompts, all of it.
        prompts: any words to use instead of classes.
        threshold: raw cosine below which a point gets no label; by default the network's own, or no threshold for the whole
            vocabulary.
        turns: number of copies of the scan, rotated as in training and shifted against the voxels, to average; 1 is only the
            scan itself.
        seed: seed of the copies.
        layout: layout of the scene's files; detected by default.
        scale: metres per unit in the file.
        ensemble: use features of photographs where they are more confident than the network.
    """

    classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    threshold: float | None = None
    turns: int = 1
    seed: int = 0
    layout: str | None = None
    scale: float | None = None
    ensemble: bool = False
