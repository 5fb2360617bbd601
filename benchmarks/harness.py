"""What every benchmark shares: options, calls that take turns, medians, and the line it ends with.

Ours and a named peer work on the same input in one run and take turns, so that a busy machine slows both; medians count. The
last line on stdout is one JSON object: `name`, `ours`, `peer`, `unit`, `ratio`, `goal`, `met`, then whatever else is known.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Clock = Callable[[], float]
Times = dict[str, list[float]]
"""Seconds of every repeat, by name."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """A benchmark's options, to which it adds its own: `--save` keeps the last line in benchmarks/results/NAME.json."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    return made


def data_folder(*parts: str) -> Path:
    """A place in the sample captures: under $OV3D_DATA, or ../shared/data beside the repository. It may be absent."""
    return Path(os.environ.get("OV3D_DATA", ROOT.parent / "shared" / "data")).joinpath(*parts)


# ---------------------------------------------------------------------------------------------------------- measuring


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """How long a call takes; letting go of what it returns is not counted."""
    start = clock()
    result = work()
    taken = clock() - start
    del result
    return taken


def last_of(count: int, timed: Callable[[], float]) -> float:
    """Seconds of the last of some calls in a row: the first ones still clear away what a peer gave back to the system."""
    for _ in range(count - 1):
        timed()
    return timed()


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warm_up: int = 1,
    at_most: Mapping[str, int] | None = None,
    clock: Clock | None = time.perf_counter,
) -> Times:
    """Seconds of calls that take turns.

    Args:
        calls: by name, in the order of their turns.
        repeats: how often each is counted.
        warm_up: rounds before those, which do not count.
        at_most: how often a slow call is counted, where that is fewer.
        clock: None for calls that return their own seconds.
    """
    times: Times = {name: [] for name in calls}
    for repeat in range(-warm_up, repeats):
        for name, call in calls.items():
            if repeat >= (at_most or {}).get(name, repeats):
                continue
            taken = call() if clock is None else seconds(call, clock)
            if repeat >= 0:
                times[name].append(taken)
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in times.items()}


def median_ratio(slow: Sequence[float], quick: Sequence[float]) -> float:
    """The median of the repeats' ratios, so that each is of two neighbours in time; a shorter list ends both."""
    return statistics.median(one / other for one, other in zip(slow, quick, strict=False))


def peak_bytes() -> int:
    """The largest resident size of this process so far."""
    return resident_bytes(resource.getrusage(resource.RUSAGE_SELF))


def resident_bytes(usage: resource.struct_rusage) -> int:
    """The largest resident size of a process from its usage, which has kilobytes on Linux and bytes on macOS."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_own_process(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Any:
    """Run `python -m benchmarks.MODULE ARGUMENTS`, and read the JSON of its last line; its stderr goes to ours."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------- reporting


def report(
    name: str,
    *,
    ours: float | None,
    peer: float | None,
    unit: str,
    ratio: float | None,
    goal: float | str,
    met: bool | None,
    save: bool = False,
    **extra: Any,
) -> dict[str, Any]:
    """Print a benchmark's last line, keep it in benchmarks/results/ where asked, and return it.

    Args:
        name: of the module.
        ours, peer: what is compared, in `unit`; a peer of None is absent.
        ratio: the figure that `goal` is about, usually how many times better ours is; None without a peer.
        goal: what the ratio (or ours) must reach, as a number or in words.
        met: whether all goals are met; None where that could not be measured.
        save: write benchmarks/results/NAME.json.
        extra: further figures.
    """
    result = {"name": name, "ours": ours, "peer": peer, "unit": unit, "ratio": ratio, "goal": goal}
    result |= {"met": None if met is None else bool(met), **extra}
    if save:
        write_result(name, result)
    print(json.dumps(result), flush=True)
    return result


def skip(name: str, why: str, *, unit: str, goal: float | str) -> dict[str, Any]:
    """Say on stderr, and in a last line without figures, why nothing was measured; nothing is kept."""
    print(f"Skipped: {why}", file=sys.stderr)
    return report(name, ours=None, peer=None, unit=unit, ratio=None, goal=goal, met=None, skipped=why)


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path
