from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.base.errors import UsageError
from ov3d.common.features.crops import CropPlan, channels_first, cut, resized
from tests.common.features.fakes import picture


def test_default_plan_at_vga_has_525_crops_of_96_and_160_pixels() -> None:
    grids = CropPlan().boxes(640, 480)
    assert [(len(grid.xs), len(grid.ys), grid.size) for grid in grids] == [(24, 17, 96), (13, 9, 160)]
    assert CropPlan().num_crops(640, 480) == 525


def test_large_images_are_cut_at_working_size() -> None:
    plan = CropPlan()
    assert plan.working_size(4000, 3000) == (1920, 1440)
    assert [grid.size for grid in plan.boxes(4000, 3000)] == [288, 480]
    assert plan.num_crops(4000, 3000) == 525


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.floats(0.05, 1.0), min_size=1, max_size=3),
    st.floats(0.1, 1.0),
    st.integers(40, 400),
)
def test_grids_cover_every_pixel_and_stay_inside(
    width: int, height: int, fractions: list[float], stride: float, side: int
) -> None:
    plan = CropPlan(tuple(fractions), stride=stride, working_side=side)
    working_width, working_height = plan.working_size(width, height)
    assert max(working_width, working_height) <= max(side, 1)
    for grid in plan.boxes(width, height):
        covered = np.zeros((working_height, working_width), dtype=bool)
        for x, y in grid.corners():
            assert 0 <= x <= working_width - grid.size
            assert 0 <= y <= working_height - grid.size
            covered[y : y + grid.size, x : x + grid.size] = True
        assert covered.all()


def test_cut_equals_a_slice_a_crop() -> None:
    image = picture(3, 70, 50)
    tensor = channels_first(image, torch.device("cpu"))
    for grid in CropPlan((0.3, 0.5)).boxes(70, 50):
        out = torch.empty((len(grid), 3, grid.size, grid.size), dtype=torch.uint8)
        cut(tensor, grid.corners(), grid.size, out)
        for crop, (x, y) in zip(out.numpy(), grid.corners(), strict=True):
            expected = image[y : y + grid.size, x : x + grid.size].transpose(2, 0, 1)
            np.testing.assert_array_equal(crop, expected)


@pytest.mark.gpu
def test_cut_on_a_gpu_equals_cut_on_the_cpu() -> None:
    image = picture(3, 70, 50)
    for grid in CropPlan((0.3, 0.5)).boxes(70, 50):
        crops = []
        for device in ("cpu", "cuda"):
            out = torch.empty((len(grid), 3, grid.size, grid.size), dtype=torch.uint8, device=device)
            cut(channels_first(image, torch.device(device)), grid.corners(), grid.size, out)
            crops.append(out.cpu())
        assert torch.equal(*crops)


def test_plan_survives_json_and_its_key_tells_every_number() -> None:
    plan = CropPlan()
    assert CropPlan.from_json(plan.to_json()) == plan
    others = [
        CropPlan(fractions=(0.15,)),
        CropPlan(stride=0.5),
        CropPlan(sigma=0.3),
        CropPlan(working_side=1000),
    ]
    assert len({plan.key, *(other.key for other in others)}) == 5


@pytest.mark.parametrize("wrong", [{"fractions": ()}, {"fractions": (0.0,)}, {"fractions": (1.5,)}, {"stride": 0.0}])
def test_impossible_plans_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        CropPlan(**wrong)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = picture(1, 40, 30)
    assert resized(image, (40, 30)) is image
    assert resized(image, (20, 15)).shape == (15, 20, 3)
