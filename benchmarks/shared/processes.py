"""ov3d's commands as whole processes, timed against other programs, and a run for them to be asked about."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.harness import interleaved, medians, resident_bytes

OURS = "from ov3d.cli.app import main; main()"


def listing(names: Sequence[str]) -> str:
    """Code to run before other code: it prints which of some modules were imported, on stderr at the end."""
    return (
        "import sys, atexit; "
        f"atexit.register(lambda: print(*sorted(set(sys.modules) & set({tuple(names)!r})), file=sys.stderr)); "
    )


def user_environment(folder: str | None = None) -> dict[str, str]:
    """This environment as a user has it, without the tests' checks of shapes; with cache and outputs in a folder."""
    env = {name: value for name, value in os.environ.items() if name != "OV3D_CHECK_SHAPES"}
    return env | ({"OV3D_CACHE": f"{folder}/cache", "OV3D_OUTPUTS": f"{folder}/outputs"} if folder else {})


@dataclass(frozen=True)
class Finished:
    """What a process printed, and its peak resident memory in bytes."""

    stdout: str
    stderr: str
    peak_bytes: int


def run(command: Sequence[str], env: Mapping[str, str]) -> Finished:
    """Run code and its arguments in a fresh interpreter."""
    with subprocess.Popen(
        [sys.executable, "-c", *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{list(command)} failed: {err}")
    return Finished(out, err, resident_bytes(usage))


def compare(ours: Sequence[str], peer: Sequence[str], env: Mapping[str, str], repeats: int) -> tuple[float, float]:
    """Median seconds of both commands, run in turn after one run each that does not count."""
    median = medians(interleaved({"ours": partial(run, ours, env), "peer": partial(run, peer, env)}, repeats))
    return median["ours"], median["peer"]
