"""`ov3d eval` as people type it: tables, JSON, CSV, files, and one line for everything that is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.base.files import read_json
from ov3d.common.datasets import load_dataset
from ov3d.common.exporters.tables import print_report
from ov3d.common.metrics.folders import FolderOptions, evaluate_folders
from tests.cli.conftest import Ov3d
from tests.common.metrics.test_label_folders import kitti_tree, rewrite


@pytest.fixture
def tree(tmp_path: Path) -> list[object]:
    truth, found = kitti_tree(tmp_path)
    return ["eval", "--dataset", "semantickitti", "--ground-truth", truth, "--predictions", found]


def test_the_table_has_classes_groups_and_means(ov3d: Ov3d, tree: list[object]) -> None:
    done = ov3d(*tree)
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["class", "kind", "split", "PQ", "SQ", "RQ", "IoU", "TP", "FP", "FN"] in rows
    assert any(row[:3] == ["truck", "thing", "novel"] for row in rows)
    assert any(row[:2] == ["novel", "stuff"] and len(row) == 6 for row in rows)
    assert "PQ† " in done.out
    assert "coverage 100.00 %" in done.out


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits(tree: list[object], columns: int) -> None:
    from rich.console import Console

    report = evaluate_folders(load_dataset("semantickitti"), Path(str(tree[4])), Path(str(tree[6])))
    texts = []
    for width in (columns, 300):
        stream = io.StringIO()
        print_report(Console(file=stream, width=width), report)
        texts.append(stream.getvalue())
    assert max(map(len, texts[0].splitlines())) <= columns
    assert texts[0].split() == texts[1].split()  # nothing was cut away


def test_a_score_stays_beside_its_name(tree: list[object]) -> None:
    from rich.console import Console

    spec = load_dataset("semantickitti")
    report = evaluate_folders(spec, Path(str(tree[4])), Path(str(tree[6])), FolderOptions(protocol="semantic"))
    for width in (30, 60, 80):
        stream = io.StringIO()
        print_report(Console(file=stream, width=width), report)
        lines = stream.getvalue().splitlines()
        for name, value in report.means.items():
            assert any(f"{name} {100 * value:.2f}" in line for line in lines)  # type: ignore[operator]


def test_json_is_the_only_thing_on_stdout(ov3d: Ov3d, tree: list[object]) -> None:
    done = ov3d(*tree, "--json")
    data = json.loads(done.out)
    assert data["protocol"] == "panoptic"
    assert data["dataset_version"] == 1
    assert len(data["classes"]) == 19
    assert 0 < data["means"]["PQ"] < 1
    assert np.sum(data["confusion"]["rows_truth"]) == 4 * 1200


def test_csv_holds_every_digit(ov3d: Ov3d, tree: list[object]) -> None:
    data = json.loads(ov3d(*tree, "--json").out)
    rows = list(csv.DictReader(io.StringIO(ov3d(*tree, "--csv", "--quiet").out)))
    by_name = {row["name"]: row for row in rows}
    assert float(by_name["car"]["PQ"]) == data["classes"][0]["PQ"]
    assert float(by_name["PQ"]["value"]) == data["means"]["PQ"]
    assert by_name["novel things"]["level"] == "group"
    done = ov3d(*tree, "--csv", "--json")
    assert done.code == 2
    assert "both print to stdout" in done.error


def test_output_folder(ov3d: Ov3d, tree: list[object], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = ov3d(*tree, "-o", out)
    assert {path.name for path in out.iterdir()} == {"report.json", "scores.csv", "confusion.png"}
    assert read_json(out / "report.json", kind="evaluation-report", version=1)["num_scans"] == 4
    with Image.open(out / "confusion.png") as image:
        assert image.mode == "RGB"
        pixels = np.asarray(image)
    # A blue diagonal: the mean colour of the picture's bluest cells is the one that stands for "right".
    blue = (pixels[..., 2].astype(int) - pixels[..., 0]) > 100
    assert blue.sum() > 10 * 30 * 30
    assert str(out / "confusion.png") in done.out


def test_every_fault_is_on_stderr_and_one_line_sums_up(ov3d: Ov3d, tree: list[object]) -> None:
    folder = Path(str(tree[-1])) / "sequences/08/predictions"
    (folder / "000000.label").unlink()
    rewrite(folder / "000002.label", [40] * 7)
    done = ov3d(*tree, "--json")
    assert done.code == 1
    assert done.out == ""
    assert "labels/000000.label: its prediction is missing" in done.err
    assert "predictions/000002.label: it holds 7 labels, the truth 1200" in done.err
    assert done.error.startswith("2 files cannot be scored; they are listed above. Fix these files")
    (folder / "000002.label").write_bytes(b"123")
    rewrite(folder / "000000.label", [40] * 1200)
    assert "000002.label cannot be scored: its size of 3 bytes" in ov3d(*tree).error


def test_learning_ids_do_not_hide_what_else_is_wrong(ov3d: Ov3d, tree: list[object]) -> None:
    folder = Path(str(tree[-1])) / "sequences/08/predictions"
    for path in folder.iterdir():
        rewrite(path, [9, 8] * 600)
    (folder / "000001.label").unlink()
    done = ov3d(*tree)
    assert done.code == 1
    assert "000001.label cannot be scored: its prediction is missing" in done.error
    assert "--prediction-ids class" in done.error
    assert "does not know" not in done.error


def test_learning_ids(ov3d: Ov3d, tree: list[object]) -> None:
    for path in (Path(str(tree[-1])) / "sequences/08/predictions").iterdir():
        rewrite(path, [9] * 1200)
    done = ov3d(*tree)
    assert done.code == 1
    assert "--prediction-ids class" in done.error
    assert ov3d(*tree, "--prediction-ids", "class").code == 0


@pytest.fixture
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--dataset", "semantickity", "--ground-truth", ".", "--predictions", "."], 2, "Did you mean semantickitti"),
        (["--dataset", "semantickitti"], 2, "--dataset needs --ground-truth DIR and --predictions DIR"),
        (["--ground-truth", "."], 2, "--ground-truth works only with --dataset"),
        (["--workers", "2"], 2, "--workers works only with --dataset"),
        (
            ["--dataset", "s3dis", "--ground-truth", ".", "--predictions", ".", "--threshold", "0.2"],
            2,
            "--threshold works only with a run",
        ),
        (
            ["--dataset", "3d-ovs", "--ground-truth", ".", "--predictions", ".", "--subset", "val"],
            2,
            "--subset does not apply to 3D-OVS",
        ),
        (["latest", "--dataset", "s3dis"], 2, "cannot be used together"),
        (
            ["--dataset", "s3dis", "--ground-truth", "x", "--predictions", "."],
            1,
            "folder of ground truth x does not exist",
        ),
        (
            ["--dataset", "s3dis", "--ground-truth", ".", "--predictions", ".", "--list", "x"],
            1,
            "No list of scans at x",
        ),
        (
            ["--dataset", "s3dis", "--ground-truth", ".", "--predictions", ".", "--truth-ids", "x"],
            2,
            "auto, raw, class",
        ),
        (["--dataset", "s3dis", "--ground-truth", ".", "--predictions", ".", "--ensemble"], 2, "works only with a run"),
        (["nowhere"], 1, "No run found at nowhere"),
    ],
)
def test_wrong_calls(
    ov3d: Ov3d, args: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ov3d("eval", *args)
    assert (done.code, said in done.error) == (code, True), done.err


def test_an_empty_folder(ov3d: Ov3d, tree: list[object], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = ov3d(*tree[:-1], tmp_path / "empty")
    assert done.code == 1
    assert "No label file in" in done.error


def test_an_empty_list(ov3d: Ov3d, tree: list[object], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n\n")
    assert "names no scan" in ov3d(*tree, "--list", tmp_path / "list.txt").error
    (tmp_path / "list.txt").write_text("08/000001\n")
    assert json.loads(ov3d(*tree, "--list", tmp_path / "list.txt", "--json").out)["num_scans"] == 1


# ------------------------------------------------------------------------------------------------------------ runs


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one scene with an index, and a backend that reports a known confusion on it."""
    import ov3d.backends
    import ov3d.common.learning.evaluate_run
    from ov3d.common.asking.index import LanguageIndex, write_index
    from ov3d.common.base.runs import write_manifest
    from ov3d.common.language.cards import EncoderCard, Identity
    from ov3d.common.learning.backend import Backend
    from ov3d.common.learning.run_config import RunConfig
    from ov3d.common.metrics import SemanticConfusion
    from ov3d.common.metrics.prompted import PromptedTable
    from ov3d.common.metrics.run_report import RunReport
    from ov3d.common.scenes.scene import IGNORE, LazyScenes, Scene, World

    confusion = SemanticConfusion(3, ignore_label=IGNORE, no_prediction=IGNORE)
    confusion.update([0, 0, 1, 2, 2, -1], [0, 0, 1, 1, 2, 0])
    table = PromptedTable("points", ("cat", "cup"), confusion.compute())

    class Toy(Backend):
        name, stages, config_type, protocols = "points", ("fuse",), RunConfig, ("semantic",)

        def evaluate(self, run: object, scene: object, **options: object) -> RunReport:
            return RunReport(
                scene="room",
                backend="points/fuse",
                protocol="semantic",
                encoder="offline",
                threshold=0.2,
                share_seen=0.9,
                tables=(table,),
            )

    monkeypatch.setattr(ov3d.backends, "get_backend", lambda name: Toy())
    scenes = LazyScenes(("room",), lambda name: Scene(name, tmp_path / "room", "scannet"))
    monkeypatch.setattr(ov3d.common.learning.evaluate_run, "open_source", lambda path, **_: scenes)
    folder = tmp_path / "run"
    folder.mkdir()
    identity = Identity("m", "w", "p", "fp32")
    card = EncoderCard("offline", identity, identity, 2, 10.0, 0.2, False)
    index = LanguageIndex(
        np.zeros((1, 3), np.float32), np.ones((1, 2), np.float16), np.eye(2, dtype=np.float32), None,
        "room", str(tmp_path / "room"), World(), "points/fuse", card,
    )  # fmt: skip
    write_index(folder / "room.safetensors", index)
    write_manifest(folder, {"backend": "points", "indexes": {"room": "room.safetensors"}})
    return folder


def test_a_run_is_rendered(ov3d: Ov3d, run: Path, tmp_path: Path) -> None:
    done = ov3d("eval", run, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["cat", "66.67", "66.67", "3"] in rows
    assert ["cup", "50.00", "50.00", "2"] in rows
    assert "mIoU 58.33" in done.out
    assert "coverage 83.33 %" in done.out
    assert (tmp_path / "out/confusion.png").is_file()


def test_a_protocol_of_another_backend_is_refused(ov3d: Ov3d, run: Path) -> None:
    done = ov3d("eval", run, "--protocol", "3d-ovs")
    assert (done.code, "--protocol of a points run must be semantic, got 3d-ovs" in done.error) == (2, True), done.err
    assert "must be semantic, got panoptic" in ov3d("eval", run, "--protocol", "panoptic").error
    assert ov3d("eval", run, "--protocol", "semantic").code == 0


def test_an_ensemble_of_a_backend_without_one_is_refused(ov3d: Ov3d, run: Path) -> None:
    done = ov3d("eval", run, "--ensemble")
    assert (done.code, "--ensemble does not apply to a points run" in done.error) == (2, True), done.err


def test_a_run_as_json_and_csv(ov3d: Ov3d, run: Path) -> None:
    data = json.loads(ov3d("eval", run, "--json").out)
    assert data["reports"][0]["means"]["mIoU"] == pytest.approx(7 / 12)
    assert data["reports"][0]["confusion"]["rows_truth"][1] == [0, 1, 1]
    rows = list(csv.DictReader(io.StringIO(ov3d("eval", run, "--csv").out)))
    assert [row["table"] for row in rows] == ["room: points"] * len(rows)
    assert next(row for row in rows if row["name"] == "cup")["IoU"] == "0.5"
    done = ov3d("eval", run, "--subset", "val")
    assert (done.code, "--subset works only with --dataset" in done.error) == (2, True)
