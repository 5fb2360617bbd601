"""Reads weights from an ONNX file without the onnx package.

ONNX is a Protocol Buffers message. Only the needed parts of its wire format are read: a message is a sequence of fields, each
a tag (number and type) and a value; type 2 has a length and holds bytes, text or another message. Field numbers are those of
onnx.proto: ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.input 1, output 2, name 3, op_type 4;
TensorProto.dims 1, data_type 2, float_data 4, name 8, raw_data 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import CorruptFileError
from ov3d.common.base.shapes import Array, Float32

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT32 = 1


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One operation of the graph.

    Attributes:
        name: includes the path of its module.
        operation: for example `MatMul`.
        inputs: names of tensors, initialisers among them.
        outputs: names of tensors.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """The parts read from a file.

    Attributes:
        nodes: the operations by name.
        initialisers: fp32 weights by name; other types are skipped.
    """

    nodes: dict[str, OnnxNode]
    initialisers: dict[str, Float32[Array, ...]]


def read_onnx(path: Path) -> OnnxGraph:
    """The operations and fp32 weights of an ONNX file.

    Raises:
        CorruptFileError: it is not a complete ONNX file.
    """
    try:
        model = memoryview(path.read_bytes())
        graph = next(value for number, value in _fields(model) if number == 7 and isinstance(value, memoryview))
        nodes: dict[str, OnnxNode] = {}
        weights: dict[str, Float32[Array, ...]] = {}
        for number, value in _fields(graph):
            if number == 1 and isinstance(value, memoryview):
                node = _node(value)
                nodes[node.name] = node
            elif number == 5 and isinstance(value, memoryview):
                weights.update(_tensor(value))
    except (IndexError, ValueError, StopIteration) as error:
        raise CorruptFileError(f"{path} is not a complete ONNX file: {error}.", "Reinstall its package.") from error
    return OnnxGraph(nodes, weights)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of a message's fields."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of wire type {kind}")
        if position + length > len(message):
            raise ValueError("a field extends beyond its message")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer in groups of seven bits, lowest first, and the position behind it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _node(message: memoryview) -> OnnxNode:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for number, value in _fields(message):
        if number in texts and isinstance(value, memoryview):
            texts[number].append(str(value, "utf-8"))
    return OnnxNode("".join(texts[3]), "".join(texts[4]), tuple(texts[1]), tuple(texts[2]))


def _tensor(message: memoryview) -> dict[str, Float32[Array, ...]]:
    """The tensor by its name; empty if it is not fp32."""
    dims: list[int] = []
    name, data_type = "", 0
    data: memoryview | None = None
    for number, value in _fields(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            data_type = value
        elif number in (4, 9) and isinstance(value, memoryview):
            data = value
        elif number == 8 and isinstance(value, memoryview):
            name = str(value, "utf-8")
    if data_type != _FLOAT32 or data is None:
        return {}
    return {name: np.frombuffer(data, dtype="<f4").reshape(dims)}


def _packed(message: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(message):
        value, position = _varint(message, position)
        values.append(value)
    return values
