"""README's code runs as it is written: its shell and Python blocks, on a small room, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- readme-test -->\s*```(bash|python)\n(.*?)```", re.DOTALL)


@pytest.mark.offline_weights
@pytest.mark.slow
def test_the_blocks_run(tmp_path: Path) -> None:
    from ov3d.common.worlds.gallery import GalleryConfig, write_gallery

    config = GalleryConfig(seed=100, num_views=2, width=160, height=120, photographs=("cat",))
    write_gallery(tmp_path / "my-room", config)
    environment = {name: value for name, value in os.environ.items() if name != "OV3D_CHECK_SHAPES"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    blocks = BLOCK.findall(README)
    assert [kind for kind, _ in blocks] == ["bash", "python"]
    outputs = {}
    for kind, code in blocks:
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        outputs[kind] = done.stdout
    assert "my-room 2 frames" in outputs["python"]
    assert "mIoU" in outputs["bash"]
    if (tmp_path / "found").is_dir():
        assert (tmp_path / "found" / "points.ply").is_file()


def test_exactly_two_commands_set_everything_up() -> None:
    commands = re.findall(r"<!-- (main-job|tests) -->\s*```bash\n(.*?)```", README, re.DOTALL)
    assert [name for name, _ in commands] == ["main-job", "tests"]
    for _, command in commands:
        assert len(command.strip().splitlines()) == 1
        assert "pip install" in command
    elsewhere = re.sub(r"<!-- (main-job|tests) -->\s*```bash\n(.*?)```", "", README, flags=re.DOTALL)
    assert "pip install" not in elsewhere


def test_readme_names_what_exists() -> None:
    for path in re.findall(r"\]\((docs/[\w./-]+)\)", README):
        assert (ROOT / path).is_file(), path
    for folder in re.findall(r"`((?:ov3d|benchmarks)/[\w/.]*)`", README):
        assert (ROOT / folder).exists(), folder
