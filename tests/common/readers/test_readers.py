"""Layouts: what is read, what is left out and said, and what is refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData, PlyElement

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.readers import load_scene, open_source
from ov3d.common.scenes.cameras import Camera, invert_pose, look_at, transform
from ov3d.common.scenes.scene import IGNORE, PointCloud, SceneSource
from ov3d.common.worlds.raycast import View
from ov3d.common.worlds.scannet_writer import write_cloud, write_facts, write_view

CAMERA = Camera(16, 12, 14.0, 15.0, 8.25, 5.75)
CLASSES = ("floor", "cat")


def make(folder: Path, num_views: int = 3, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Path:
    """A small scene in ScanNet's layout."""
    write_facts(folder, CAMERA, CLASSES)
    for k in range(num_views):
        pose = look_at(np.array([0.2 * k, -2.0, 1.0]), np.zeros(3))
        pose[:3, 3] += offset
        noise = np.random.default_rng(k)
        view = View(
            camera=CAMERA,
            world_from_camera=pose,
            rgb=noise.integers(0, 255, (12, 16, 3)).astype(np.uint8),
            depth=np.full((12, 16), 1.25, np.float32),
            labels=noise.integers(-1, 2, (12, 16)).astype(np.int32),
            instances=noise.integers(0, 3, (12, 16)).astype(np.int32) - 1,
        )
        write_view(folder, str(k), view)
    return folder


def ply(path: Path, dtype: list[tuple[str, str]], rows: list[tuple[float, ...]], *, text: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(np.array(rows, dtype=dtype), "vertex")], text=text).write(str(path))
    return path


XYZ = [("x", "f8"), ("y", "f8"), ("z", "f8")]


@pytest.fixture()
def room(tmp_path: Path) -> Path:
    return make(tmp_path / "room")


# ------------------------------------------------------------------------------------------------------ what is read


def test_a_scannet_folder(room: Path) -> None:
    scene = load_scene(room)
    assert (scene.name, scene.layout, scene.classes, scene.notes) == ("room", "scannet", CLASSES, ())
    assert [frame.name for frame in scene.frames] == ["0", "1", "2"]
    frame = scene.frames[1]
    assert frame.camera == CAMERA
    assert frame.load_image().shape == (12, 16, 3)
    assert (frame.depth.load() == np.float32(1.25)).all()
    assert set(np.unique(frame.labels.load())) == {IGNORE, 0, 1}
    assert set(np.unique(frame.instances.load())) == {IGNORE, 1}  # 0 is no object
    assert scene.cloud is None
    assert scene.world.units == "metric"


def test_whole_numbers_are_pixel_centres_in_the_files_and_half_ones_here(room: Path) -> None:
    """ScanNet's tools find a point's pixel by rounding K X; ours is the floor: they must name the same pixel."""
    matrix = np.loadtxt(room / "intrinsic" / "intrinsic_color.txt")
    assert matrix[0, 2] == CAMERA.cx - 0.5
    points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 4), (200, 3))
    homogeneous = points @ matrix[:3, :3].T
    theirs = np.floor(homogeneous[:, :2] / homogeneous[:, 2:] + 0.5)
    ours, _ = load_scene(room).frames[0].camera.project(points)
    assert np.array_equal(np.floor(ours), theirs)


def test_frames_are_in_the_order_of_their_numbers_or_names(tmp_path: Path) -> None:
    folder = make(tmp_path / "room", 12)
    assert [frame.name for frame in load_scene(folder).frames] == [str(k) for k in range(12)]
    for part in ("color/10.png", "pose/10.txt"):
        (folder / part).rename((folder / part).with_stem("frame-b"))
    assert [frame.name for frame in load_scene(folder).frames][:3] == ["0", "1", "11"]


def test_intrinsics_may_be_3x3_and_images_jpeg(room: Path) -> None:
    matrix = np.loadtxt(room / "intrinsic" / "intrinsic_color.txt")[:3, :3]
    np.savetxt(room / "intrinsic" / "intrinsic_color.txt", matrix)
    Image.open(room / "color" / "0.png").save(room / "color" / "0.JPG")
    (room / "color" / "0.png").unlink()
    (room / "color" / "._1.png").write_bytes(b"what a Mac leaves behind")
    scene = load_scene(room)
    assert scene.frames[0].image_path.name == "0.JPG"
    assert scene.frames[0].camera == CAMERA
    assert len(scene.frames) == 3


def test_depth_of_another_size_without_intrinsics_follows_the_photographs(room: Path) -> None:
    (room / "intrinsic" / "intrinsic_depth.txt").unlink()
    for path in (room / "depth").iterdir():
        Image.fromarray(np.full((6, 8), 1250, np.uint16)).save(path)
    scene = load_scene(room)
    assert scene.frames[0].depth.camera == CAMERA.resized(8, 6)
    assert scene.notes == ("intrinsic_depth.txt is missing: depth is assumed to have the photographs' field of view",)


def test_only_headers_are_read_until_a_frame_is_loaded(room: Path) -> None:
    path = room / "color" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])
    scene = load_scene(room)
    assert len(scene.frames) == 3
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        scene.frames[1].load_image()


def test_a_cloud_beside_the_frames(room: Path) -> None:
    xyz = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    labels = np.random.default_rng(1).integers(-1, 4, 50).astype(np.int32)
    instances = np.random.default_rng(2).integers(-1, 3, 50).astype(np.int32)
    rgb = np.random.default_rng(3).integers(0, 255, (50, 3)).astype(np.uint8)
    write_cloud(room / "cloud.ply", PointCloud(xyz, rgb, labels, instances))
    cloud = load_scene(room).cloud
    assert np.array_equal(cloud.xyz, xyz)
    assert np.array_equal(cloud.rgb, rgb)
    assert np.array_equal(cloud.labels, np.where(labels < 2, labels, IGNORE))  # ids without a name are unknown
    assert np.array_equal(cloud.instances, instances)


def test_far_coordinates_keep_their_millimetres(tmp_path: Path) -> None:
    utm = np.array([412_345.0, 5_678_901.0, 230.0])
    folder = make(tmp_path / "site", offset=tuple(utm.tolist()))
    near = np.random.default_rng(0).uniform(-5, 5, (40, 3)).round(3)
    ply(folder / "scan.ply", XYZ, [tuple(row) for row in near + utm])
    scene = load_scene(folder)
    assert scene.layout == "cloud"
    origin = np.array(scene.world.origin)
    assert scene.cloud.xyz.dtype == np.float32
    assert np.abs(scene.cloud.xyz + origin - (near + utm)).max() < 1e-6
    # The frames moved with the points: each still sees the same points at the same places.
    frame = scene.frames[1]
    local = transform(invert_pose(frame.world_from_camera), scene.cloud.xyz)
    expected = transform(invert_pose(look_at(np.array([0.2, -2.0, 1.0]), np.zeros(3))), near)
    np.testing.assert_allclose(local, expected, atol=1e-5)


def test_far_poses_without_a_cloud_get_an_origin_and_near_ones_do_not(tmp_path: Path) -> None:
    far = load_scene(make(tmp_path / "far", offset=(1e6, 0.0, 0.0)))
    near = load_scene(make(tmp_path / "near"))
    assert near.world.origin == (0.0, 0.0, 0.0)
    assert far.world.origin == (1e6, -2.0, 1.0)
    for a, b in zip(far.frames, near.frames, strict=True):
        moved = a.world_from_camera[:3, 3] + far.world.origin
        np.testing.assert_allclose(moved, b.world_from_camera[:3, 3] + (1e6, 0, 0), atol=1e-9)


@pytest.mark.parametrize("inner", ["", "images"])
def test_a_ply_with_a_posed_folder(tmp_path: Path, inner: str) -> None:
    room = tmp_path / "room"
    make(room / inner)
    ply(room / "scan.ply", [*XYZ, ("red", "u1"), ("green", "u1"), ("blue", "u1")], [(0, 0, 0, 1, 2, 3)], text=True)
    for path in (room, room / "scan.ply"):
        scene = load_scene(path)
        assert (scene.layout, len(scene.frames), len(scene.cloud)) == ("cloud", 3, 1)
        assert scene.cloud.rgb.tolist() == [[1, 2, 3]]
        assert scene.classes == CLASSES


def test_a_lone_ply_is_a_scene_without_frames(tmp_path: Path) -> None:
    path = ply(tmp_path / "scan.ply", [*XYZ, ("red", "f4"), ("green", "f4"), ("blue", "f4")], [(0, 1, 2, 0, 0.5, 1)])
    scene = load_scene(path)
    assert (scene.name, len(scene.frames)) == ("scan", 0)
    assert scene.cloud.rgb.tolist() == [[0, 128, 255]]
    assert "no posed images beside scan.ply" in scene.notes[0]


def test_several_clouds_beside_folders_of_images_go_by_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, num_views=2 if name == "a" else 4)
        ply(tmp_path / f"{name}.ply", XYZ, [(0, 0, 0)])
    assert len(load_scene(tmp_path / "b.ply").frames) == 4
    other = ply(tmp_path / "other.ply", XYZ, [(0, 0, 0)])
    with pytest.raises(DataError, match=r"2 folders of posed images \(a, b\), none named like other\.ply"):
        load_scene(other)


def test_a_mesh_is_read_as_its_vertices(tmp_path: Path) -> None:
    vertices = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)], dtype=XYZ)
    for faces in ([[0, 1, 2], [1, 2, 3]], [[0, 1, 2], [0, 1, 2, 3]]):
        cells = np.empty(len(faces), dtype=[("vertex_indices", "O")])
        cells["vertex_indices"] = [np.array(face, np.int32) for face in faces]
        elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(cells, "face")]
        PlyData(elements).write(str(tmp_path / "mesh.ply"))
        assert load_scene(tmp_path / "mesh.ply").cloud.xyz.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]


# -------------------------------------------------------------------------------------------------- sources of scenes


def test_a_folder_of_scenes_is_a_lazy_source(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        make(tmp_path / name, num_views=1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "val.txt").write_text("c\n\n")
    (tmp_path / "splits" / "train.txt").write_text("a\nb\n")
    source = open_source(tmp_path)
    assert isinstance(source, SceneSource)
    assert tuple(source.ids) == ("a", "b", "c")
    assert source.splits == {"train": ("a", "b"), "val": ("c",)}
    shutil.rmtree(tmp_path / "b")  # nothing was read yet: only b itself fails
    assert source[2].name == "c"
    with pytest.raises(DataError, match="b has no folder color/"):
        source[1]
    with pytest.raises(DataError, match="holds 2 scenes"):
        load_scene(tmp_path) if not (tmp_path / "splits" / "train.txt").unlink() else None
    (tmp_path / "splits" / "val.txt").write_text("d\n")
    with pytest.raises(DataError, match=r"val\.txt names 'd'"):
        open_source(tmp_path)


def test_one_scene_is_a_source_of_one(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    assert tuple(open_source(".").ids) == ("room",)
    monkeypatch.chdir(room.parent)
    assert load_scene(".").name == "room"  # the only scene of a folder


# ------------------------------------------------------------------------------------------- what is left out and said


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    folder = make(tmp_path / "room", 6)
    (folder / "pose" / "0.txt").unlink()
    (folder / "color" / "1.png").unlink()
    (folder / "pose" / "2.txt").write_text("\n".join(["-inf -inf -inf -inf"] * 4))
    (folder / "color" / "3.png").write_bytes(b"")
    (folder / "depth" / "4.png").unlink()
    scene = load_scene(folder)
    assert [frame.name for frame in scene.frames] == ["4", "5"]
    assert scene.frames[0].depth is None
    assert scene.notes == (
        "1 image has no pose and is left out",
        "1 pose has no image and is left out",
        "1 frame has a pose that is not finite and is left out",
        "1 image cannot be read (3.png) and is left out",
        "1 frame has no depth image",
    )


def test_more_that_is_left_out(room: Path) -> None:
    (room / "classes.txt").unlink()
    write_cloud(room / "cloud.ply", PointCloud(np.zeros((2, 3), np.float32), labels=np.zeros(2, np.int32)))
    turned = np.eye(4)
    turned[0, 3] = 0.05
    np.savetxt(room / "intrinsic" / "extrinsic_depth.txt", turned)
    scene = load_scene(room)
    assert scene.frames[0].labels is None
    assert scene.cloud.labels is None
    assert "label/ is left out: no classes.txt" in " ".join(scene.notes)
    assert "offset between depth and colour cameras" in " ".join(scene.notes)
    (room / "cloud.ply").unlink()
    for name in ("a.ply", "b.ply"):
        ply(room / name, XYZ, [(0, 0, 0)])
    assert "2 clouds (a.ply, …) are left out" in " ".join(load_scene(room).notes)


def test_a_pose_rounded_to_four_digits_is_made_a_rotation(room: Path) -> None:
    path = room / "pose" / "1.txt"
    np.savetxt(path, np.loadtxt(path), fmt="%.3f")
    rotation = load_scene(room).frames[1].world_from_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_points_that_are_not_finite_are_dropped(tmp_path: Path) -> None:
    nan = float("nan")
    path = ply(tmp_path / "scan.ply", [*XYZ, ("instance", "i4")], [(0, 0, nan, 5), (1, 2, 3, 6), (nan, nan, nan, 7)])
    scene = load_scene(path)
    assert scene.cloud.xyz.tolist() == [[1, 2, 3]]
    assert scene.cloud.instances.tolist() == [6]
    assert "2 of 3 points in scan.ply are not finite and are left out" in scene.notes


# ------------------------------------------------------------------------------------------------------ what is refused


def _pose(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(room: Path) -> None:
        np.savetxt(room / "pose" / "1.txt", change(np.loadtxt(room / "pose" / "1.txt")))

    return spoil


def _intrinsics(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(room: Path) -> None:
        path = room / "intrinsic" / "intrinsic_color.txt"
        np.savetxt(path, change(np.loadtxt(path)))

    return spoil


def _every(pattern: str, content: bytes | None) -> Callable[[Path], None]:
    def spoil(room: Path) -> None:
        for path in list(room.glob(pattern)):
            path.unlink() if content is None else path.write_bytes(content)

    return spoil


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "reflected": (_pose(lambda p: p @ np.diag([1.0, 1.0, -1.0, 1.0])), r"pose .*pose/1\.txt .*reflects"),
    "scaled": (_pose(lambda p: p @ np.diag([2.0, 2.0, 2.0, 1.0])), r"1\.txt .*not orthonormal"),
    "3x4 pose": (_pose(lambda p: p[:3]), r"1\.txt .*shape 3x4"),
    "pose of words": (lambda room: (room / "pose" / "1.txt").write_text("a pose"), r"1\.txt does not hold a matrix"),
    "ragged pose": (lambda room: (room / "pose" / "1.txt").write_text("1 2\n3"), r"1\.txt does not hold a matrix"),
    "pose of bytes": (lambda room: (room / "pose" / "1.txt").write_bytes(b"\xff\xfe\x00"), r"1\.txt does not hold"),
    "no tracking": (_every("pose/*.txt", b"inf inf inf inf\n" * 4), "None of the 3 poses .* are finite"),
    "no poses": (_every("pose/*.txt", None), r"3 images in color/ but no pose in pose/ \(looked for pose/0\.txt\)"),
    "no images": (_every("color/*.png", None), r"No images in .*color"),
    "no readable image": (_every("color/*.png", b"no picture"), "None of 3 images in .* can be read"),
    "no readable depth": (_every("depth/*.png", b"no picture"), "None of 3 depth images"),
    "no intrinsics": (_every("intrinsic/*.txt", None), r"looked for .*intrinsic_color\.txt"),
    "2x2 intrinsics": (
        _intrinsics(lambda k: k[:2, :2]),
        r"intrinsic_color\.txt are not a finite 3x3 or 4x4 matrix \(2x2\)",
    ),
    "infinite intrinsics": (_intrinsics(lambda k: k + np.inf), "not a finite 3x3"),
    "intrinsics of another size": (_intrinsics(lambda k: k * 4), r"do not fit images of 16x12"),
    "negative focal length": (_intrinsics(lambda k: k * [[-1], [1], [1], [1]]), "do not fit images"),
    "two sizes": (
        lambda room: Image.new("RGB", (8, 6)).save(room / "color" / "2.png"),
        r"2\.png is 8x6 but 0\.png is 16x12",
    ),
    "one name twice": (
        lambda room: Image.new("RGB", (16, 12)).save(room / "color" / "2.jpg"),
        r"has both 2\.jpg and 2\.png",
    ),
    "class twice": (
        lambda room: (room / "classes.txt").write_text("cat\ndog\ncat\n\n"),
        r"'cat' twice \(lines 1 and 3",
    ),
    "class without a name": (lambda room: (room / "classes.txt").write_text("cat\n\ndog\n"), "Line 2 of .* is empty"),
    "classes of bytes": (
        lambda room: (room / "classes.txt").write_bytes(b"\xff\xfe\xfd"),
        "classes.txt cannot be read",
    ),
    "other names": (
        lambda room: [p.rename(p.with_stem("pose-" + p.stem)) for p in list((room / "pose").iterdir())],
        r"0\.png needs pose/0\.txt",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_the_file(room: Path, fault: str) -> None:
    spoil, words = FAULTS[fault]
    spoil(room)
    with pytest.raises(DataError, match=words) as caught:
        load_scene(room)
    assert "\n" not in str(caught.value)


def _cut(path: Path, size: int) -> Path:
    ply(path, XYZ, [(float(k), 0.0, 0.0) for k in range(100)])
    path.write_bytes(path.read_bytes()[:size])
    return path


CLOUD_FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "cut in the points": (lambda p: _cut(p, 400), "cannot be read as PLY: .*early end-of-file"),
    "cut in the header": (lambda p: _cut(p, 40), "cannot be read as PLY"),
    "no PLY": (lambda p: p.write_bytes(b"\x89PNG") and p, "cannot be read as PLY"),
    "empty file": (lambda p: p.write_bytes(b"") or p, "cannot be read as PLY"),
    "no points": (lambda p: ply(p, XYZ, []), "has no points"),
    "only NaN": (lambda p: ply(p, XYZ, [(float("nan"),) * 3]), "no points with finite coordinates"),
    "no z": (lambda p: ply(p, XYZ[:2], [(1.0, 2.0)]), "vertices of .* have no z"),
    "no vertices": (
        lambda p: p.write_text("ply\nformat ascii 1.0\nelement face 0\nproperty int a\nend_header\n") and p,
        r"no vertex element \(its elements: face\)",
    ),
    "absurd count": (
        lambda p: (
            p.write_text(
                "ply\nformat binary_little_endian 1.0\nelement vertex 99999999999999\nproperty float x\nproperty float y\n"
                "property float z\nend_header\n"
            )
            and p
        ),
        "cannot be read as PLY",
    ),
}


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_a_faulty_cloud_is_one_line(tmp_path: Path, fault: str) -> None:
    spoil, words = CLOUD_FAULTS[fault]
    path = spoil(tmp_path / "scan.ply")
    with pytest.raises(DataError, match=words) as caught:
        load_scene(path)
    assert "\n" not in str(caught.value)
    assert "scan.ply" in str(caught.value)


def test_what_is_no_scene_says_what_was_looked_for(tmp_path: Path, room: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_scene(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", room / "color" / "0.png"):
        with pytest.raises(DataError, match=r"is not a scene: .*color/, pose/ and intrinsic/; or one cloud"):
            open_source(path)
    with pytest.raises(UsageError, match=r"Unknown layout 'scanet'\. Did you mean scannet"):
        open_source(room, layout="scanet")
    with pytest.raises(DataError, match=r"is not a scene: looked .* for one cloud"):
        open_source(room, layout="cloud")
    assert load_scene(room, layout="scannet").layout == "scannet"


def test_a_data_set_with_a_fault_in_one_scene_opens(tmp_path: Path) -> None:
    make(tmp_path / "good")
    shutil.rmtree(make(tmp_path / "bad") / "intrinsic")
    source = open_source(tmp_path)
    assert tuple(source.ids) == ("bad", "good")
    assert len(source[1].frames) == 3
    with pytest.raises(DataError, match=r"intrinsic_color\.txt"):
        source[0]
