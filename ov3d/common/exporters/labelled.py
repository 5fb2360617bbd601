"""A scan with its labels as a PLY: every point of the input in order, with all its input columns.

x y z [anything] label score red green blue, binary little-endian
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ov3d.common.asking.words import NO_LABEL
from ov3d.common.base.files import atomic_write
from ov3d.common.base.shapes import Array, Float32, UInt8, UInt16
from ov3d.common.readers.scan import PLY_TYPES, Scan

BLOCK_POINTS = 1 << 19
NO_LABEL_COLOUR = (90, 90, 90)


def write_labelled(
    path: str | Path,
    scan: Scan,
    labels: UInt16[Array, " n"],
    scores: Float32[Array, " n"],
    classes: Sequence[str],
    comments: Sequence[str] = (),
) -> Path:
    """Write a scan with its labels, atomically and block by block.

    Args:
        path: the file to create or replace.
        scan: every point of it is written, in order.
        labels: indices into `classes`, `NO_LABEL` for no label.
        scores: raw cosine of each point.
        classes: their names; each becomes a comment, `class NUMBER NAME`.
        comments: further header lines; non-ASCII characters are escaped.

    Raises:
        StorageError: the file cannot be written; the old one is untouched.
    """
    columns = [(name, values.dtype.newbyteorder("<")) for name, values in scan.columns.items()]
    columns += [("label", np.dtype("<u2")), ("score", np.dtype("<f4"))]
    columns += [(name, np.dtype("u1")) for name in ("red", "green", "blue")]
    lines = ["ply", "format binary_little_endian 1.0"]
    said = [*comments, *(f"class {number} {name}" for number, name in enumerate(classes)), f"class {NO_LABEL} no label"]
    lines += [f"comment {ascii(' '.join(line.split()))[1:-1]}" for line in said]
    lines += [f"element vertex {len(scan)}"]
    lines += [f"property {PLY_TYPES[dtype.str.lstrip('<|')]} {name}" for name, dtype in columns]
    colours = np.concatenate([palette(len(classes)), [NO_LABEL_COLOUR]]).astype(np.uint8)
    with atomic_write(path) as stream:
        stream.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
        for start in range(0, len(scan), BLOCK_POINTS):
            rows = slice(start, min(start + BLOCK_POINTS, len(scan)))
            block = np.empty(rows.stop - rows.start, np.dtype(columns))
            for name, values in scan.columns.items():
                block[name] = values[rows]
            block["label"], block["score"] = labels[rows], scores[rows]
            rgb = colours[np.minimum(labels[rows], len(classes))]
            for channel, name in enumerate(("red", "green", "blue")):
                block[name] = rgb[:, channel]
            stream.write(block.tobytes())
    return Path(path)


def palette(count: int) -> UInt8[Array, "k 3"]:
    """Class colours: hues a golden angle apart, cycling through three lightnesses, so that consecutive classes differ."""
    colours = [
        colorsys.hls_to_rgb((0.02 + number * 0.61803398875) % 1, (0.45, 0.62, 0.30)[number % 3], 0.70)
        for number in range(count)
    ]
    return np.rint(np.array(colours, np.float64).reshape(-1, 3) * 255).astype(np.uint8)
