"""How long a repeated question takes as a whole process, against what any such program must import.

Ours: `ov3d query --json` for a prompt asked before, 100,000 points with codes of rank 192. Peer: a Python that imports numpy,
safetensors, typer and rich.console and leaves. Both are started in turn, medians are compared. Gate: neither torch nor SciPy
is imported.

Run: python -m benchmarks.query [--points N] [--repeats N] [--profile]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks.harness import parser, report
from benchmarks.shared.asked_runs import write_asked_run
from benchmarks.shared.processes import OURS, compare, listing, run, user_environment
from ov3d.common.asking.index import LanguageIndex
from ov3d.common.language.cards import EncoderCard, Identity
from ov3d.common.scenes.scene import World

GOAL = 2.0
RANK, DIM = 192, 1000
PROMPT = "a cat"
PEER = "import numpy, safetensors, typer, rich.console"
FORBIDDEN = ("torch", "scipy", "pydantic", "PIL", "rich.table")


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    arguments = parser(__doc__)
    arguments.add_argument("--points", type=int, default=100_000)
    arguments.add_argument("--repeats", type=int, default=25)
    arguments.add_argument("--profile", action="store_true", help="print the slowest imports of one query")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = user_environment(folder)
        os.environ.update(env)  # the run is made here
        make_run(options.points)
        command = ["query", PROMPT, "--json", "--quiet"]
        answer = run([listing(FORBIDDEN) + OURS, *command], env)
        if options.profile:
            print_profile([OURS, *command], env)
        ours, peer = compare([OURS, *command], [PEER], env, options.repeats)
    found = json.loads(answer.stdout)
    assert [item["num_points"] for item in found["objects"]] == [expected_points(options.points)], found["objects"]
    imported = answer.stderr.split()
    ratio = ours / peer
    print(f"query {1e3 * ours:.0f} ms, imports alone {1e3 * peer:.0f} ms, {options.repeats} runs each in turn")
    print(f"heavy modules imported: {', '.join(imported) or 'none'}")
    report(
        "query",
        ours=round(ours, 4),
        peer=round(peer, 4),
        unit="s",
        ratio=round(ratio, 3),
        goal=f"at most {GOAL} x, torch and scipy not imported",
        met=ratio <= GOAL and not {"torch", "scipy"} & set(imported),
        save=options.save,
        imported=imported,
        points=options.points,
    )


def make_run(num_points: int) -> None:
    """A run whose index has a cat among much else, and a text cache that knows the prompt."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, 1, (num_points, 3)) * (8, 6, 3)
    xyz[np.arange(num_points), rng.integers(0, 3, num_points)] = 0  # a floor and two walls
    xyz[: expected_points(num_points)] = rng.uniform((4, 3, 1), (4.5, 3.5, 1.5), (expected_points(num_points), 3))
    basis = np.linalg.qr(rng.normal(size=(DIM, RANK)))[0].T.astype(np.float32)
    code = rng.normal(size=(num_points, RANK)) * 0.05
    code[:, 0] = 0.02
    code[: expected_points(num_points), 0] = 0.5
    identity = Identity("benchmark", "seed:0", "none", "fp32")
    card = EncoderCard("offline", identity, identity, DIM, 1.0, 0.2, knows_attributes=False)
    index = LanguageIndex(
        xyz=xyz.astype(np.float32),
        code=code.astype(np.float16),
        basis=basis,
        owner=None,
        scene="room",
        scene_path="room",
        world=World(),
        backend="points/fuse",
        encoder=card,
        rgb=rng.integers(0, 255, (num_points, 3), dtype=np.uint8),
        facts={"point_spacing": 0.03},
    )
    write_asked_run(index, {PROMPT: basis[0]})


def expected_points(num_points: int) -> int:
    """How many points the cat has."""
    return num_points // 50


def print_profile(command: list[str], env: dict[str, str]) -> None:
    """The 25 modules of a query whose own import takes longest."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", *command], env=env, capture_output=True, text=True, check=True
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line][1:]
    for own, total, name in sorted(rows, key=lambda row: -int(row[0]))[:25]:
        print(f"{int(own) / 1e3:8.1f} ms own {int(total) / 1e3:8.1f} ms with its own imports  {name.strip()}")


if __name__ == "__main__":
    main()
