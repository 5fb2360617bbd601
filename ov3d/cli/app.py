"""The `ov3d` command: registers the commands, one per file, and turns every failure into one line and an exit code.

Exit codes: 0 success, 1 a problem with the input or the machine, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer

from ov3d.cli import cache, demo, doctor, eval, extract_features, predict, query, train
from ov3d.cli.console import print_error
from ov3d.common.base.errors import Ov3dError

app = typer.Typer(
    name="ov3d",
    help="Find things in a 3D scene by describing them in words.\n\nStart with: ov3d demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from ov3d import __version__

        print(f"ov3d {__version__}")
        raise typer.Exit


app.command("demo", short_help="Try ov3d on a generated room.")(demo.demo)
app.command("extract-features", short_help="Encode the images of scenes into the feature cache.")(
    extract_features.extract_features
)
app.command("train", short_help="Train a backend on a scene and write a run.")(train.train)
app.command("query", short_help="Find something in a scene of a run.")(query.query)
app.command("predict", short_help="Label a new scan without photographs.")(predict.predict)
app.command("eval", short_help="Score a run, or prediction files from any program.")(eval.evaluate)
app.command("doctor", short_help="Check this machine or a scene.")(doctor.doctor)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the command line; the entry point of the package."""
    try:
        app(prog_name="ov3d")
    except Ov3dError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("Interrupted. Finished work is kept; run the same command again to continue.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the pipe (head, less) has exited, so there is nowhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        print_error(Ov3dError("Out of memory.", "Use a coarser voxel size or fewer views."))
        sys.exit(1)
    except Exception as error:
        if os.environ.get("OV3D_TRACEBACK"):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"Error: ov3d crashed ({what}). Set OV3D_TRACEBACK=1 for a traceback, and please report this bug.",
            file=sys.stderr,
        )
        sys.exit(1)
