"""The general classes of nuScenes: label files number them 0 to 31, and `category.json` has to agree.

That table has an `index` only once the lidarseg or panoptic package has overwritten it. Labels hold general classes, whose
numbers are fixed, so the table is not needed to read them.
"""

from __future__ import annotations

from pathlib import Path

from ov3d.common.base.errors import DataError
from ov3d.common.readers.json_records import records

GENERAL_CLASSES = (
    "noise", "animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller",
    "human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris", "movable_object.pushable_pullable",
    "movable_object.trafficcone", "static_object.bicycle_rack", "vehicle.bicycle", "vehicle.bus.bendy",
    "vehicle.bus.rigid", "vehicle.car", "vehicle.construction", "vehicle.emergency.ambulance", "vehicle.emergency.police",
    "vehicle.motorcycle", "vehicle.trailer", "vehicle.truck", "flat.driveable_surface", "flat.other", "flat.sidewalk",
    "flat.terrain", "static.manmade", "static.other", "static.vegetation", "vehicle.ego",
)  # fmt: skip
"""Names of the general classes 0 to 31 of the lidarseg and panoptic packages."""


def check_categories(folder: Path) -> None:
    """See that `category.json`, where it numbers its classes, numbers them as label files do.

    Raises:
        DataError: it does not.
    """
    path = folder / "category.json"
    if not path.is_file():
        return
    for row in records(path):
        index, name = row.get("index"), str(row.get("name"))
        if index is None or name not in GENERAL_CLASSES:
            continue  # the table as it was before the lidarseg package: it has no numbers
        if GENERAL_CLASSES.index(name) != index:
            right = GENERAL_CLASSES.index(name)
            raise DataError(
                f"{path} gives {name} the number {index}, label files {right}.", "Download the tables again."
            )
