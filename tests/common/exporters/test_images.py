"""Pictures of answers: where a known point lands, what hides what, and scenes with little or nothing in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov3d.common.asking.ask import ask
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.base.errors import DataError
from ov3d.common.exporters.drawing import HEAT_ALPHA, blend_heat, draw_outlines, round_length, tidied
from ov3d.common.exporters.images import overlay_picture, plan_axes, top_down_picture, write_overlays, write_png
from ov3d.common.exporters.splat import EMPTY, paint, paint_view
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.scenes.cameras import Camera, look_at, transform
from ov3d.common.scenes.scene import Frame, Scene, World
from ov3d.common.scenes.views import ViewSet

CAMERA = Camera(160, 120, 120.0, 120.0, 80.0, 60.0)
CAT = np.array([1, 0], np.float32)
ABSENT = np.array([0, 0], np.float32)


def lattice(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], step: float = 0.05) -> np.ndarray:
    """Points of a box, `step` apart; a range of no length gives a plane."""
    axes = [np.arange(low, high + 1e-6, step) for low, high in (x, y, z)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def make(tmp_path: Path, world: World | None = None) -> tuple[LanguageIndex, ViewSet]:
    """A white wall at y = 3 with a cat at (0.6, 3, 1.4), a floor and a ceiling, seen from (0, 0, 1) along +y."""
    wall, floor = lattice((-2, 2), (3, 3), (0, 2.4)), lattice((-2, 2), (0, 3), (0, 0))
    ceiling = floor + np.array([0, 0, 2.4])
    xyz = np.concatenate([wall, floor, ceiling]).astype(np.float32)
    cat = (np.abs(xyz - (0.6, 3, 1.4)) < (0.21, 0.01, 0.21)).all(axis=1)
    code = np.where(cat[:, None], (0.6, 0), (0, 0.6)).astype(np.float16)
    identity = Identity("toy", "seed:0", "none", "fp32")
    index = LanguageIndex(
        xyz=xyz,
        code=code,
        basis=np.eye(2, dtype=np.float32),
        owner=None,
        rgb=np.full((len(xyz), 3), 200, np.uint8),
        scene="room",
        scene_path=str(tmp_path),
        world=world or World(),
        backend="points/fuse",
        encoder=EncoderCard("toy", identity, identity, 2, 100.0, 0.2, knows_attributes=False),
        facts={"point_spacing": 0.05},
    )
    frames = []
    for name, eye in (("a", (0.0, 0.0, 1.0)), ("b/back", (0.0, 1.0, 1.0))):
        path = tmp_path / f"{name[0]}.png"
        Image.new("RGB", (160, 120), (120, 120, 120)).save(path)
        target = np.array([0.0, 3.0 if name == "a" else -3.0, 1.0])
        frames.append(Frame(name, path, CAMERA, look_at(np.array(eye), target)))
    return index, ViewSet.from_scene(Scene("room", tmp_path, "toy", tuple(frames)))


def colourful(rgb: np.ndarray) -> np.ndarray:
    """How far a pixel is from grey."""
    return np.ptp(rgb.astype(int), axis=-1)


# --------------------------------------------------------------------------------------------------------- painting


def test_painting_equals_a_slow_z_buffer() -> None:
    rng = np.random.default_rng(0)
    uv, depth = rng.uniform(-4, 24, (300, 2)), rng.permutation(300) / 100 + 1
    radius = np.clip(4 / depth, 0, 3).astype(np.int64)
    twin, nearest = np.full((18, 20), EMPTY), np.full((18, 20), np.inf)
    for i, (u, v) in enumerate(np.floor(uv).astype(int)):
        for y in range(v - radius[i], v + radius[i] + 1):
            for x in range(u - radius[i], u + radius[i] + 1):
                if 0 <= x < 20 and 0 <= y < 18 and depth[i] < nearest[y, x]:
                    twin[y, x], nearest[y, x] = i, depth[i]
    np.testing.assert_array_equal(paint(uv, depth, radius, 20, 18), twin)


def test_a_point_lands_on_its_pixel() -> None:
    pose = look_at(np.array([1.0, -2.0, 0.5]), np.array([0.0, 3.0, 1.0]))
    point = transform(pose, CAMERA.unproject(np.array([[37.5, 81.5]]), np.array([4.0])))
    owner = paint_view(point.astype(np.float32), CAMERA, pose, 0.001)
    assert np.argwhere(owner == 0).tolist() == [[81, 37]]


def test_a_wall_has_no_holes_and_hides_what_is_behind_it() -> None:
    front = lattice((-4, 4), (2, 2), (-4, 4))
    behind = lattice((-4, 4), (3, 3), (-4, 4))
    xyz = np.concatenate([behind, front]).astype(np.float32)
    owner = paint_view(xyz, CAMERA, look_at(np.zeros(3), np.array([0.0, 1.0, 0.0])), 0.05)
    assert (owner >= len(behind)).all()


def test_nothing_before_the_camera_or_not_finite_is_painted() -> None:
    xyz = np.array([[0, -2, 0], [np.nan, 2, 0], [0, np.inf, 0], [0, 0, 0]], np.float32)
    pose = look_at(np.zeros(3), np.array([0.0, 1.0, 0.0]))
    assert (paint_view(xyz, CAMERA, pose, 0.1) == EMPTY).all()
    assert (paint_view(xyz[:0], CAMERA, pose, 0.1) == EMPTY).all()


# --------------------------------------------------------------------------------------------------------- overlays


def test_the_heat_of_a_cat_lies_on_its_pixels(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    answer = ask(index, "a cat", CAT)
    assert [item.num_points for item in answer.objects] == [81]
    pixels = overlay_picture(index, answer, views, 0)
    assert pixels.shape[1] == 160
    assert pixels.shape[0] > 120
    hot = np.argwhere(colourful(pixels[:120]) > 40)
    uv, _ = CAMERA.project(transform(np.linalg.inv(views.world_from_camera[0]), np.array([[0.6, 3.0, 1.4]])))
    np.testing.assert_allclose(hot.mean(axis=0)[::-1] + 0.5, uv[0], atol=2.5)
    assert np.ptp(hot, axis=0).max() < 30
    behind = overlay_picture(index, answer, views, 1)
    assert colourful(behind[:120]).max() < 20


def test_a_scene_without_a_match_stays_cold(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    answer = ask(index, "a piano", ABSENT)
    assert not answer.found
    assert colourful(overlay_picture(index, answer, views, 0)[:120]).max() < 20
    assert colourful(top_down_picture(index, answer)[:600]).max() < 20


def test_overlays_are_written_one_a_view_and_a_lost_photograph_is_told(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    (tmp_path / "a.png").unlink()
    mask, lost, other, written = write_overlays(tmp_path / "out", index, ask(index, "a cat", CAT), views)
    assert isinstance(lost, DataError)
    assert (mask, other) == (tmp_path / "out" / "mask-a.png", tmp_path / "out" / "mask-b-back.png")
    assert written == tmp_path / "out" / "view-b-back.png"
    with Image.open(written) as picture:
        assert picture.width == 160


def test_large_photographs_are_drawn_smaller(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    path = tmp_path / "large.png"
    Image.new("RGB", (2560, 1920)).save(path)
    frame = Frame("large", path, CAMERA.resized(2560, 1920), views.world_from_camera[0])
    large = ViewSet.from_scene(Scene("room", tmp_path, "toy", (frame,)))
    pixels = overlay_picture(index, ask(index, "a cat", CAT), large, 0)
    assert pixels.shape[1] == 1280
    hot = np.argwhere(colourful(pixels[:960]) > 40).mean(axis=0)[::-1]
    np.testing.assert_allclose(hot / 8, [104, 44], atol=3)


# -------------------------------------------------------------------------------------------------------- from above


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (1, 0, 0), (0.6, 0, 0.8)])
def test_plan_axes_are_a_right_handed_frame(up: tuple[float, float, float]) -> None:
    axes = plan_axes(tuple(float(value) for value in up))  # type: ignore[arg-type]
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(axes[2], up)


def test_from_above_the_cat_is_under_the_ceiling_at_its_place(tmp_path: Path) -> None:
    index, _ = make(tmp_path)
    pixels = top_down_picture(index, ask(index, "a cat", CAT))
    hot = np.argwhere(colourful(pixels[:700]) > 40)
    # 4 x 3 metres and a margin on 1000 pixels: the wall with the cat is the upper edge.
    assert abs(hot[:, 1].mean() / 1000 - (0.6 + 2.16) / 4.32) < 0.02
    assert hot[:, 0].max() < 120
    floor_colour = pixels[400, 400].astype(int)
    assert floor_colour.max() > 100  # not the ground colour: the floor is seen, drawn in the points' own colour


def test_from_above_turns_with_the_world(tmp_path: Path) -> None:
    index, _ = make(tmp_path)
    turned = replace(
        index, xyz=index.xyz[:, [0, 2, 1]] * np.array([1, -1, 1], np.float32), world=World(up=(0.0, -1.0, 0.0))
    )
    one = top_down_picture(index, ask(index, "a cat", CAT))
    other = top_down_picture(turned, ask(turned, "a cat", CAT))
    assert np.mean(np.abs(one.astype(int) - other.astype(int)) > 8) < 0.02


@pytest.mark.parametrize("n", [0, 1, 2])
def test_scenes_of_few_points_make_pictures(tmp_path: Path, n: int) -> None:
    index, views = make(tmp_path)
    few = replace(index, xyz=index.xyz[:n], code=index.code[:n], rgb=None, facts={})
    answer = ask(few, "a thing", np.array([0, 1], np.float32))
    assert answer.found == (n > 0)
    assert top_down_picture(few, answer).shape[2] == 3
    assert overlay_picture(few, answer, views, 0).shape[1] == 160


def test_an_answer_of_another_index_is_refused(tmp_path: Path) -> None:
    index, views = make(tmp_path)
    answer = ask(replace(index, xyz=index.xyz[:9], code=index.code[:9], rgb=None), "a cat", CAT)
    with pytest.raises(DataError, match="does not belong to an index"):
        overlay_picture(index, answer, views, 0)
    with pytest.raises(DataError, match="does not belong to an index"):
        top_down_picture(index, answer)


# ----------------------------------------------------------------------------------------------------------- drawing


def test_cold_pixels_keep_their_picture_and_hot_ones_their_light_and_dark() -> None:
    rgb = np.zeros((1, 3, 3), np.uint8) + np.array([[[200], [50], [200]]], np.uint8)
    mixed = blend_heat(rgb, np.array([[0, 1, 1]], np.float32)).astype(int)
    assert colourful(mixed[0, 0]) == 0
    assert mixed[0, 2].sum() > mixed[0, 1].sum()
    assert 0 < HEAT_ALPHA < 1


def test_outlines_frame_each_object_and_leave_the_rest() -> None:
    ranks = np.full((30, 30), -1, np.int32)
    ranks[5:15, 5:15], ranks[5:15, 15:25] = 1, 2
    drawn = draw_outlines(np.full((30, 30, 3), 100, np.uint8), ranks, 1)
    assert drawn[5, 8].tolist() == drawn[8, 14].tolist() == drawn[8, 15].tolist() == [245, 245, 245]
    assert drawn[4, 8].max() < 30
    assert drawn[10, 10].tolist() == drawn[25, 25].tolist() == [100, 100, 100]
    speck = ranks.copy()
    speck[27, 27] = 1
    assert (tidied(speck, 2.0)[24:] == -1).all()
    assert (tidied(speck, 2.0)[8:12, 8:12] == 1).all()


@pytest.mark.parametrize(
    ("most", "length"), [(0.9, 0.5), (1.0, 1.0), (4.99, 2.0), (7.0, 5.0), (0.0123, 0.01), (1234.0, 1000.0)]
)
def test_scale_bars_have_round_lengths(most: float, length: float) -> None:
    assert round_length(most) == pytest.approx(length)


def test_png_round_trip(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    with Image.open(write_png(tmp_path / "deep" / "a.png", pixels)) as read:
        np.testing.assert_array_equal(np.asarray(read), pixels)
