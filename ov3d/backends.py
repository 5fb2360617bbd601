"""The one list of backends, as import strings: naming them costs nothing, using one imports it alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from ov3d.common.base.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ov3d.common.learning.backend import Backend

BACKENDS = {"nerf": "ov3d.nerf.backend:NerfBackend", "points": "ov3d.points.backend:PointsBackend"}
"""Backend names to `module:class`."""

PLANNED = ("lidar",)
"""Backends of later versions: a user who asks for one is told so."""


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    if name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        return cast("Backend", getattr(importlib.import_module(module), attribute)())
    if name in PLANNED:
        raise UsageError(f"{name} is not in this version yet; it has: {', '.join(sorted(BACKENDS))}.")
    raise UsageError(f"Unknown backend {name!r}.", did_you_mean(name, BACKENDS))
