"""Real photographs included with scikit-image and scikit-learn, read from the installed packages without a network."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ov3d.common.base.errors import MissingModelError, UsageError, did_you_mean
from ov3d.common.scenes.images import load_rgb
from ov3d.common.worlds.textures import Texture

INSTALL_HINT = "Install them: pip install 'ov3d[offline]'"


@dataclass(frozen=True, slots=True)
class Photograph:
    """Where a photograph is found, and its credit.

    Attributes:
        package: the distribution that ships it.
        file: its path inside the distribution.
        credit: title, author and terms; printed wherever the photograph is shown.
    """

    package: str
    file: str
    credit: str


PHOTOGRAPHS = {
    "cat": Photograph("scikit-image", "skimage/data/chelsea.png", "Chelsea, by Stefan van der Walt, CC0"),
    "coffee": Photograph("scikit-image", "skimage/data/coffee.png", "Coffee cup, by Rachel Michetti, CC0"),
    "temple": Photograph("scikit-learn", "sklearn/datasets/images/china.jpg", "China, by Ralph Brown, CC BY 2.0"),
    "motorcycle": Photograph(
        "scikit-image",
        "skimage/data/motorcycle_left.png",
        "Motorcycle, Middlebury stereo data set 2014 (Scharstein et al., GCPR 2014)",
    ),
    "rocket": Photograph("scikit-image", "skimage/data/rocket.jpg", "DSCOVR on Falcon 9, by SpaceX, public domain"),
    "flower": Photograph("scikit-learn", "sklearn/datasets/images/flower.jpg", "Dahlia, by dany13, CC BY 2.0"),
}
"""Photographs by the name of their subject."""

GRAVEL = Photograph("scikit-image", "skimage/data/gravel.png", "Gravel, ambientCG, CC0")


def photograph(name: str) -> Texture:
    """The photograph of that name as a texture that does not tile.

    Raises:
        UsageError: unknown photograph.
        MissingModelError: its package is not installed.
    """
    if name not in PHOTOGRAPHS:
        raise UsageError(f"Unknown photograph {name!r}.", did_you_mean(name, PHOTOGRAPHS))
    return _load(PHOTOGRAPHS[name])


@lru_cache(maxsize=1)
def gravel() -> Texture:
    """A photograph of gravel as factors around 1, mirrored so that it tiles."""
    image = _load(GRAVEL).levels[0]
    image = image / image.mean()
    image = np.concatenate([image, image[:, ::-1]], axis=1)
    return Texture.of(np.concatenate([image, image[::-1]], axis=0), tiles=True)


def photograph_path(photo: Photograph) -> Path:
    """The file on this machine, found in the distribution's list of files without importing the package.

    Raises:
        MissingModelError: the package is not installed, or does not include the file.
    """
    try:
        distribution = importlib.metadata.distribution(photo.package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingModelError(
            f"The gallery's photographs come with {photo.package}, which is not installed.", INSTALL_HINT
        ) from None
    path = Path(str(distribution.locate_file(photo.file)))
    if not path.is_file():
        raise MissingModelError(
            f"{photo.package} {distribution.version} does not include {photo.file}, which the gallery needs.",
            "Reinstall it: pip install --force-reinstall --no-deps " + photo.package,
        )
    return path


@lru_cache(maxsize=16)
def _load(photo: Photograph) -> Texture:
    return Texture.of(load_rgb(photograph_path(photo)).astype(np.float32) / np.float32(255), tiles=False)
