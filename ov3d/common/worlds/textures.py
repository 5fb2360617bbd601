"""Surface colours: pictures with a mip pyramid, and the patterns that cover walls, floors and furniture.

A texture is sampled trilinearly: bilinear in the two pyramid levels with texels closest in size to the pixel's footprint
(Williams, *Pyramidal parametrics*, SIGGRAPH 1983), so that a photograph seen from afar looks like one scaled down.
Patterns are made from fixed seeds: they do not depend on the room.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ov3d.common.base.shapes import Array, Float, Float32, Float64, Int64

PATTERN_SIZE = 512
"""Texels along each side of a generated pattern; a power of two, so that its pyramid tiles at every level."""


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """A picture to map onto a surface.

    Attributes:
        levels: pyramid of RGB in [0, 1], or factors around 1; level i + 1 is half the size of level i.
        tiles: whether it repeats; otherwise the border texels extend.
    """

    levels: tuple[Float32[Array, "_h _w 3"], ...]
    tiles: bool
    _texels: Float32[Array, "t 3"] = field(repr=False)
    _layout: Int64[Array, "l 3"] = field(repr=False)

    @classmethod
    def of(cls, image: Float32[Array, "h w 3"], *, tiles: bool) -> Texture:
        """Build the pyramid by averaging 2x2 texels; an odd border texel is repeated."""
        levels = [image]
        while min(levels[-1].shape[:2]) > 1:
            top = levels[-1]
            height, width = top.shape[:2]
            top = np.pad(top, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            levels.append(np.float32(0.25) * (top[::2, ::2] + top[1::2, ::2] + top[::2, 1::2] + top[1::2, 1::2]))
        # All levels end to end, so that one look-up covers several; height, width and first texel of each.
        texels = np.concatenate([level.reshape(-1, 3) for level in levels])
        sizes = np.array([level.shape[:2] for level in levels], np.int64)
        starts = np.cumsum(sizes.prod(axis=1)) - sizes.prod(axis=1)
        return cls(tuple(levels), tiles, texels, np.column_stack([sizes, starts]))

    @property
    def aspect(self) -> float:
        """Width over height."""
        height, width = self.levels[0].shape[:2]
        return float(width / height)

    def sample(self, st: Float64[Array, "n 2"], footprint: Float64[Array, " n"]) -> Float32[Array, "n 3"]:
        """Colours at positions in the picture.

        Args:
            st: (right, down) as fractions of the picture's width and height.
            footprint: width of a pixel as a fraction of the picture's width.

        Returns:
            Colours, filtered over the footprint.
        """
        texels = np.maximum(footprint * self.levels[0].shape[1], 1.0)
        level = np.minimum(np.log2(texels), len(self.levels) - 1.0)
        fine = np.minimum(level.astype(np.int64), max(len(self.levels) - 2, 0))
        blend = (level - fine).astype(np.float32)[:, None]
        coarse = np.minimum(fine + 1, len(self.levels) - 1)
        return self._at_level(st, fine) * (1 - blend) + self._at_level(st, coarse) * blend

    def _at_level(self, st: Float64[Array, "n 2"], level: Int64[Array, " n"]) -> Float32[Array, "n 3"]:
        """Bilinear colours, each in its own level."""
        height, width, start = self._layout[level].T
        x, y = st[:, 0] * width - 0.5, st[:, 1] * height - 0.5
        left, top = np.floor(x), np.floor(y)
        a, b = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
        columns, rows = left.astype(np.int64), top.astype(np.int64)
        if self.tiles:
            i0, i1, j0, j1 = rows % height, (rows + 1) % height, columns % width, (columns + 1) % width
        else:
            i0, i1 = rows.clip(0, height - 1), (rows + 1).clip(0, height - 1)
            j0, j1 = columns.clip(0, width - 1), (columns + 1).clip(0, width - 1)
        i0, i1 = i0 * width + start, i1 * width + start
        upper = self._texels.take(i0 + j0, axis=0) * (1 - a) + self._texels.take(i0 + j1, axis=0) * a
        lower = self._texels.take(i1 + j0, axis=0) * (1 - a) + self._texels.take(i1 + j1, axis=0) * a
        return upper * (1 - b) + lower * b


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a surface looks like.

    Attributes:
        colour: RGB in [0, 1].
        texture: factors on the colour, or None.
        scale: metres that a tiling texture spans; 0 lays the picture once over the front (+z) of a box, and nowhere else.
        matte: share of the light that does not depend on the surface's direction.
        grain: rotate a tiling texture on each part so that its width runs along the part's longer side, as wood is cut.
        reflectance: share of a LiDAR pulse that comes back at perpendicular incidence, in [0, 1].
        spread: metres that a pulse may penetrate behind the surface before it returns, as in leaves; 0 for solids.
    """

    colour: tuple[float, float, float]
    texture: Texture | None = None
    scale: float = 1.0
    matte: float = 0.55
    grain: bool = False
    reflectance: float = 0.35
    spread: float = 0.0


def _pattern(factors: Float[Array, "h w"]) -> Texture:
    return Texture.of(np.repeat(factors.astype(np.float32)[:, :, None], 3, axis=2), tiles=True)


def _smooth_noise(seed: int, cells_down: int, cells_across: int) -> Float64[Array, "h w"]:
    """Noise in [-1, 1] that tiles: random values on a coarse grid, bilinear between them."""
    grid = np.random.default_rng(seed).uniform(-1, 1, (cells_down, cells_across))
    y = np.arange(PATTERN_SIZE) * cells_down / PATTERN_SIZE
    x = np.arange(PATTERN_SIZE) * cells_across / PATTERN_SIZE
    i, j = y.astype(int), x.astype(int)
    a, b = (x - j)[None, :], (y - i)[:, None]
    below, right = (i + 1) % cells_down, (j + 1) % cells_across
    upper = grid[np.ix_(i, j)] * (1 - a) + grid[np.ix_(i, right)] * a
    lower = grid[np.ix_(below, j)] * (1 - a) + grid[np.ix_(below, right)] * a
    return upper * (1 - b) + lower * b


def _grid() -> tuple[Int64[Array, "h w"], Int64[Array, "h w"]]:
    rows, columns = np.indices((PATTERN_SIZE, PATTERN_SIZE))
    return rows.astype(np.int64), columns.astype(np.int64)


@lru_cache(maxsize=1)
def wood() -> Texture:
    """Long grain along the picture's width."""
    return _pattern(1 + 0.10 * _smooth_noise(11, 64, 4) + 0.05 * _smooth_noise(12, 256, 16))


@lru_cache(maxsize=1)
def fabric() -> Texture:
    """A fine weave."""
    rows, columns = _grid()
    weave = 0.04 * np.sin(columns * np.pi / 4) * np.sin(rows * np.pi / 4)
    return _pattern(1 + weave + 0.05 * _smooth_noise(21, 32, 32))


@lru_cache(maxsize=1)
def plaster() -> Texture:
    """Paint on plaster: almost nothing to see."""
    return _pattern(1 + 0.02 * _smooth_noise(31, 16, 16) + 0.02 * _smooth_noise(32, 128, 128))


@lru_cache(maxsize=1)
def stripes() -> Texture:
    """Upright wallpaper stripes, four per tile."""
    _, columns = _grid()
    wide = (columns // (PATTERN_SIZE // 8)) % 2
    return _pattern(0.86 + 0.20 * wide + 0.02 * _smooth_noise(41, 64, 64))


@lru_cache(maxsize=1)
def panels() -> Texture:
    """One upright wooden panel with a bevelled frame."""
    rows, columns = _grid()
    edge = np.minimum(np.minimum(rows, PATTERN_SIZE - 1 - rows) // 2, np.minimum(columns, PATTERN_SIZE - 1 - columns))
    factors = np.full((PATTERN_SIZE, PATTERN_SIZE), 1.0)
    factors[(edge >= 36) & (edge < 46)] = 0.78
    factors[(edge >= 46) & (edge < 52)] = 1.10
    factors[edge < 3] = 0.70
    return _pattern(factors + 0.03 * _smooth_noise(51, 8, 128))


@lru_cache(maxsize=1)
def bricks() -> Texture:
    """Eight courses of four bricks, each of its own shade, in light mortar."""
    rows, columns = _grid()
    course_height, brick_width, joint = PATTERN_SIZE // 8, PATTERN_SIZE // 4, 6
    course = rows // course_height
    shifted = (columns + (course % 2) * (brick_width // 2)) % PATTERN_SIZE
    shade = np.random.default_rng(61).uniform(0.82, 1.12, (8, 4))[course, shifted // brick_width]
    mortar = (rows % course_height < joint) | (shifted % brick_width < joint)
    return _pattern(np.where(mortar, 1.45, shade) + 0.06 * _smooth_noise(62, 128, 128))


@lru_cache(maxsize=1)
def planks() -> Texture:
    """Floor boards, eight per tile, along the picture's width."""
    rows, columns = _grid()
    board = rows // (PATTERN_SIZE // 8)
    start = np.random.default_rng(71).integers(0, PATTERN_SIZE, 8)[board]
    shade = np.random.default_rng(72).uniform(0.88, 1.08, 8)[board]
    joint = (rows % (PATTERN_SIZE // 8) < 2) | ((columns - start) % PATTERN_SIZE < 2)
    return _pattern(np.where(joint, 0.6, shade) + 0.06 * _smooth_noise(73, 256, 8))


@lru_cache(maxsize=1)
def tiles() -> Texture:
    """Two by two square tiles with light joints."""
    rows, columns = _grid()
    half = PATTERN_SIZE // 2
    shade = np.random.default_rng(81).uniform(0.93, 1.05, (2, 2))[rows // half, columns // half]
    joint = (rows % half < 5) | (columns % half < 5)
    return _pattern(np.where(joint, 1.15, shade) + 0.02 * _smooth_noise(82, 64, 64))


@lru_cache(maxsize=1)
def asphalt() -> Texture:
    """Speckled tar with patches."""
    return _pattern(1 + 0.10 * _smooth_noise(91, 256, 256) + 0.08 * _smooth_noise(92, 6, 6))


@lru_cache(maxsize=1)
def paving() -> Texture:
    """Four by four slabs with dark joints."""
    rows, columns = _grid()
    side = PATTERN_SIZE // 4
    shade = np.random.default_rng(101).uniform(0.88, 1.08, (4, 4))[rows // side, columns // side]
    joint = (rows % side < 6) | (columns % side < 6)
    return _pattern(np.where(joint, 0.66, shade) + 0.04 * _smooth_noise(102, 128, 128))


@lru_cache(maxsize=1)
def grass() -> Texture:
    """Blades too fine to distinguish, in lighter and darker tufts."""
    return _pattern(1 + 0.22 * _smooth_noise(111, 128, 128) + 0.12 * _smooth_noise(112, 12, 12))


@lru_cache(maxsize=1)
def foliage() -> Texture:
    """Sunlit leaves in front of shaded ones."""
    light = _smooth_noise(121, 24, 24) + 0.7 * _smooth_noise(122, 80, 80)
    return _pattern(np.where(light > 0.1, 1.22, 0.74) + 0.12 * _smooth_noise(123, 128, 128))


@lru_cache(maxsize=1)
def facade() -> Texture:
    """Two by two dark windows with light frames."""
    rows, columns = _grid()
    half = PATTERN_SIZE // 2
    across, down = np.abs(columns % half - half // 2), np.abs(rows % half - half // 2)
    factors = np.full((PATTERN_SIZE, PATTERN_SIZE), 1.0)
    factors[(across < 62) & (down < 84)] = 1.18
    factors[(across < 54) & (down < 76)] = 0.36
    factors[((across < 4) | (down < 4)) & (across < 54) & (down < 76)] = 1.1
    return _pattern(factors + 0.03 * _smooth_noise(131, 64, 64))
