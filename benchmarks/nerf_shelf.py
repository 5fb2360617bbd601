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

import tempfile
from pathlib import Path

import torch

from benchmarks.harness import data_folder, parser, report, skip
from benchmarks.shared.nerf_runs import LABELS, both_ious, train_nerf
from ov3d.backends import get_backend
from ov3d.common.readers import load_scene

HELD_OUT = ("8", "9")
GOAL_GAIN = 0.10


def main() -> None:
    """Train, score, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, help="where the run is kept; a temporary one without it")
    arguments.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = arguments.parse_args()
    data, unit = data_folder("nerf", "apc-shelf"), "held-out mIoU"
    if not data.is_dir():
        goal = f"the teacher's and {GOAL_GAIN} more"
        skip("nerf_shelf", f"the capture is not at {data} (set OV3D_DATA)", unit=unit, goal=goal)
        return
    settings = [f"encoder={LABELS}", f"held_out=[{','.join(map(repr, HELD_OUT))}]", *options.settings]
    with tempfile.TemporaryDirectory() as temporary:
        run, minutes, processor = train_nerf(data, settings, options.folder or Path(temporary))
        scores = get_backend("nerf").evaluate(run, load_scene(data), device=torch.device("cpu")).to_json()
    ours, theirs = scores["tables"][:2]
    gain = ours["mean_iou"] - theirs["mean_iou"]
    report(
        "nerf_shelf",
        ours=round(ours["mean_iou"], 4),
        peer=round(theirs["mean_iou"], 4),
        unit=unit,
        ratio=round(ours["mean_iou"] / theirs["mean_iou"], 3),
        goal=round(theirs["mean_iou"] + GOAL_GAIN, 4),
        met=gain >= GOAL_GAIN,
        save=options.save,
        ious=both_ious(ours, theirs),
        psnr=round(ours["extra"]["PSNR"], 2),
        ssim=round(ours["extra"]["SSIM"], 4),
        settings=options.settings,
        minutes=round(minutes, 2),
        processor_minutes=round(processor, 2),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
