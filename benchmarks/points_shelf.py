"""The real shelf: does a network learnt from a bad teacher on one scene know better than the teacher?

The teacher is the label images of views 0-7, corrupted at a stated level. The cloud comes from the depth of views 0-9, without
labels. Scored are the points that views 8 or 9 see, by the labels of those two views alone, which nothing was learnt from:
a point's truth is what the views that see it say, and unknown where they disagree.

Settings are those of the table of rooms, but for voxels of 2 cm, which hold a few points each of so small a scene's cloud (at
1 cm every point is alone). Nothing was tried on views 8 and 9. There is no peer: the fused teacher is what the stages are
compared with.

Run: python -m benchmarks.points_shelf      needs the sample captures ($OV3D_DATA, or ../shared/data)
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import data_folder, parser, report, skip
from benchmarks.shared.points_rows import (
    Guided,
    Row,
    fused_answer,
    guided_answer,
    lifted_of,
    measure,
    run_of,
    specialised_answer,
    spread,
    words_of,
)
from ov3d.common.exporters.ply import write_ply
from ov3d.common.lifting.projection import VisibilityConfig, median_spacing, visible_in_frame
from ov3d.common.readers import load_scene
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import IGNORE, Scene

TRAIN_VIEWS, TEST_VIEWS = tuple(str(k) for k in range(8)), ("8", "9")
SETTINGS = ("preset=cpu", "guide.voxel_size=0.02", "lift.border=2")
GOAL = 0.05


def write_shelf(source: Path, folder: Path) -> tuple[Scene, Scene]:
    """The capture with views 0-7 only and an unlabelled cloud, in `folder`; and the same cloud with the truth of views 8-9."""
    whole = load_scene(source)
    seen = with_cloud(whole.with_frames([*TRAIN_VIEWS, *TEST_VIEWS]))
    assert seen.cloud is not None
    if not (folder / "cloud.ply").is_file():
        for part in ("color", "depth", "pose", "label"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            for path in (source / part).iterdir():
                if path.stem in TRAIN_VIEWS:
                    shutil.copyfile(path, folder / part / path.name)
        shutil.copytree(source / "intrinsic", folder / "intrinsic", dirs_exist_ok=True, copy_function=shutil.copyfile)
        shutil.copyfile(source / "classes.txt", folder / "classes.txt")
        write_ply(folder / "cloud.ply", seen.cloud.xyz, rgb=seen.cloud.rgb, origin=whole.world.origin)
    scene = load_scene(folder)
    assert scene.cloud is not None and np.array_equal(scene.cloud.xyz, seen.cloud.xyz)
    truth = _truth(seen)
    return scene, replace(scene, cloud=replace(scene.cloud, labels=truth))


def _truth(scene: Scene) -> np.ndarray:
    """What views 8 and 9 say of each point that they see."""
    assert scene.cloud is not None
    xyz = scene.cloud.xyz
    truth = np.full(len(xyz), IGNORE, np.int32)
    disputed = np.zeros(len(xyz), bool)
    for name in TEST_VIEWS:
        frame = scene.frame(name)
        assert frame.labels is not None
        seen = visible_in_frame(xyz, frame, VisibilityConfig(border=2), spacing=median_spacing(xyz))
        column, row = np.floor(seen.uv).astype(np.int64).T
        said = frame.labels.load()[row, column]
        points, said = seen.point_idx[said != IGNORE], said[said != IGNORE]
        disputed[points] |= (truth[points] != IGNORE) & (truth[points] != said)
        truth[points] = said
    truth[disputed] = IGNORE
    return truth


def main() -> None:
    """Train and score every level and seed, and print one JSON line."""
    arguments = parser(__doc__)
    arguments.add_argument("--levels", type=int, nargs="+", default=[0, 30])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--out", type=Path, default=None, help="where runs are kept; a temporary folder without it")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    level = 30 if 30 in options.levels else options.levels[0]
    unit = f"mIoU over present classes on points of views 8-9, teacher at {level} %"
    source = data_folder("nerf", "apc-shelf")
    if not source.is_dir():
        skip("points_shelf", f"no shelf at {source} (set OV3D_DATA)", unit=unit, goal=GOAL)
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        levels = {level: measure_level(source, out, level, options) for level in options.levels}
    rows = levels[level]
    ours, peer = (rows[name]["mean"]["miou_present"] for name in ("guided", "fused"))
    report(
        "points_shelf",
        ours=ours,
        peer=peer,
        unit=unit,
        ratio=round(ours / max(peer, 1e-9), 3),
        goal=GOAL,
        met=ours - peer >= GOAL,
        save=options.save,
        settings=[*SETTINGS, *options.settings],
        rows={f"{one} %": rows for one, rows in levels.items()},
    )


def measure_level(source: Path, out: Path, level: int, options: argparse.Namespace) -> dict[str, Any]:
    """Teacher, specialised and guided at one corruption, on all scored points and on those that the teacher sees."""
    scene, truth = write_shelf(source, out / "shelf")
    spec = f"labels:scene,corrupt={level},seed=0"
    classes = ",".join(scene.classes)
    settings = [f"encoder={spec}", f"classes=[{classes}]", *SETTINGS, *options.settings]
    words = words_of(spec, scene.classes, scene.classes)
    found: dict[str, list[Row]] = {}
    for seed in options.seeds:
        run, seconds = run_of(out / f"level-{level}-seed-{seed}", scene.path, [*settings, f"seed={seed}"])
        assert truth.cloud is not None and truth.cloud.labels is not None
        seen = lifted_of(run, scene).row_of_point() >= 0
        both = replace(truth, cloud=replace(truth.cloud, labels=np.where(seen, truth.cloud.labels, np.int32(IGNORE))))
        answers = {
            "fused": fused_answer(run, words),
            "specialised": specialised_answer(run, words),
            "guided": guided_answer(Guided(run), words),
        }
        for title, scored in (("", truth), (" (points the teacher sees)", both)):
            for name, answer in answers.items():
                found.setdefault(name + title, []).append(measure([scored], len(scene.classes), answer))
        if seconds:
            print(f"  level {level}, seed {seed}: trained in {seconds:.0f} s", flush=True)
    print(f"\nshelf, teacher corrupted by {level} %")
    rows = {name: spread(each) for name, each in found.items()}
    for name, row in rows.items():
        mean, std = row["mean"], row["std"]
        figures = f"mIoU {100 * mean['miou_present']:.1f} ± {100 * std['miou_present']:.1f}"
        print(f"{name:<42}{figures}, mAcc {100 * mean['macc_present']:.1f}, coverage {100 * mean['coverage']:.1f}")
    return rows


if __name__ == "__main__":
    main()
