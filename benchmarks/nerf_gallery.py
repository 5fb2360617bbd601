"""The nerf backend on a generated room: 24 views of 320x240, every eighth kept out of every loss; settings of `--preset cpu`.

Two teachers on one radiance field. `offline`: what is scored are the four photographs on the walls, everything else is "other"
below the encoder's own threshold. `labels`: the room's own label images with 30 % of their pixels corrupted, scored over all
classes of the room. The teacher's row is its answer in 2D in the same pixels of the same held-out views, from photographs
(`offline`) or corrupted maps (`labels`) of those views that no loss saw. Minutes hold everything up to the index of the
`offline` run, features included: of the clock, and of processor time.

Seed 0 is the test, used for nothing else; settings were chosen on seeds from 100 on. There is no peer that runs on this: the
goals are the project's own. The last line is one JSON object; `peer` is the teacher.

Run: python -m benchmarks.nerf_gallery
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import parser, report
from benchmarks.shared.nerf_runs import LABELS, both_ious, train_nerf
from ov3d.backends import get_backend
from ov3d.common.base.runs import Run, new_run, scene_folders
from ov3d.common.scenes.scene import IGNORE, Scene
from ov3d.common.worlds.gallery import EASY, GalleryConfig, write_gallery
from ov3d.nerf.train_field import CHECKPOINT_NAME

NUM_VIEWS, WIDTH, HEIGHT = 24, 320, 240
GOAL_MINUTES, GOAL_PSNR, GOAL_GAIN, GOAL_LABELS = 15.0, 25.0, 0.10, 0.85


def main() -> None:
    """Build the rooms, train, score, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--folder", type=Path, help="where rooms and runs are kept; a temporary one without it")
    arguments.add_argument("--skip", choices=("offline", "labels"), help="score one teacher only")
    arguments.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            rows.append(measure(seed, options.folder or Path(temporary), options.settings, options.skip))
            print(json.dumps(rows[-1]), flush=True)
    summarise(rows, options)


def measure(seed: int, folder: Path, settings: list[str], skip: str | None = None) -> dict[str, Any]:
    """Train and score both teachers on one room."""
    scene = write_gallery(
        folder / f"room-{seed}", GalleryConfig(seed=seed, num_views=NUM_VIEWS, width=WIDTH, height=HEIGHT)
    )
    classes = classes_of(scene)
    row: dict[str, Any] = {"seed": seed, "threads": torch.get_num_threads()}
    common = [f"classes=[{','.join(classes)}]", *settings]
    field: Run | None = None
    for name, encoder in (("offline", "offline"), ("labels", LABELS)):
        if name == skip:
            continue
        overrides = [f"encoder={encoder}", *common]
        prepared = _prepared(field, scene, folder)
        run, minutes, processor = train_nerf(scene.path, overrides, folder / "runs", prepared)
        prefix = "" if field is None else "second_"
        row |= {f"{prefix}minutes": round(minutes, 2), f"{prefix}processor_minutes": round(processor, 2)}
        field = field or run
        row[name] = score(run, scene, classes, photographs_only=name == "offline")
    return row


def score(run: Run, scene: Scene, classes: tuple[str, ...], *, photographs_only: bool) -> dict[str, Any]:
    """mIoU, IoU a class and PSNR in the held-out views."""
    backend = get_backend("nerf")
    held_out = run.manifest["facts"][scene.name]["held_out"]
    asked = tuple(name for name in classes if name in visible(scene, held_out))
    threshold = None
    if photographs_only:
        asked = tuple(name for name in asked if name in EASY)
        threshold = run.manifest["encoder"]["presence_threshold"]
    scores = backend.evaluate(run, scene, device=torch.device("cpu"), classes=asked, threshold=threshold).to_json()
    ours, theirs = scores["tables"][:2]
    ious = both_ious(ours, theirs)
    return {
        "field": round(ours["mean_iou"], 4),
        "teacher": round(theirs["mean_iou"], 4),
        "psnr": round(ours["extra"]["PSNR"], 2),
        "ssim": round(ours["extra"]["SSIM"], 4),
        "ious": {name: ious[name] for name in asked if name in ious},
    }


def classes_of(scene: Scene) -> tuple[str, ...]:
    """What is in a room, as somebody who has seen it would list it."""
    return visible(scene, [frame.name for frame in scene.frames])


def visible(scene: Scene, names: list[str]) -> tuple[str, ...]:
    """Classes with a pixel in some views, by their names."""
    found: set[int] = set()
    for frame in scene.frames:
        if frame.name in names and frame.labels is not None:
            found |= set(np.unique(frame.labels.load()).tolist())
    return tuple(scene.classes[idx] for idx in sorted(found - {IGNORE}))


def _prepared(field: Run | None, scene: Scene, folder: Path) -> Path | None:
    """A folder with the radiance field of another run of the same settings: distillation alone is left to do."""
    if field is None:
        return None
    run = new_run(scene.name, "nerf", folder / "runs")
    source, target = (scene_folders(one, [scene.name])[0] for one in (field.path, run))
    target.mkdir(parents=True)
    shutil.copy(source / CHECKPOINT_NAME, target / CHECKPOINT_NAME)
    return run


def summarise(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the means over rooms, and whether the goals are met."""
    means = {
        name: {key: round(float(np.mean([row[name][key] for row in rows])), 4) for key in ("field", "teacher", "psnr")}
        for name in ("offline", "labels")
        if name in rows[0]
    }
    minutes = round(float(np.mean([row["minutes"] for row in rows])), 2)
    processor = round(float(np.mean([row["processor_minutes"] for row in rows])), 2)
    first = means.get("labels") or means["offline"]
    goals = {"minutes": minutes <= GOAL_MINUTES, "psnr": first["psnr"] >= GOAL_PSNR}
    if "offline" in means:
        goals["offline"] = means["offline"]["field"] >= means["offline"]["teacher"] + GOAL_GAIN
    if "labels" in means:
        goals["labels"] = means["labels"]["field"] >= GOAL_LABELS
    report(
        "nerf_gallery",
        ours=first["field"],
        peer=first["teacher"],
        unit="held-out mIoU",
        ratio=round(first["field"] / max(first["teacher"], 1e-9), 3),
        goal=GOAL_LABELS,
        met=all(goals.values()),
        save=options.save,
        seeds=options.seeds,
        goals=goals,
        minutes=minutes,
        processor_minutes=processor,
        settings=options.settings,
        **means,
        rows=rows,
    )


if __name__ == "__main__":
    main()
