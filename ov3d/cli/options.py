"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON, on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress and notes; still show errors.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Device: auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Random seed.", min=0, metavar="N")]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="Source of 2D features: offline, offline:lite2, openclip:MODEL/TAG-OR-PATH, openclip-dense:MODEL/TAG-OR-PATH, "
        "labels:DIR or features:DIR; see docs/encoders.md.",
        metavar="SPEC",
    ),
]
TextEncoderOption = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        help="Text encoder for labels:DIR (default: minilm) or features:DIR (required), e.g. openclip:MODEL/TAG.",
        metavar="SPEC",
    ),
]
RefineOption = Annotated[
    str,
    typer.Option(
        "--refine",
        help="Refinement of 2D features: none, dino (smooth over regions that DINOv2 finds similar), timm:NAME[/WEIGHTS], "
        "or auto (dino for the offline encoder, else none).",
        metavar="NAME",
    ),
]
RunArgument = Annotated[str, typer.Argument(help="Run: a folder, SCENE, SCENE/BACKEND, or latest.", metavar="RUN")]
OutputsOption = Annotated[
    Path | None, typer.Option("--outputs", help="Folder of runs.  [default: $OV3D_OUTPUTS or ./outputs]", metavar="DIR")
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of cached features.  [default: $OV3D_CACHE or ~/.cache/ov3d]", metavar="DIR"),
]
LayoutOption = Annotated[
    str | None, typer.Option("--layout", help="Layout of the scene's files.  [default: detected]", metavar="NAME")
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        "--scale", help="Metres per unit in the files, for captures without a metric scale.", metavar="METRES"
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.", metavar="FILE")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one setting, e.g. guide.steps=500; repeatable.", metavar="KEY=VALUE"),
]
OfflineFlag = Annotated[bool, typer.Option("--offline", help="Use only models on this machine; never download.")]


def go_offline(offline: bool) -> None:
    """Keep all hub clients of this process off the network."""
    if offline:
        import os

        os.environ["HF_HUB_OFFLINE"] = "1"


def use_cache(cache: Path | None) -> None:
    """Make `--cache` the cache root of this process."""
    if cache is not None:
        import os

        os.environ["OV3D_CACHE"] = str(cache)
