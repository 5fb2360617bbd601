"""An answer in one view: from painted points, and from the view's own codes, which have finer edges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ov3d.common.asking.ask import ask
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.exporters.images import mask_picture, overlay_picture
from ov3d.common.exporters.view_heat import code_scores, view_heat
from ov3d.common.scenes.cameras import transform
from ov3d.common.scenes.views import ViewSet
from tests.common.exporters.test_images import ABSENT, CAMERA, CAT, colourful, make


def with_codes(index: LanguageIndex, views: ViewSet) -> tuple[ViewSet, np.ndarray]:
    """Codes at the full size, exact from geometry: the wall at y = 3 with its cat, and nothing in the other view."""
    pose = views.world_from_camera[0]
    ways = (
        transform(pose, CAMERA.unproject(CAMERA.pixel_centres(), np.ones(CAMERA.width * CAMERA.height))) - pose[:3, 3]
    )
    hit = pose[:3, 3] + ways * ((3 - pose[1, 3]) / ways[:, 1])[:, None]
    cat = (np.abs(hit - (0.6, 3, 1.4)) < (0.2, 0.01, 0.2)).all(axis=1)
    code = np.where(cat[:, None], (0.6, 0), (0, 0.6)).astype(np.float16)
    sizes = np.array([(CAMERA.width, CAMERA.height)] * 2, np.int32)
    coded = replace(views, code=np.concatenate([code, np.zeros_like(code)]), code_sizes=sizes)
    return coded, cat.reshape(CAMERA.height, CAMERA.width)


def test_a_mask_is_where_the_object_is(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    _, truth = with_codes(index, views)
    answer = ask(index, "a cat", CAT)
    mask = mask_picture(index, answer, views, 0)
    assert mask.shape == truth.shape
    assert set(np.unique(mask)) == {0, 255}
    painted = mask == 255
    assert (painted & truth).sum() / (painted | truth).sum() > 0.6
    assert not mask_picture(index, answer, views, 1).any()
    assert not mask_picture(index, ask(index, "a piano", ABSENT), views, 0).any()


def test_codes_of_a_view_give_its_edges(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    coded, truth = with_codes(index, views)
    answer = ask(index, "a cat", CAT)
    found = mask_picture(index, answer, coded, 0) == 255
    np.testing.assert_array_equal(found, truth)
    assert not mask_picture(index, answer, coded, 1).any()
    seen = view_heat(index, answer, coded, 0, CAMERA)
    assert seen.heat[truth].min() > 0.99
    assert seen.heat[~truth].max() < 0.01
    hot = colourful(overlay_picture(index, answer, coded, 0)[:120]) > 60
    assert (hot & truth).sum() > 10  # the number and the outline cover most of so small a cat
    assert not (hot & ~truth).any()


def test_codes_are_enlarged_smoothly(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    coded, truth = with_codes(index, views)
    answer = ask(index, "a cat", CAT)
    large = view_heat(index, answer, coded, 0, CAMERA.resized(320, 240))
    wide = np.repeat(np.repeat(truth, 2, 0), 2, 1)
    assert (large.mask & wide).sum() / (large.mask | wide).sum() > 0.85
    values = np.unique(large.heat)
    assert ((values > 0.2) & (values < 0.8)).any()


def test_pixels_of_a_like_thing_elsewhere_are_no_part_of_the_object(tmp_path: Path) -> None:
    """The mask is the found objects', not every pixel over a threshold."""
    index, views = make(tmp_path)
    coded, truth = with_codes(index, views)
    code = coded.code.copy()  # type: ignore[union-attr]
    code.reshape(2, CAMERA.height, CAMERA.width, 2)[0, :8, :8] = (0.6, 0)
    mask = mask_picture(index, ask(index, "a cat", CAT), replace(coded, code=code), 0) == 255
    np.testing.assert_array_equal(mask, truth)


def test_scores_of_codes_are_products() -> None:
    rng = np.random.default_rng(0)
    code, query = rng.normal(size=(3, 4, 5)).astype(np.float16), rng.normal(size=5).astype(np.float32)
    np.testing.assert_allclose(code_scores(code, query), code.astype(np.float64) @ query, atol=1e-5)
