"""What a run's evaluation found: each kind of table as JSON and as a report to print, and what all of them say alike."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from ov3d.common.exporters.tables import report_csv
from ov3d.common.metrics import PanopticQuality, SemanticConfusion
from ov3d.common.metrics.masks import MasksTable
from ov3d.common.metrics.panoptic_table import PanopticTable
from ov3d.common.metrics.prompted import PromptedTable
from ov3d.common.metrics.run_report import RunReport, Table
from ov3d.common.metrics.views import ViewIoU
from ov3d.common.scenes.scene import IGNORE


def run_report(*tables: Table, threshold: float | None = 0.25, notes: tuple[str, ...] = ()) -> RunReport:
    return RunReport(
        scene="desk",
        backend="points/fuse",
        protocol="semantic",
        encoder="offline:lite0",
        threshold=threshold,
        share_seen=0.9,
        tables=tables,
        notes=notes,
    )


def prompted(extra: dict[str, float] | None = None) -> PromptedTable:
    """Six points of cat, cup and other; one has no answer."""
    confusion = SemanticConfusion(3, ignore_label=IGNORE, no_prediction=IGNORE)
    confusion.update([0, 0, 1, 2, 1, -1], [0, 0, 1, 1, 2, 0])
    return PromptedTable("points", ("cat", "cup"), confusion.compute(), extra or {})


def masks(classes: Sequence[str] = ("cup",), *, count_pixels: bool = False) -> MasksTable:
    """The upper half of each mask is right."""
    metric = ViewIoU()
    found = np.zeros((len(classes), 4, 4), bool)
    found[:, :2] = True
    metric.update("a", list(classes), found, np.ones_like(found), count_pixels=count_pixels)
    return MasksTable("1 annotated views", metric.compute(), {"PSNR": 20.0})


def panoptic(novel: tuple[str, ...] | None = ("bus",)) -> PanopticTable:
    """Two cars, of which one is found exactly; a bus half as a car; road but for the points that were called bus."""
    metric = PanopticQuality(4, things=[1, 2], ignore=[0], min_points=1)
    truth_class = [1] * 4 + [1] * 2 + [2] * 4 + [3] * 10 + [0] * 2
    truth_id = [1] * 4 + [2] * 2 + [1] * 4 + [0] * 12
    found_class = [1] * 4 + [3] * 2 + [2] * 3 + [1] * 1 + [3] * 8 + [2] * 2 + [1] * 2
    found_id = [7] * 4 + [0] * 2 + [1] * 3 + [9] * 1 + [0] * 8 + [5] * 2 + [3] * 2
    metric.update(found_class, found_id, truth_class, truth_id)
    return PanopticTable("segments", ("void", "car", "bus", "road"), metric.compute(), metric.confusion, novel)


def test_a_prompted_table() -> None:
    (report,) = run_report(prompted()).reports()
    assert (report.dataset, report.title, report.protocol, report.num_scans) == ("desk", "desk: points", "semantic", 1)
    assert report.means == {
        "mIoU": pytest.approx((2 / 3 + 1 / 3) / 2),
        "mAcc": pytest.approx((2 / 3 + 1 / 2) / 2),
        "mIoU with other": pytest.approx((2 / 3 + 1 / 3 + 0) / 3),
    }
    assert [(row.name, row.counts) for row in report.classes] == [
        ("cat", {"points": 3}),
        ("cup", {"points": 2}),
        ("other", {"points": 1}),
    ]
    assert report.facts == {"coverage": pytest.approx(5 / 6), "points": 6}
    assert report.matrix_names == ("cat", "cup", "other")
    data = prompted().to_json()
    assert data["mean_iou"] == report.means["mIoU"]
    assert data["classes"]["cup"] == {"iou": pytest.approx(1 / 3), "accuracy": 0.5, "num_true": 2}
    assert data["confusion"]["rows_truth"] == report.to_json()["confusion"]["rows_truth"]


def test_a_table_of_masks() -> None:
    (report,) = run_report(masks(), threshold=None).reports()
    assert (report.means, report.facts, report.num_scans) == ({"mIoU": 0.5}, {"masks": 1}, 1)
    assert [(row.name, row.kind, row.counts) for row in report.classes] == [("cup", "query", {"views": 1})]
    assert report.to_json()["extra"] == {"PSNR": 20.0}
    assert report.to_json()["confusion"] is None
    assert report.notes == ("encoder offline:lite0", "PSNR 20")
    assert masks(count_pixels=True).means == {"mIoU": 0.5, "pixel Acc": 0.5}
    data = masks().to_json()
    assert (data["classes"], data["views"]) == ({"cup": {"iou": 0.5, "num_views": 1}}, {"a/cup": 0.5})


def test_a_panoptic_table() -> None:
    """SQ: car 1, bus 3/4, road 8/12 (two of its true points are missed, two false ones are of the unseen car)."""
    (report,) = run_report(panoptic()).reports()
    scores = {row.name: row.scores for row in report.classes}
    counts = {row.name: (row.counts["TP"], row.counts["FP"], row.counts["FN"]) for row in report.classes}
    assert counts == {"car": (1, 1, 1), "bus": (1, 1, 0), "road": (1, 0, 0)}
    assert scores["car"]["PQ"] == pytest.approx(1 * 1 / 2)
    assert scores["bus"]["PQ"] == pytest.approx(3 / 4 * 1 / 1.5)
    assert scores["road"]["PQ"] == pytest.approx(8 / 12)
    assert report.means["PQ"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 3) / 3)
    assert report.means["SQ"] == pytest.approx((1 + 3 / 4 + 2 / 3) / 3)
    assert report.means["RQ"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert [(row.kind, row.group) for row in report.classes] == [
        ("thing", "base"),
        ("thing", "novel"),
        ("stuff", "base"),
    ]
    assert report.groups["things"]["PQ"] == pytest.approx(1 / 2)
    assert report.groups["stuff"]["PQ"] == pytest.approx(2 / 3)
    assert report.groups["novel"] == report.groups["novel things"] == scores["bus"]
    assert report.facts == {"coverage": 1.0, "points": 20, "ignored points": 2}
    data = panoptic().to_json()
    assert data["classes"]["bus"] == {"kind": "thing", "group": "novel", **scores["bus"], "TP": 1, "FP": 1, "FN": 0}
    assert (data["means"], data["groups"]) == (report.means, report.groups)


def test_a_panoptic_table_without_novel_classes_has_no_such_groups() -> None:
    (report,) = run_report(panoptic(novel=None)).reports()
    assert list(report.groups) == ["things", "stuff"]
    assert panoptic(novel=None).to_json()["classes"]["bus"]["group"] is None


def test_reports_of_all_tables_say_what_was_asked() -> None:
    report = run_report(prompted(), masks(), panoptic(), notes=("the teacher's labels were corrupted",))
    for one in report.reports():
        assert one.notes[:2] == (
            "encoder offline:lite0, present from cosine 0.250 on",
            "the teacher's labels were corrupted",
        )
        assert report_csv(one).startswith("level,name,kind,group,")
    for threshold in (None, -1.0):
        assert run_report(prompted(), threshold=threshold).reports()[0].notes == ("encoder offline:lite0",)


def test_numbers_that_are_not_defined_are_null() -> None:
    empty = PromptedTable("points", ("cat",), SemanticConfusion(2).compute(), {"PSNR": float("nan"), "SSIM": 0.5})
    report = run_report(empty)
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["tables"][0]["extra"] == {"PSNR": None, "SSIM": 0.5}
    assert json.dumps(report.reports()[0].to_json(), allow_nan=False)
    assert report.reports()[0].notes[-1] == "PSNR -, SSIM 0.5"
    assert report.reports()[0].means["mIoU"] is None


def test_json_of_a_run() -> None:
    data = run_report(prompted()).to_json()
    names = ["scene", "backend", "protocol", "encoder", "threshold", "share_seen", "tables", "notes"]
    assert list(data) == names
    assert data["tables"] == [prompted().to_json()]
