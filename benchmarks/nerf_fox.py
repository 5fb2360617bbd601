"""A radiance field from a walk round a stuffed fox: a real capture with lens distortion and missing photographs, reduced.

50 photographs of 1080x1920 with nerfstudio's transforms.json, which lists 67; every eighth is kept out of training. Printed is
the PSNR of the views kept out, at the reduced size. The gate is that every number is finite; below 18 dB something is wrong
with poses, distortion or space. The capture is looked for in $OV3D_DATA or ../shared/data; without it a line says so.

Run: python -m benchmarks.nerf_fox
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch

from benchmarks.harness import data_folder, parser, report, skip
from benchmarks.shared.nerf_runs import train_nerf

STEPS, LONG_SIDE, GOAL = 800, 320, 18.0


def main() -> None:
    """Train, and print PSNR."""
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--long-side", type=int, default=LONG_SIDE)
    arguments.add_argument("--folder", type=Path, help="where the run is kept; a temporary one without it")
    options = arguments.parse_args()
    data, unit = data_folder("nerf", "fox"), "dB, held-out PSNR"
    if not data.is_dir():
        skip("nerf_fox", f"the capture is not at {data} (set OV3D_DATA)", unit=unit, goal=GOAL)
        return
    upsample_at = [options.steps // 4, options.steps * 7 // 16, options.steps * 5 // 8]
    settings = [
        "stages=[field]",
        f"field.steps={options.steps}",
        f"field.upsample_at={upsample_at}",
        f"field.long_side={options.long_side}",
        f"field.view_every={options.steps // 4}",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        run, minutes, processor = train_nerf(data, settings, options.folder or Path(temporary))
    (facts,) = run.manifest["facts"].values()
    psnr = facts["psnr"]
    report(
        "nerf_fox",
        ours=psnr,
        peer=None,
        unit=unit,
        ratio=None,
        goal=GOAL,
        met=math.isfinite(psnr) and psnr >= GOAL,
        save=options.save,
        space=facts["space"],
        held_out=facts["held_out"],
        steps=options.steps,
        long_side=options.long_side,
        minutes=round(minutes, 1),
        processor_minutes=round(processor, 1),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
