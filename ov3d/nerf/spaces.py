"""Spaces: how the world is mapped into the box of a grid. Rays are straight lines in two of them, bent in the third.

    box          q = x                                                     a bounded scene
    forward      q = (-f_x x/z, -f_y y/z, 1 + 2/z)                         all cameras look the same way               (1)
    contraction  q = x                          where |x| <= 1             everything else
                 q = (2 - 1/|x|) x/|x|          elsewhere                                                              (2)

x is the world after a similarity S (recentred, turned, scaled), and |.| is the maximum norm, so that (2) fills a cube. In
`forward` the cameras look along -z from z >= 0, and z = -1 is the near plane.

Source: (1) Mildenhall et al., *NeRF*, ECCV 2020, appendix C, with near = 1; (2) Barron et al., *Mip-NeRF 360*, CVPR 2022,
eq. 10, with the norm that fits a grid.

Symbols: o, d origin and unit direction of a ray; s distance along it in the space; L, H lowest and highest corner of the box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Float, Float64, Int64

SpaceKind = Literal["box", "forward", "contraction"]

HUGE = 1e6
"""Where a bent ray ends: distances beyond it count as infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Rays as a march sees them.

    Attributes:
        origin: start, in the space's frame (before the bend of a contraction).
        direction: unit vectors there.
        near, far: s of the part that can lie inside the box; far <= near if none can.
    """

    origin: Float[Tensor, "n 3"]
    direction: Float[Tensor, "n 3"]
    near: Float[Tensor, " n"]
    far: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.origin)


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """A mapping from the world into a box.

    Attributes:
        kind: which.
        from_world: the similarity S, 4x4.
        low, high: L and H.
        near: least s of a sample, so that nothing is placed right in front of a lens.
        focal: f_x and f_y of (1): twice the focal lengths over the image's size; 1 elsewhere.
    """

    kind: SpaceKind
    from_world: Float64[Array, "4 4"]
    low: Float64[Array, " 3"]
    high: Float64[Array, " 3"]
    near: float
    focal: tuple[float, float] = (1.0, 1.0)

    @property
    def size(self) -> Float64[Array, " 3"]:
        """Sides of the box."""
        return self.high - self.low

    @property
    def key(self) -> str:
        """Hash of the space, in single precision: on another machine the last bits may differ."""
        numbers = [*self.from_world.ravel(), *self.low, *self.high, self.near, *self.focal]
        return hash_text(self.kind, np.array(numbers, np.float32).tobytes().hex())

    @property
    def scale(self) -> float:
        """Length in the space's frame of one world unit."""
        return float(np.cbrt(np.linalg.det(self.from_world[:3, :3])))

    def lines(self, origin: Float[Tensor, "n 3"], direction: Float[Tensor, "n 3"]) -> Lines:
        """The rays of a batch.

        Args:
            origin: in the world.
            direction: unit vectors in the world.
        """
        matrix = torch.from_numpy(self.from_world).to(origin)
        o = origin @ matrix[:3, :3].T + matrix[:3, 3]
        d = direction @ (matrix[:3, :3] / self.scale).T
        if self.kind == "forward":
            o, d = self._projected(o, d)
        near, far = self._span(o, d)
        return Lines(o, d, near, far)

    def points(self, lines: Lines, ray_idx: Int64[Tensor, " m"], distance: Float[Tensor, " m"]) -> Float[Tensor, "m 3"]:
        """q at distances along rays."""
        along = distance if self.kind != "contraction" else _unbent_distance(distance)
        position = torch.addcmul(
            lines.origin.index_select(0, ray_idx), lines.direction.index_select(0, ray_idx), along[:, None]
        )
        return position if self.kind != "contraction" else contract(position)

    def unit(self, q: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
        """q in [0, 1]^3 of the box."""
        low, size = torch.from_numpy(self.low).to(q), torch.from_numpy(self.size).to(q)
        return (q - low) / size

    def to_world(self, q: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
        """World positions of q."""
        x = q
        if self.kind == "contraction":
            x = uncontract(q)
        elif self.kind == "forward":
            z = 2 / (q[:, 2] - 1).clamp(max=-1e-6)  # q_z = 1 is infinitely far
            x = torch.stack((-q[:, 0] * z / self.focal[0], -q[:, 1] * z / self.focal[1], z), 1)
        inverse = torch.from_numpy(np.linalg.inv(self.from_world)).to(q)
        return x @ inverse[:3, :3].T + inverse[:3, 3]

    def shrunk(self, low: Float64[Array, " 3"], high: Float64[Array, " 3"]) -> Space:
        """The same space with a smaller box."""
        return Space(self.kind, self.from_world, low, high, self.near, self.focal)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, read back by `from_json`."""
        return {
            "kind": self.kind,
            "from_world": self.from_world.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "near": self.near,
            "focal": list(self.focal),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The space that `to_json` wrote."""
        arrays = {name: np.array(data[name], np.float64) for name in ("from_world", "low", "high")}
        return cls(data["kind"], near=data["near"], focal=tuple(data["focal"]), **arrays)

    def _projected(
        self, o: Float[Tensor, "n 3"], d: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Rays of (1): from the near plane to infinity; straight lines stay straight."""
        z = d[:, 2].clamp(max=-1e-6)  # a ray that looks backwards sees nothing; it must not divide by zero
        o = o - ((1 + o[:, 2]) / z)[:, None] * d
        focal = torch.tensor(self.focal, device=o.device, dtype=o.dtype)
        start = torch.cat((-focal * o[:, :2] / o[:, 2:], 1 + 2 / o[:, 2:]), 1)
        end = torch.cat((-focal * d[:, :2] / z[:, None], torch.ones_like(o[:, 2:])), 1)
        way = end - start
        return start, way / way.norm(dim=1, keepdim=True).clamp(min=1e-9)

    def _span(
        self, o: Float[Tensor, "n 3"], d: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Where rays enter and leave the box: the slab test. A bent ray is inside from its near end to infinity."""
        if self.kind == "contraction":
            near = torch.full_like(o[:, 0], self.near)
            return near, torch.full_like(near, _bent_distance(HUGE))
        low, high = torch.from_numpy(self.low).to(o), torch.from_numpy(self.high).to(o)
        safe = torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)  # parallel to a face: its slab is far away
        first, second = (low - o) / safe, (high - o) / safe
        near = torch.minimum(first, second).amax(1).clamp(min=self.near)
        return near, torch.maximum(first, second).amin(1)


def contract(x: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
    """Equation (2)."""
    norm = x.abs().amax(1, keepdim=True).clamp(min=1)
    return x * ((2 - 1 / norm) / norm)


def uncontract(q: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
    """The inverse of (2); its border is mapped to `HUGE`."""
    norm = q.abs().amax(1, keepdim=True)
    outer = 1 / ((2 - norm).clamp(min=1 / HUGE) * norm.clamp(min=1))
    return torch.where(norm <= 1, q, q * outer)


def _unbent_distance(s: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Steps are even up to 1, then even in the inverse distance: about even in the contracted space."""
    return torch.where(s <= 1, s, 1 / (2 - s).clamp(min=1 / HUGE))


def _bent_distance(t: float) -> float:
    return t if t <= 1 else 2 - 1 / t
