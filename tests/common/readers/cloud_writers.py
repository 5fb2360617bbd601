"""Write a cloud in each format, with code that shares nothing with the readers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ov3d.common.scenes.scene import PointCloud


def columns(cloud: PointCloud, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[tuple[float, ...]]:
    """Rows x y z r g b label instance; positions in fp64."""
    assert cloud.rgb is not None and cloud.labels is not None and cloud.instances is not None
    xyz = cloud.xyz.astype(np.float64) + offset
    return [
        (*position, *colour, label, instance)
        for position, colour, label, instance in zip(
            xyz.tolist(), cloud.rgb.tolist(), cloud.labels.tolist(), cloud.instances.tolist(), strict=True
        )
    ]


def write_las(
    path: Path, cloud: PointCloud, *, offset: tuple[float, float, float] = (0.0, 0.0, 0.0), scale: float = 1e-4
) -> Path:
    """LAS 1.2, point format 2; 255 is an unknown class. Positions are rounded to `scale`, intensities to whole numbers."""
    records = b""
    rows = columns(cloud, offset)
    strengths = [0] * len(rows) if cloud.intensity is None else [int(value) for value in cloud.intensity]
    for (x, y, z, r, g, b, label, _), strength in zip(rows, strengths, strict=True):
        ints = [round((value - start) / scale) for value, start in zip((x, y, z), offset, strict=True)]
        classification = int(label) & 31
        records += struct.pack(
            "<iiiHBBbBH3H", *ints, strength, 0, classification, 0, 0, 0, *(int(c) * 257 for c in (r, g, b))
        )
    head = b"LASF" + struct.pack("<HHIHH8sBB", 0, 0, 0, 0, 0, b"", 1, 2) + b"\0" * 64
    head += struct.pack("<HHHIIBHI5I", 1, 2026, 227, 227, 0, 2, 26, len(rows), len(rows), 0, 0, 0, 0)
    head += struct.pack("<3d3d", scale, scale, scale, *offset)
    for axis in range(3):
        values = [row[axis] for row in rows]
        head += struct.pack("<2d", max(values), min(values))
    assert len(head) == 227
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + records)
    return path


def write_pcd(path: Path, cloud: PointCloud, form: str) -> Path:
    """PCD with packed colours (as floating point, PCL's way), labels, objects, and where there is one the intensity."""
    rows = columns(cloud)
    strengths = [()] * len(rows) if cloud.intensity is None else [(value,) for value in cloud.intensity.tolist()]
    bits = [(int(r) << 16) | (int(g) << 8) | int(b) for _, _, _, r, g, b, *_ in rows]
    packed = [struct.unpack("<f", struct.pack("<I", one))[0] for one in bits]
    more = ("", "", "", "") if cloud.intensity is None else (" intensity", " 4", " F", " 1")
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb _ label instance{more[0]}\nSIZE 4 4 4 4 1 4 4{more[1]}\n"
    head += f"TYPE F F F F U I I{more[2]}\nCOUNT 1 1 1 1 4 1 1{more[3]}\nWIDTH {len(rows)}\nHEIGHT 1\n"
    head += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA {form}\n"
    if form == "ascii":
        lines = [
            " ".join(map(repr, (*row[:3], colour, 1, 2, 3, 4, *row[6:], *strength)))
            for row, colour, strength in zip(rows, packed, strengths, strict=True)
        ]
        data = ("\n".join(lines) + "\n").encode()
    elif form == "binary":
        data = b"".join(
            struct.pack(f"<4f4Bii{len(strength)}f", *row[:3], colour, 1, 2, 3, 4, *row[6:], *strength)
            for row, colour, strength in zip(rows, packed, strengths, strict=True)
        )
    else:
        parts = [struct.pack(f"<{len(rows)}f", *(row[axis] for row in rows)) for axis in range(3)]
        parts += [struct.pack(f"<{len(rows)}f", *packed), b"\1\2\3\4" * len(rows)]
        parts += [struct.pack(f"<{len(rows)}i", *(row[k] for row in rows)) for k in (6, 7)]
        parts += [struct.pack("<f", *strength) for strength in strengths if strength]
        plain = b"".join(parts)
        squeezed = lzf_compress(plain)
        data = struct.pack("<II", len(squeezed), len(plain)) + squeezed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + data)
    return path


def lzf_compress(data: bytes) -> bytes:
    """LZF by brute force over a table of the last place of each three bytes."""
    out, plain, seen, at = bytearray(), bytearray(), {}, 0

    def flush() -> None:
        for start in range(0, len(plain), 32):
            piece = plain[start : start + 32]
            out.append(len(piece) - 1)
            out.extend(piece)
        plain.clear()

    while at < len(data):
        key = data[at : at + 3]
        place = seen.get(key, -1)
        seen[key] = at
        if len(key) == 3 and place >= 0 and at - place <= 8192:
            length = 3
            while length < 264 and at + length < len(data) and data[place + length] == data[at + length]:
                length += 1
            flush()
            distance = at - place - 1
            if length - 2 < 7:
                out.append(((length - 2) << 5) | (distance >> 8))
            else:
                out += bytes([(7 << 5) | (distance >> 8), length - 2 - 7])
            out.append(distance & 255)
            at += length
        else:
            plain.append(data[at])
            at += 1
    flush()
    return bytes(out)


def write_bin(path: Path, cloud: PointCloud, num_columns: int) -> Path:
    """KITTI's four columns, nuScenes' five or mmdetection3d's six."""
    rows = columns(cloud)
    form = {
        4: lambda k, row: (*row[:3], (k % 100) / 100),
        5: lambda k, row: (*row[:3], float(k % 256), float(k % 32)),
        6: lambda k, row: row[:6],
    }[num_columns]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(struct.pack(f"<{num_columns}f", *form(k, row)) for k, row in enumerate(rows)))
    return path
