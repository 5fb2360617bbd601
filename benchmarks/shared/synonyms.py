"""Other words for the classes of generated rooms, which no teacher was given: how open a trained network still is.

Written down before any of them was asked for, and frozen: a test compares them with what they were.
"""

from __future__ import annotations

SYNONYMS = {
    "wall": "partition",
    "floor": "ground",
    "ceiling": "roof",
    "box": "carton",
    "pedestal": "plinth",
    "cat": "kitten",
    "coffee": "espresso",
    "temple": "pagoda",
    "motorcycle": "motorbike",
    "rocket": "spacecraft",
    "flower": "blossom",
    "bed": "mattress",
    "bin": "trash can",
    "cabinet": "chest of drawers",
    "chair": "seat",
    "desk": "workstation",
    "lamp": "light",
    "plant": "shrub",
    "shelf": "bookcase",
    "sofa": "couch",
    "stool": "backless seat",
    "table": "tabletop",
    "television": "TV screen",
}
"""One for every class of `ov3d.common.worlds.rooms.CLASSES`."""
