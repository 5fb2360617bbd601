"""Read NumPy's .npy files safely: a damaged one raises a `DataError` and never runs code."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.shapes import Array

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    MemoryError,
    OverflowError,
    RecursionError,
    tokenize.TokenError,
)
"""What NumPy raises for truncated or damaged files: their headers are parsed as Python literals."""


def read_npy(path: Path, what: str = "") -> Array:
    """One array from a .npy file; object arrays, which could run code, are refused. `what` names it in errors.

    Raises:
        DataError: the file is missing, truncated, damaged, or holds several arrays.
    """
    named = f"The {what} {path}" if what else str(path)
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{named} does not exist.", "Check the path.") from None
    except UNREADABLE as error:
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(
            f"{named} cannot be read as an array: {why}.", "It is truncated or damaged: export it again."
        ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{named} holds several arrays.", "Save one .npy array.")
    return array
