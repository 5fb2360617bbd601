"""Runs: one folder per training, `OUTPUTS/SCENE/BACKEND/TIME`, and finding them by the name a user types.

A run holds `config.yaml`, `manifest.json` (scene, backend, encoder, paths of the indexes) and one LanguageIndex per scene.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ov3d.common.base.errors import DataError, UsageError
from ov3d.common.base.files import read_json, write_json, write_text

CONFIG_NAME = "config.yaml"
MANIFEST_NAME = "manifest.json"
MANIFEST_KIND = "run-manifest"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Run:
    """A finished or unfinished training.

    Attributes:
        path: the run's folder.
        manifest: as given to `write_manifest`.
        chosen: how the run was found, to show to the user; empty if its path was given.
    """

    path: Path
    manifest: dict[str, Any]
    chosen: str = ""

    @property
    def indexes(self) -> dict[str, Path]:
        """The LanguageIndex file of each scene of the run."""
        return {scene: self.path / file for scene, file in self.manifest["indexes"].items()}


def outputs_root(root: str | Path | None = None) -> Path:
    """The folder for runs: `root`, else `$OV3D_OUTPUTS`, else `./outputs`."""
    return Path(root) if root is not None else Path(os.environ.get("OV3D_OUTPUTS", "outputs"))


def new_run(scene: str, backend: str, root: str | Path | None = None) -> Path:
    """Create a new run folder; two runs started in the same second get different names."""
    stamp = datetime.now(timezone.utc).astimezone().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        path = outputs_root(root) / _safe(scene) / backend / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DataError(
                f"{path} cannot be created: {error.strerror}.", "Choose another folder with --outputs."
            ) from None
        return path
    raise DataError(f"{scene} already has a thousand runs named {stamp}.", "Clear the outputs folder.")


def started_config(run: Path) -> Path:
    """The settings of a run to resume.

    Raises:
        DataError: the folder has no settings.
    """
    path = run / CONFIG_NAME
    if not path.is_file():
        raise DataError(f"{run} is not a run that can be resumed (looked for {CONFIG_NAME}).", "Start a new one.")
    return path


def claim_run(run: Path, config: str) -> None:
    """Write a configuration into a run's folder, unless it is there; arguments and errors as of `check_claim`."""
    if check_claim(run, config):
        write_text(run / CONFIG_NAME, config)


def check_claim(run: Path, config: str) -> bool:
    """Whether a configuration still has to be written into a run's folder; nothing is written yet.

    A run of some stages may be resumed with more of them; nothing else may differ.

    Args:
        run: the folder.
        config: the configuration as YAML with every value.

    Raises:
        UsageError: the folder holds a run with other settings.
    """
    path = run / CONFIG_NAME
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    if before is not None and before != config and (other := _other_setting(before, config)):
        raise UsageError(
            f"Run {run} was started with other settings ({other}).", "Start a new run, or use its config.yaml."
        )
    return before != config


def _other_setting(before: str, after: str) -> str:
    """The first setting that differs, ignoring added stages; empty if all match."""
    import yaml

    old, new = yaml.safe_load(before), yaml.safe_load(after)
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return CONFIG_NAME
    for key in dict.fromkeys((*new, *old)):
        one, other = old.get(key), new.get(key)
        further = key == "stages" and isinstance(other, list) and one == other[: len(one or [])]
        if one != other and not further:
            return str(key)
    return ""


def scene_folders(run: Path, ids: Sequence[str]) -> list[Path]:
    """One folder in the run per scene; the number separates names that differ only in special characters.

    Raises:
        DataError: two scenes have the same name.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"Two scenes are named {name}.", "Scene names in one run must differ.")
        seen.add(name)
    return [run / "scenes" / f"{number:04d}-{_safe(name)}" for number, name in enumerate(ids)]


def write_manifest(run: Path, manifest: dict[str, Any]) -> None:
    """Write the run's manifest; `find_run` finds only runs that have one."""
    write_json(run / MANIFEST_NAME, manifest, kind=MANIFEST_KIND, version=MANIFEST_VERSION)


def read_run(path: str | Path, *, chosen: str = "") -> Run:
    """Open a run by its folder."""
    return Run(Path(path), read_json(Path(path) / MANIFEST_NAME, kind=MANIFEST_KIND, version=MANIFEST_VERSION), chosen)


def find_run(name: str | Path | Run = "latest", root: str | Path | None = None) -> Run:
    """Find a run by its folder, by `latest`, or by a `scene` or `scene/backend` name (the newest match).

    An open `Run` is returned unchanged.

    Raises:
        DataError: no such run; the message says what was looked for.
    """
    if isinstance(name, Run):
        return name
    path = Path(name)
    if name != "latest" and (path / MANIFEST_NAME).is_file():
        return read_run(path)
    base = outputs_root(root)
    below = base if name == "latest" else base / name
    manifests = sorted(below.rglob(MANIFEST_NAME), key=lambda file: (file.stat().st_mtime_ns, str(file)))
    if not manifests:
        where = f"{base} has no finished run" if name == "latest" else f"No run found at {path} or below {below}"
        raise DataError(f"{where} (looked for {MANIFEST_NAME}).", "Create one: ov3d train points SCENE --stages fuse")
    newest = manifests[-1].parent
    what = "the newest run" if name == "latest" else f"the newest run of {name}"
    return read_run(newest, chosen=f"{what}, of {len(manifests)}")


def _safe(name: str) -> str:
    """A name made safe for use as a file name."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "scene"
