"""Points with scores as a binary PLY that every point viewer opens.

Written directly from a NumPy record array, so that a query imports nothing more. Coordinates are those of the input: the
world's origin is added back, and if it is not zero they are doubles, because fp32 resolves a UTM northing to half a metre.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ov3d.common.asking.answer import Answer
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.errors import DataError
from ov3d.common.base.files import atomic_write
from ov3d.common.base.shapes import Array, Float, Float32, Int32, UInt8
from ov3d.common.exporters.colours import heat_colours, heat_of

PLY_TYPES = {"<f4": "float", "<f8": "double", "|u1": "uchar", "<i4": "int"}
NO_INSTANCE = -1


def write_answer_ply(
    path: str | Path, index: LanguageIndex, answer: Answer, *, colours: Literal["heatmap", "original"] = "heatmap"
) -> Path:
    """Write an index's points with an answer's scores and objects.

    Vertex properties: x, y, z; red, green, blue; score (raw cosine); instance (rank of the point's found object, from 1;
    -1 for none).

    Args:
        path: the file to create or replace.
        index: the points.
        answer: for this index.
        colours: the heat of the score, or the points' own colours (grey if they have none).

    Raises:
        DataError: the answer is for another index.
        StorageError: the file cannot be written.
    """
    if len(answer.scores) != len(index):
        raise DataError(
            f"An answer with {len(answer.scores)} scores does not belong to an index of {len(index)} points."
        )
    if colours == "heatmap":
        rgb = heat_colours(heat_of(answer.scores, *answer.score_range))
    else:
        rgb = index.rgb if index.rgb is not None else np.full((len(index), 3), 160, np.uint8)
    comments = [
        f"prompt {answer.prompt}",
        f"scene {answer.scene}, encoder {answer.encoder}, threshold {answer.threshold:.4f}",
        f"coordinates in {'metres' if answer.world.units == 'metric' else 'units of the scene'}",
    ]
    return write_ply(
        path,
        index.xyz,
        origin=index.world.origin,
        rgb=rgb,
        fields={"score": answer.scores, "instance": instance_ranks(len(index), answer)},
        comments=comments,
    )


def instance_ranks(num_points: int, answer: Answer) -> Int32[Array, " n"]:
    """The rank of each point's found object, from 1; -1 for none."""
    ranks = np.full(num_points, NO_INSTANCE, np.int32)
    for rank, item in enumerate(answer.objects, start=1):
        ranks[item.point_idx] = rank
    return ranks


def write_ply(
    path: str | Path,
    xyz: Float32[Array, "n 3"],
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    rgb: UInt8[Array, "n 3"] | None = None,
    fields: dict[str, Float[Array, " n"] | Int32[Array, " n"]] | None = None,
    comments: list[str] | None = None,
) -> Path:
    """Write points as a binary little-endian PLY, atomically.

    Args:
        path: the file to create or replace.
        xyz: positions relative to `origin`.
        origin: added back in fp64; unless it is 0 0 0, the file's coordinates are doubles.
        rgb: colours, or None.
        fields: further values per point, by name; floats are written as 32 bits.
        comments: header lines; non-ASCII characters are escaped.

    Raises:
        StorageError: the file cannot be written; the old one is untouched.
    """
    extra = {name: "<f4" if values.dtype.kind == "f" else "<i4" for name, values in (fields or {}).items()}
    columns = [(axis, "<f8" if any(origin) else "<f4") for axis in "xyz"]
    columns += [(channel, "|u1") for channel in ("red", "green", "blue") if rgb is not None]
    columns += list(extra.items())
    records = np.zeros(len(xyz), np.dtype(columns))
    for axis, name in enumerate("xyz"):
        records[name] = xyz[:, axis].astype(np.float64) + origin[axis]
    for channel, name in enumerate(("red", "green", "blue") if rgb is not None else ()):
        records[name] = rgb[:, channel] if rgb is not None else 0
    for name, values in (fields or {}).items():
        records[name] = values
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {ascii(' '.join(line.split()))[1:-1]}" for line in comments or []]
    lines += [f"element vertex {len(records)}", *(f"property {PLY_TYPES[kind]} {name}" for name, kind in columns)]
    with atomic_write(path) as stream:
        stream.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
        stream.write(records.tobytes())
    return Path(path)
