"""Options that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; errors still show.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything random.", min=0, metavar="N")]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="offline, offline:lite2, openclip:MODEL/TAG-OR-PATH, openclip-dense:MODEL/TAG-OR-PATH, labels:DIR, features:DIR.",
        metavar="SPEC",
    ),
]
TextEncoderOption = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        help="Text side of labels:DIR  [default: minilm] or features:DIR (openclip:MODEL/TAG, ...).",
        metavar="SPEC",
    ),
]
RefineOption = Annotated[
    str,
    typer.Option(
        "--refine",
        help="none, dino (smooth over what DINOv2 finds alike), timm:NAME[/WEIGHTS], or auto: dino for offline, else none.",
        metavar="NAME",
    ),
]
RunArgument = Annotated[str, typer.Argument(help="A run: its folder, SCENE, SCENE/BACKEND, or latest.", metavar="RUN")]
OutputsOption = Annotated[
    Path | None, typer.Option("--outputs", help="Folder of runs.  [default: $OV3D_OUTPUTS or ./outputs]", metavar="DIR")
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of cached features.  [default: $OV3D_CACHE or ~/.cache/ov3d]", metavar="DIR"),
]
LayoutOption = Annotated[
    str | None, typer.Option("--layout", help="How the scene is stored; detected when left out.", metavar="NAME")
]
ScaleOption = Annotated[
    float | None,
    typer.Option("--scale", help="Metres per unit of the files, for captures that do not know.", metavar="METRES"),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.", metavar="FILE")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, as a.b=value; may be repeated.", metavar="KEY=VALUE")
]
OfflineFlag = Annotated[bool, typer.Option("--offline", help="Never ask a model hub; use what is on this machine.")]


def go_offline(offline: bool) -> None:
    """Keep every hub client of this process off the network."""
    if offline:
        import os

        os.environ["HF_HUB_OFFLINE"] = "1"


def use_cache(cache: Path | None) -> None:
    """Make `--cache` the cache root of this process."""
    if cache is not None:
        import os

        os.environ["OV3D_CACHE"] = str(cache)
