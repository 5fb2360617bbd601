"""How long `ov3d --help` takes, against a Typer app with as many commands that do nothing.

Both are whole processes, started in turn; medians are compared. Gate: torch, numpy and scipy are not imported.

Run: python -m benchmarks.startup [--repeats N]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import parser, report
from benchmarks.shared.processes import OURS, compare, listing, run, user_environment

GOAL = 1.5
FORBIDDEN = ("torch", "numpy", "scipy", "pydantic", "PIL", "rich")
EMPTY_APP = """
import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)
{commands}
app()
"""
EMPTY_COMMAND = """
@app.command("{name}")
def command_{number}() -> None:
    "Do nothing."
"""


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=25)
    options = arguments.parse_args()
    env = user_environment()
    names = command_names()
    with tempfile.TemporaryDirectory() as folder:
        commands = "".join(EMPTY_COMMAND.format(name=name, number=number) for number, name in enumerate(names))
        script = Path(folder, "empty_app.py")
        script.write_text(EMPTY_APP.format(commands=commands), encoding="utf-8")
        peer = f"import sys; sys.path.insert(0, {folder!r}); import empty_app"
        imported = run([listing(FORBIDDEN) + OURS, "--help"], env).stderr.split()
        ours_seconds, peer_seconds = compare([OURS, "--help"], [peer, "--help"], env, options.repeats)
    ratio = ours_seconds / peer_seconds
    print(f"ov3d --help {1e3 * ours_seconds:.0f} ms, an empty app of {len(names)} commands {1e3 * peer_seconds:.0f} ms")
    print(f"heavy modules imported: {', '.join(imported) or 'none'}")
    report(
        "startup",
        ours=round(ours_seconds, 4),
        peer=round(peer_seconds, 4),
        unit="s",
        ratio=round(ratio, 3),
        goal=f"at most {GOAL} x, torch, numpy and scipy not imported",
        met=ratio <= GOAL and not {"torch", "numpy", "scipy"} & set(imported),
        save=options.save,
        imported=imported,
        commands=len(names),
    )


def command_names() -> list[str]:
    """The commands of ov3d, groups counted as one."""
    from ov3d.cli.app import app

    commands = [command.name or "" for command in app.registered_commands]
    return commands + [group.name or "" for group in app.registered_groups]


if __name__ == "__main__":
    main()
