"""Prompts whose scores an index must keep: the error of the low-rank basis is measured on them."""

from __future__ import annotations

PROBES = (
    *("a cat", "a dog", "a bird", "a horse", "a person", "a plant", "a flower", "a tree", "grass", "food", "fruit"),
    *("a chair", "a table", "a sofa", "a bed", "a lamp", "a shelf", "a cupboard", "a desk", "a door", "a window"),
    *("a curtain", "a carpet", "a pillow", "a picture", "a mirror", "a clock", "a vase", "a cup of coffee", "a bottle"),
    *("a plate", "a knife", "a book", "a newspaper", "a computer", "a keyboard", "a telephone", "a television"),
    *("a box", "a bag", "a ball", "a toy", "a shoe", "a hat", "clothing", "a towel", "a tool", "a hammer", "a bucket"),
    *("a car", "a truck", "a bicycle", "a motorcycle", "a bus", "a train", "an airplane", "a boat", "a rocket"),
    *("a road", "a building", "a house", "a temple", "a bridge", "a fence", "a wall", "the floor", "the ceiling"),
    *(
        "the sky",
        "water",
        "a mountain",
        "a stone",
        "wood",
        "metal",
        "glass",
        "paper",
        "a traffic sign",
        "a musical instrument",
    ),
    *(
        "somewhere to sit",
        "something to drink",
        "something that flies",
        "an animal",
        "a vehicle",
        "furniture",
        "an instrument",
    ),
)
"""Everyday things, places, stuff and uses; frozen, because the rank of an index depends on them."""
