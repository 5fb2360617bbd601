"""The nerf backend on a real shelf: 15 posed RGB-D views of 640x480, ten of them labelled; settings of `--preset cpu`.

The teacher is the capture's own label images of views 0 to 7, with 30 % of their pixels corrupted. Views 8 and 9 are in no
loss, neither by their photographs nor by their labels; views 10 to 14 have no labels and give photographs only. Scored is the
mIoU over the four named objects and the background in views 8 and 9. The teacher's row is the corrupted maps of these two
views, which nothing was trained on. The capture is looked for in $OV3D_DATA or ../shared/data; without it a line says so.

There is no peer that runs on this: the goal, the teacher and ten points more, is the project's own. Nothing was tuned on it.
The last line is one JSON object; `peer` is the teacher.

Run: python -m benchmarks.nerf_shelf
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.nerf_gallery import LABELS, Told
from ov3d.backends import get_backend
from ov3d.common.base.config import load_config
from ov3d.common.learning.run import train_run
from ov3d.common.readers import load_scene

HELD_OUT = ("8", "9")
GOAL_GAIN = 0.10


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the run is kept; a temporary one without it")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    data = Path(os.environ.get("OV3D_DATA", Path(__file__).parents[2] / "shared" / "data")) / "nerf" / "apc-shelf"
    if not data.is_dir():
        print(f"skipped: the capture is not at {data} (set OV3D_DATA)")
        return
    settings = [f"encoder={LABELS}", f"held_out=[{','.join(map(repr, HELD_OUT))}]", *options.settings]
    backend = get_backend("nerf")
    clock, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        config = load_config(backend.config_type, None, settings)
        run = train_run(backend, data, config, outputs=options.folder or Path(temporary), progress=Told())
        minutes = (time.perf_counter() - clock) / 60
        processor_minutes = (time.process_time() - processor) / 60
        scene = load_scene(data)
        report = backend.evaluate(run, scene, device=torch.device("cpu")).to_json()
    ours, theirs = report["tables"][:2]
    gain = ours["mean_iou"] - theirs["mean_iou"]
    result = {
        "name": "nerf_shelf",
        "ours": round(ours["mean_iou"], 4),
        "peer": round(theirs["mean_iou"], 4),
        "unit": "held-out mIoU",
        "ratio": round(ours["mean_iou"] / theirs["mean_iou"], 3),
        "goal": round(theirs["mean_iou"] + GOAL_GAIN, 4),
        "met": bool(gain >= GOAL_GAIN),
        "ious": {
            name: [round(table["classes"][name]["iou"], 3) for table in (ours, theirs)]
            for name in ours["classes"]
            if name in theirs["classes"]
        },
        "psnr": round(ours["extra"]["PSNR"], 2),
        "ssim": round(ours["extra"]["SSIM"], 4),
        "settings": options.settings,
        "minutes": round(minutes, 2),
        "processor_minutes": round(processor_minutes, 2),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
