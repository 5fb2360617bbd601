"""Array types with shapes, for signatures.

`Float[Array, "n 3"]` is for people and type checkers; jaxtyping and beartype check it while tests run
(`OV3D_CHECK_SHAPES=1`). Otherwise neither is imported: jaxtyping alone would slow a query by a tenth of a second.
Modules that use these names need `from __future__ import annotations`, so that signatures are never evaluated.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("OV3D_CHECK_SHAPES"):
    from jaxtyping import (
        BFloat16,
        Bool,
        Float,
        Float16,
        Float32,
        Float64,
        Int,
        Int32,
        Int64,
        Integer,
        Shaped,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
    )
    from numpy import ndarray as Array
else:
    Array: Any = None
    BFloat16 = Bool = Float = Float16 = Float32 = Float64 = Int = Int32 = Int64 = Integer = Shaped = None
    UInt8 = UInt16 = UInt32 = UInt64 = None

__all__ = [
    "Array",
    "BFloat16",
    "Bool",
    "Float",
    "Float16",
    "Float32",
    "Float64",
    "Int",
    "Int32",
    "Int64",
    "Integer",
    "Shaped",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
]
