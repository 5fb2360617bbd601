"""Grids of patches: plans that cover every image, whatever its shape."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov3d.common.base.errors import UsageError
from ov3d.common.features.tokens import TokenPlan

PLANS = st.builds(
    lambda cells, patch, long_side, overlap: TokenPlan(
        (cells[0] * patch[0], cells[1] * patch[1]), patch, long_side, overlap
    ),
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    st.tuples(st.integers(1, 32), st.integers(1, 32)),
    st.floats(1, 6),
    st.floats(0, 0.95),
)


@given(PLANS, st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_working_image_and_overlap_as_stated(plan: TokenPlan, width: int, height: int) -> None:
    size = plan.working_size(width, height)
    (rows, columns), cells = plan.grid(width, height), plan.cells
    assert size == (columns * plan.patch[1], rows * plan.patch[0])
    for starts, length, cell in zip(plan.starts((rows, columns)), (rows, columns), cells, strict=True):
        assert (starts[0], starts[-1] + cell) == (0, length)
        steps = starts[1:] - starts[:-1]
        assert (steps > 0).all()
        assert (steps <= max(1, cell * (1 - plan.overlap))).all()
    row_starts, column_starts = plan.starts((rows, columns))
    assert plan.num_crops(width, height) == len(row_starts) * len(column_starts)
    assert TokenPlan.from_json(plan.to_json()) == plan


def test_what_an_image_of_usual_size_becomes() -> None:
    plan = TokenPlan((224, 224), (16, 16))
    assert plan.working_size(640, 480) == (640, 480)
    assert plan.num_crops(640, 480) == 5 * 4
    assert plan.working_size(4000, 3000) == (896, 672)
    assert plan.working_size(160, 120) == (304, 224)
    assert plan.estimated_bytes(640, 480, 512) == 2 * 40 * 30 * 512
    assert plan.key != TokenPlan((224, 224), (16, 16), overlap=0.25).key


@pytest.mark.parametrize("wrong", [{"patch": (15, 16)}, {"overlap": 1.0}, {"long_side": 0.5}, {"patch": (0, 16)}])
def test_plans_that_make_no_grid_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="Invalid windows"):
        TokenPlan(**{"window": (224, 224), "patch": (16, 16), **wrong})  # type: ignore[arg-type]
