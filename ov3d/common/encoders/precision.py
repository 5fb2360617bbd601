"""The floating-point type of image networks."""

from __future__ import annotations

import os

import torch

from ov3d.common.base.errors import UsageError

AUTO_VARIABLE = "OV3D_DTYPE"
"""The environment variable that sets the meaning of `auto`, so that machines with different processors share features."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(choice: str, device: torch.device) -> torch.dtype:
    """The type for `choice` on a device.

    `auto` means the value of OV3D_DTYPE. If that is unset, `auto` is fp16 on CUDA; on a CPU it is bf16 if the processor has
    bf16 instructions (AMX or AVX512-BF16), else fp32, because emulated bf16 is slower.

    Raises:
        UsageError: no such type, or fp16 on a CPU.
    """
    source = ""
    if choice == "auto" and (forced := os.environ.get(AUTO_VARIABLE)):
        choice, source = forced, f" (from {AUTO_VARIABLE})"
    if choice == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bf16() else torch.float32
    if choice not in DTYPES:
        raise UsageError(f"Unknown floating type {choice!r}{source}.", f"Choose one of auto, {', '.join(DTYPES)}.")
    if choice == "float16" and device.type == "cpu":
        hint = "Use auto, float32 or bfloat16."
        raise UsageError(f"Image networks do not run in float16{source} on a CPU.", hint)
    return DTYPES[choice]


def dtype_name(dtype: torch.dtype) -> str:
    """The name used in identities: `float32`, `bfloat16` or `float16`."""
    return str(dtype).removeprefix("torch.")


def cpu_multiplies_bf16() -> bool:
    """Whether this processor has bf16 instructions, as far as this torch version can tell."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)
