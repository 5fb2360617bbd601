"""Which floating type an image network runs in."""

from __future__ import annotations

import torch

from ov3d.common.base.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(choice: str, device: torch.device) -> torch.dtype:
    """The type for `choice` on a device.

    `auto` is fp16 on CUDA. On a CPU it is bf16 where the processor multiplies bf16 itself (AMX or AVX512-BF16), and
    fp32 elsewhere, where bf16 would be emulated and slower.

    Raises:
        UsageError: no such type, or fp16 asked of a CPU.
    """
    if choice == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bf16() else torch.float32
    if choice not in DTYPES:
        raise UsageError(f"Unknown floating type {choice!r}.", f"Choose one of auto, {', '.join(DTYPES)}.")
    if choice == "float16" and device.type == "cpu":
        raise UsageError("Image networks do not run in float16 on a CPU.", "Use auto, float32 or bfloat16.")
    return DTYPES[choice]


def dtype_name(dtype: torch.dtype) -> str:
    """The name that identities carry: `float32`, `bfloat16` or `float16`."""
    return str(dtype).removeprefix("torch.")


def cpu_multiplies_bf16() -> bool:
    """Whether this processor has instructions for bf16 products, as far as this torch can tell."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)
