"""A radiance field from a walk round a stuffed fox: a real capture with lens distortion and missing photographs, reduced.

50 photographs of 1080x1920 with nerfstudio's transforms.json, which lists 67; every eighth is kept out of training. Printed is
the PSNR of the views kept out, at the reduced size. The gate is that every number is finite; below 18 dB something is wrong
with poses, distortion or space. The capture is looked for in $OV3D_DATA or ../shared/data; without it a line says so.

Run: python -m benchmarks.nerf_fox
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.nerf_gallery import Told
from ov3d.backends import get_backend
from ov3d.common.base.config import load_config
from ov3d.common.learning.run import train_run

STEPS, LONG_SIDE, GOAL = 800, 320, 18.0


def main() -> None:
    """Train, and print PSNR."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--long-side", type=int, default=LONG_SIDE)
    parser.add_argument("--folder", type=Path, help="where the run is kept; a temporary one without it")
    options = parser.parse_args()
    data = Path(os.environ.get("OV3D_DATA", Path(__file__).parents[2] / "shared" / "data")) / "nerf" / "fox"
    if not data.is_dir():
        print(f"skipped: the capture is not at {data} (set OV3D_DATA)")
        return
    upsample_at = [options.steps // 4, options.steps * 7 // 16, options.steps * 5 // 8]
    settings = [
        "stages=[field]",
        f"field.steps={options.steps}",
        f"field.upsample_at={upsample_at}",
        f"field.long_side={options.long_side}",
        f"field.view_every={options.steps // 4}",
    ]
    clock, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        outputs = options.folder or Path(temporary)
        backend = get_backend("nerf")
        config = load_config(backend.config_type, None, settings)
        run = train_run(backend, data, config, outputs=outputs, progress=Told())
    (facts,) = run.manifest["facts"].values()
    psnr = facts["psnr"]
    result = {
        "name": "nerf_fox",
        "ours": psnr,
        "peer": None,
        "unit": "dB, held-out PSNR",
        "ratio": None,
        "goal": GOAL,
        "met": bool(math.isfinite(psnr) and psnr >= GOAL),
        "space": facts["space"],
        "held_out": facts["held_out"],
        "steps": options.steps,
        "long_side": options.long_side,
        "minutes": round((time.perf_counter() - clock) / 60, 1),
        "processor_minutes": round((time.process_time() - processor) / 60, 1),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
