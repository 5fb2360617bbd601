"""Rays a second of a training step of the radiance field, against a straightforward dense twin with the same maths.

    python -m benchmarks.nerf_step

One step: 4,096 rays into a room of 128^3 voxels, ranks 16/4/4 and 48/12/12, half-voxel samples, colour where a sample weighs
more than 1e-4, mean squared error, gradients of everything. Both leave the same cells out. Peer: samples on a dense
[rays, samples] grid, planes and lines by `grid_sample`, cumulative products, boolean masks, one pass through the colour
network. Ours: packed samples, tables by sparse products, front to back. Colours must agree to 1e-3 and gradients to 1 %.
Each steps a few times in a row and the last time counts, for both: what the other one gave back to the system is still being
cleared away during the first. The last line is one JSON object; `ratio` is the median of the repeats' ratios.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import interleaved, last_of, median_ratio, medians, parser, report
from ov3d.nerf.field import RadianceField, VectorMatrix
from ov3d.nerf.lookup import LINE_AXES, PLANE_AXES
from ov3d.nerf.occupancy import Occupancy, find_occupancy
from ov3d.nerf.rendering import DENSITY_FACTOR, LEAST_WEIGHT, render_colour, weigh
from ov3d.nerf.sampling import march
from ov3d.nerf.spaces import Lines, Space

PLACES, NUM_RAYS, REPEATS, IN_A_ROW, GOAL = 128, 4096, 5, 3, 3.0
SPACE = Space("box", np.eye(4), -np.ones(3), np.ones(3), 0.05)
DELTA = 0.5 * 2 / (PLACES - 1)
OPTICAL_STEP = DENSITY_FACTOR * DELTA


def main() -> None:
    """Run both, print rays a second and the JSON line."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)  # the goal is a core's; idle threads that wait would count as processor time
    field, (origin, direction), jitter = room(), _rays(), torch.rand(NUM_RAYS, generator=_seeded(2))
    occupancy = find_occupancy(field, optical_step=OPTICAL_STEP, threshold=1e-3)
    images = [_image(table, field.resolution) for table in _tables(field)]
    target = torch.rand(NUM_RAYS, 3, generator=_seeded(3))
    colours = {}

    def step(name: str) -> float:
        start = time.process_time()
        lines = SPACE.lines(origin, direction)
        if name == "ours":
            field.zero_grad()
            samples = march(SPACE, lines, occupancy, DELTA, jitter=jitter)
            colour = render_colour(field, weigh(field, samples), direction, 1.0)
        else:
            for image in images:
                image.grad = None
            colour = _dense(field, images, lines, direction, jitter, occupancy)
        (colour - target).square().mean().backward()
        taken = time.process_time() - start
        colours[name] = colour.detach()
        return taken

    calls = {name: partial(last_of, IN_A_ROW, partial(step, name)) for name in ("ours", "peer")}
    times = interleaved(calls, REPEATS, clock=None)
    colour_error = float((colours["ours"] - colours["peer"]).abs().max())
    pairs = zip((table.grad for table in _tables(field)), (_table(image.grad) for image in images), strict=True)
    gradient_error = max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs)
    ours, peer = (NUM_RAYS / median for median in medians(times).values())
    ratio = median_ratio(times["peer"], times["ours"])
    kept = weigh(field, march(SPACE, SPACE.lines(origin, direction), occupancy, DELTA, jitter=jitter))
    print(f"{len(kept.samples)} samples, {len(kept.visible().samples)} with colour, of {NUM_RAYS} rays")
    print(
        f"{ours:.0f} rays/s, dense twin {peer:.0f} ({ratio:.1f}x); colour {colour_error:.1e}, gradient {gradient_error:.1e}"
    )
    right = colour_error < 1e-3 and gradient_error < 1e-2
    report(
        "nerf_step",
        ours=round(ours),
        peer=round(peer),
        unit="rays/s of processor time, a training step",
        ratio=round(ratio, 2),
        goal=GOAL,
        met=right and ratio >= GOAL,
        save=options.save,
        threads=torch.get_num_threads(),
        max_colour_error=colour_error,
        max_gradient_error=gradient_error,
    )


def room(places: int = PLACES) -> RadianceField:
    """Walls, floor, ceiling and some blocks, as opaque as a trained field's, in noise; nothing is learnt here."""
    torch.manual_seed(0)
    field = RadianceField((places, places, places), generator=_seeded(0))
    grid, along = field.density_grid, torch.linspace(0, 1, places)
    wall = ((along < 0.06) | (along > 0.94)).float()
    generator = _seeded(1)
    with torch.no_grad():
        for table in [*grid.planes, *grid.lines]:
            table.mul_(0.2)
        blocks = [(torch.maximum(wall[:, None], wall[None]), torch.ones(places), 16.0)]
        blocks.append((torch.ones(places, places), torch.ones(places), -0.3))
        for _ in range(6):
            low = torch.rand(3, generator=generator) * 0.6 + 0.1
            high = low + 0.05 + 0.15 * torch.rand(3, generator=generator)
            x, y, z = (((along > a) & (along < b)).float() for a, b in zip(low.tolist(), high.tolist(), strict=True))
            blocks.append((x[:, None] * y, z, 16.0))
        for component, (plane, line, density) in enumerate(blocks):
            grid.planes[0][:, component] = density * plane.flatten()
            grid.lines[0][:, component] = line
        grid.planes[1][:, 0] = 16.0 * wall.expand(places, places).flatten()
        grid.lines[1][:, 0] = 1.0
    return field


def _rays() -> tuple[Tensor, Tensor]:
    """From the middle of the room to all sides."""
    direction = torch.randn(NUM_RAYS, 3, generator=_seeded(4))
    origin = torch.tensor([0.1, 0.05, 0.1]).expand(NUM_RAYS, 3).contiguous()
    return origin, direction / direction.norm(dim=1, keepdim=True)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------- the twin


def _tables(field: RadianceField) -> list[Tensor]:
    grids = (field.density_grid, field.appearance_grid)
    return [table for grid in grids for k in range(3) for table in (grid.planes[k], grid.lines[k])]


def _image(table: Tensor, resolution: tuple[int, int, int]) -> Tensor:
    """A table as the image that `grid_sample` reads: channels first; a line is one pixel wide."""
    places, height = len(table), resolution[0]
    shape = (height, places // height) if places > height else (places, 1)
    return table.detach().T.reshape(1, -1, *shape).contiguous().requires_grad_()


def _table(image: Tensor) -> Tensor:
    return image[0].flatten(1).T


def _products(images: list[Tensor], grid: VectorMatrix, at: Tensor) -> Tensor:
    """All components at points in [-1, 1]^3."""
    parts = []
    for k in range(len(grid.ranks)):
        a, b = PLANE_AXES[k]
        across = at[:, [b, a]].view(1, -1, 1, 2)
        line = torch.stack((torch.zeros_like(at[:, 0]), at[:, LINE_AXES[k]]), 1).view(1, -1, 1, 2)
        plane = F.grid_sample(images[2 * k], across, align_corners=True)[0, :, :, 0]
        parts.append(plane * F.grid_sample(images[2 * k + 1], line, align_corners=True)[0, :, :, 0])
    return torch.cat(parts)


def _dense(
    field: RadianceField, images: list[Tensor], lines: Lines, direction: Tensor, jitter: Tensor, occupancy: Occupancy
) -> Tensor:
    """A step on a dense grid of samples."""
    num_samples = int(float((lines.far - lines.near).max()) / DELTA) + 1
    distance = lines.near[:, None] + (torch.arange(num_samples) + jitter[:, None]) * DELTA
    points = lines.origin[:, None] + distance[..., None] * lines.direction[:, None]
    valid = distance < lines.far[:, None]
    valid &= occupancy.lookup(SPACE.unit(points.reshape(-1, 3))).view(valid.shape)
    density = torch.zeros_like(distance)
    density[valid] = _products(images[:6], field.density_grid, points[valid]).sum(0).relu()
    alpha = 1 - torch.exp(-density * OPTICAL_STEP)
    light = torch.cumprod(torch.cat((torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10), 1), 1)[:, :-1]
    weight = alpha * light
    seen = weight > LEAST_WEIGHT
    colour = torch.zeros_like(points)
    code = field.basis(_products(images[6:], field.appearance_grid, points[seen]).T)
    views = direction[:, None].expand_as(points)[seen]
    colour[seen] = torch.sigmoid(field.colour.layers(torch.cat((code, views), 1)))
    return (weight[..., None] * colour).sum(1) + 1 - weight.sum(1, keepdim=True)


if __name__ == "__main__":
    main()
