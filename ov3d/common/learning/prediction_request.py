"""What `ov3d predict` asks of a backend, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """How a scan is to be labelled.

    Attributes:
        classes: names of the run's vocabulary; with no prompts either, all of it.
        prompts: any words instead.
        threshold: raw cosine below which a point gets no label; by default the network's own, or no threshold at all where
            the whole vocabulary is asked for.
        turns: how many copies of the scan, turned as in training and moved among the voxels, are averaged; one is the scan
            itself.
        seed: of the copies.
        layout: how a scene is stored; by default that is detected.
        scale: metres per unit of the file.
        ensemble: whether features of photographs answer where they are surer than the network.
    """

    classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    threshold: float | None = None
    turns: int = 1
    seed: int = 0
    layout: str | None = None
    scale: float | None = None
    ensemble: bool = False
