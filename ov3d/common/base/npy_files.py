"""NumPy's .npy files, read so that a damaged one is an error of ours and never code that runs."""

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
"""What NumPy raises for files that are cut short or damaged: their headers are parsed as Python literals."""


def read_npy(path: Path, what: str = "") -> Array:
    """One array from a .npy file; arrays of objects, which could run code, are refused. `what` names it in errors.

    Raises:
        DataError: it is not there, cut short, damaged, or holds several arrays.
    """
    named = f"The {what} {path}" if what else str(path)
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(
            f"There is no {what} at {path}." if what else f"There is no {path}.", "Check the path."
        ) from None
    except UNREADABLE as error:
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(
            f"{named} cannot be read as an array: {why}.", "It is cut short or damaged: export it again."
        ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{named} holds several arrays.", "Save one .npy array.")
    return array
