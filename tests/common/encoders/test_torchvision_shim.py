"""The shim: silent where torchvision works, enough for open_clip and timm where its operators are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def _run(code: str, *paths: Path) -> str:
    path = os.pathsep.join(str(path) for path in (*paths, *sys.path) if str(path))
    environment = {**os.environ, "PYTHONPATH": path, "OV3D_CHECK_SHAPES": ""}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


_IMPORT = "from ov3d.common.encoders.torchvision_shim import import_torchvision as make\n"


def _package(root: Path, content: str) -> Path:
    (root / "torchvision").mkdir(parents=True)
    (root / "torchvision" / "__init__.py").write_text(content)
    return root


def test_torchvision_imports_here_whatever_its_build() -> None:
    code = (
        _IMPORT + "first = make(); import torchvision.transforms; print(first == make(), torchvision.__version__ != '')"
    )
    assert _run(code) == "True True"


def test_nothing_is_defined_where_it_imports(tmp_path: Path) -> None:
    code = _IMPORT + "print(make(), make())\nimport torch, torchvision\nprint(torchvision.works)\n"
    code += "try:\n    torch.ops.torchvision.nms\nexcept AttributeError:\n    print('untouched')"
    assert _run(code, _package(tmp_path, "works = True")).split() == ["False", "False", "True", "untouched"]


def test_missing_operators_are_described_and_the_import_is_done_again(tmp_path: Path) -> None:
    content = (
        "import sys, torch\nfrom torchvision import part\n"
        "torch.library.register_fake('torchvision::nms')(lambda d, s, t: d)\nimports = part.count\n"
    )
    root = _package(tmp_path, content)
    (root / "torchvision" / "part.py").write_text(
        "import builtins\nbuiltins.count = count = getattr(builtins, 'count', 0) + 1\n"
    )
    code = _IMPORT + "print(make(), make())\nimport torchvision\nprint(torchvision.imports)"
    assert _run(code, root).split() == ["True", "True", "2"]


def test_other_failures_are_said(tmp_path: Path) -> None:
    code = _IMPORT + (
        "from ov3d.common.base.errors import MissingModelError\n"
        "try:\n    make()\nexcept MissingModelError as error:\n    print(error)"
    )
    broken = _run(code, _package(tmp_path / "a", "raise RuntimeError('wrong CUDA version\\nmore lines')"))
    assert "wrong CUDA version." in broken
    assert "more lines" not in broken
    assert "not installed" in _run(code, _package(tmp_path / "b", "raise ImportError('gone')"))
