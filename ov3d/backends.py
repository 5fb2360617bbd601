"""The only list of backends, as import strings: a backend is imported only when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from ov3d.common.base.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ov3d.common.learning.backend import Backend

BACKENDS = {"nerf": "ov3d.nerf.backend:NerfBackend", "points": "ov3d.points.backend:PointsBackend"}
"""Backend names to `module:class`."""

PLANNED = ("lidar",)
"""Backends planned for later versions, for a clearer error message."""


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: unknown backend; the message suggests the nearest names.
    """
    if name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        return cast("Backend", getattr(importlib.import_module(module), attribute)())
    if name in PLANNED:
        raise UsageError(f"Backend {name!r} is not available yet. Available: {', '.join(sorted(BACKENDS))}.")
    raise UsageError(f"Unknown backend {name!r}.", did_you_mean(name, BACKENDS))
