"""Make `import torchvision` work if its build does not match torch's.

A registry may provide a CUDA build of torchvision with a CPU build of torch. Its compiled operators do not load, and its
import fails when registering a rule for `torchvision::nms`, which does not exist. open_clip and timm need none of those
operators, only the Python parts. Declaring the missing operators is enough for the import; calling one still fails.
If torchvision imports properly, nothing is done.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch

from ov3d.common.base.errors import MissingModelError

_MISSING_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A library's operators are removed with the object that defined them.
_definitions: list[Any] = []


def import_torchvision() -> bool:
    """Import torchvision, declaring the operators that its build lacks.

    Returns:
        Whether operators had to be declared.

    Raises:
        MissingModelError: torchvision is not installed, or fails for another reason.
    """
    if "torchvision" in sys.modules:
        return bool(_definitions)
    try:
        importlib.import_module("torchvision")
        return False
    except ImportError as error:
        raise MissingModelError("The package torchvision is not installed.", "pip install torchvision") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _definitions:
            raise _broken(error) from error
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _MISSING_OPERATORS:
        library.define(f"{name}{_SCHEMA}")
    _definitions.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, ImportError) as error:
        raise _broken(error) from error
    return True


def _broken(error: Exception) -> MissingModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return MissingModelError(
        f"torchvision cannot be imported with torch {torch.__version__}: {reason}.",
        "Install the torchvision version that matches torch.",
    )
