"""Write rendered views as a ScanNet-style folder, the layout that `ov3d.common.readers.scannet` reads.

color/N.png  depth/N.png (16-bit mm)  label/N.png  instance/N.png (0 = no object)  pose/N.txt  intrinsic/*.txt  classes.txt
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import DataError
from ov3d.common.base.files import atomic_write, write_bytes, write_text
from ov3d.common.base.shapes import Array, Float64, Shaped
from ov3d.common.scenes.cameras import Camera
from ov3d.common.scenes.scene import IGNORE, PointCloud
from ov3d.common.worlds.raycast import View

UNKNOWN_LABEL = 255
"""The value written for pixels without a class."""


def refuse_other_frames(folder: Path, num_views: int) -> None:
    """Raise if a folder has frames that would remain among the new ones after writing `num_views` views."""
    names = {str(number) for number in range(num_views)}
    for part in ("color", "pose", "depth"):
        if not (folder / part).is_dir():
            continue
        for path in sorted((folder / part).iterdir()):
            if path.stem not in names or (part == "color" and path.suffix != ".png"):
                raise DataError(
                    f"{folder} already holds another scene ({part}/{path.name}).", "Choose an empty folder."
                )


def write_facts(folder: Path, camera: Camera, classes: Sequence[str]) -> None:
    """Write the intrinsics and the class names.

    The layout's pixel centres are at whole numbers, ours at +0.5: the principal point is half a pixel less.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = camera.matrix
    matrix[:2, 2] -= 0.5
    for name in ("intrinsic_color.txt", "intrinsic_depth.txt"):
        write_text(folder / "intrinsic" / name, _matrix_text(matrix))
    write_text(folder / "classes.txt", "\n".join(classes) + "\n")


def write_view(folder: Path, name: str, view: View) -> None:
    """Write one view under its name; depth is rounded to the millimetre."""
    millimetres = np.rint(view.depth.astype(np.float64) * 1000)
    millimetres = np.where(millimetres <= 65535, millimetres, 0).astype(np.uint16)  # 0 means missing in this layout
    labels = np.where(view.labels == IGNORE, UNKNOWN_LABEL, view.labels).astype(np.uint8)
    instances = np.where(view.instances == IGNORE, 0, view.instances).astype(np.uint16)
    write_bytes(folder / "color" / f"{name}.png", png_bytes(view.rgb))
    write_bytes(folder / "depth" / f"{name}.png", png_bytes(millimetres))
    write_bytes(folder / "label" / f"{name}.png", png_bytes(labels))
    write_bytes(folder / "instance" / f"{name}.png", png_bytes(instances))
    # The pose comes last: an interrupted view has none, so the reader leaves it out.
    write_text(folder / "pose" / f"{name}.txt", _matrix_text(view.world_from_camera))


def write_cloud(path: Path, cloud: PointCloud) -> None:
    """Write points with colour, class and object (-1 = none) as a binary PLY."""
    from plyfile import PlyData, PlyElement

    fields = [("x", "f4"), ("y", "f4"), ("z", "f4")]
    columns: list[Shaped[Array, " n"]] = [cloud.xyz[:, 0], cloud.xyz[:, 1], cloud.xyz[:, 2]]
    if cloud.rgb is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
        columns += [cloud.rgb[:, 0], cloud.rgb[:, 1], cloud.rgb[:, 2]]
    for name, values in (("label", cloud.labels), ("instance", cloud.instances)):
        if values is not None:
            fields.append((name, "i4"))
            columns.append(values)
    vertices = np.empty(len(cloud), dtype=fields)
    for (name, _), column in zip(fields, columns, strict=True):
        vertices[name] = column
    with atomic_write(path) as stream:
        PlyData([PlyElement.describe(vertices, "vertex")], text=False, byte_order="<").write(stream)


def png_bytes(image: Shaped[Array, ...]) -> bytes:
    """An image of 8 or 16 bits per channel as a PNG file's bytes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", compress_level=4)
    return stream.getvalue()


def _matrix_text(matrix: Float64[Array, "4 4"]) -> str:
    return "\n".join(" ".join(repr(float(value)) for value in row) for row in matrix) + "\n"
