"""What `auto` means: the processor decides, unless OV3D_DTYPE does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ov3d.common.base.errors import UsageError
from ov3d.common.encoders.precision import dtype_name, pick_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _processor(monkeypatch: pytest.MonkeyPatch, *, amx: bool, avx: bool) -> None:
    def answer(value: bool) -> Callable[[], bool]:
        return lambda: value

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", answer(amx), raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", answer(avx), raising=False)


@pytest.mark.parametrize(
    ("amx", "avx", "device", "expected"),
    [
        (False, False, CPU, torch.float32),
        (True, False, CPU, torch.bfloat16),
        (False, True, CPU, torch.bfloat16),
        (False, False, CUDA, torch.float16),
    ],
)
@pytest.mark.parametrize("variable", [None, "", "auto"])
def test_the_processor_decides(
    monkeypatch: pytest.MonkeyPatch,
    amx: bool,
    avx: bool,
    device: torch.device,
    expected: torch.dtype,
    variable: str | None,
) -> None:
    _processor(monkeypatch, amx=amx, avx=avx)
    monkeypatch.delenv("OV3D_DTYPE")
    if variable is not None:
        monkeypatch.setenv("OV3D_DTYPE", variable)
    assert pick_dtype("auto", device) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize("bf16", [False, True])
def test_the_variable_overrules_the_processor(
    monkeypatch: pytest.MonkeyPatch, dtype: str, device: torch.device, bf16: bool
) -> None:
    _processor(monkeypatch, amx=bf16, avx=bf16)
    monkeypatch.setenv("OV3D_DTYPE", dtype)
    assert dtype_name(pick_dtype("auto", device)) == dtype


def test_a_type_that_is_named_outright_overrules_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OV3D_DTYPE", "bfloat16")
    assert pick_dtype("float32", CPU) == torch.float32


@pytest.mark.parametrize("by_variable", [False, True])
def test_impossible_types_are_refused(monkeypatch: pytest.MonkeyPatch, by_variable: bool) -> None:
    def pick(dtype: str) -> None:
        monkeypatch.setenv("OV3D_DTYPE", dtype if by_variable else "float32")
        pick_dtype("auto" if by_variable else dtype, CPU)

    source = r" \(from OV3D_DTYPE\)" if by_variable else ""
    with pytest.raises(UsageError, match=f"Unknown floating type 'int8'{source}\\."):
        pick("int8")
    with pytest.raises(UsageError, match=f"do not run in float16{source} on a CPU"):
        pick("float16")
