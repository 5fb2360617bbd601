"""Device choice, seeding and peak memory. Everything runs on the CPU; a GPU is used if available or requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ov3d.common.base.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICE_CHOICES = ("auto", "cpu", "cuda", "cuda:N", "mps")


def pick_device(choice: str = "auto") -> torch.device:
    """The device for `choice`: `auto` uses CUDA if available, else the CPU.

    Raises:
        UsageError: the device is unknown, or this machine does not have it.
    """
    import torch

    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(choice)
    except RuntimeError:
        raise UsageError(f"Unknown device {choice!r}.", f"Choose one of {', '.join(DEVICE_CHOICES)}.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UsageError(
                f"Device {choice} is not available ({count} CUDA devices on this machine).", "Use --device cpu."
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("Device mps is not available on this machine.", "Use --device cpu.")
    return device


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, for code that cannot be given its own generator."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 - third-party code draws from it
    torch.manual_seed(seed)


def peak_bytes() -> int | None:
    """Peak resident memory of this process so far; None if the system does not report it."""
    import sys

    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
