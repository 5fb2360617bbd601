"""The Python API: what the commands do, as functions. `import ov3d` offers all of them, and imports each when it is used.

>>> import ov3d, tempfile
>>> from ov3d.common.worlds.gallery import GalleryConfig, write_gallery
>>> folder = tempfile.mkdtemp()
>>> config = GalleryConfig(num_views=2, width=96, height=72, photographs=("cat",), num_boxes=0, num_pedestals=0)
>>> _ = write_gallery(f"{folder}/room", config)

A capture in any known layout becomes a `Scene`:

>>> scene = ov3d.load_scene(f"{folder}/room")
>>> scene.name, scene.layout, len(scene.frames), scene.world.units
('room', 'scannet', 2, 'metric')

Its photographs are encoded once; asking for it again encodes nothing:

>>> [report.images + report.skipped for report in ov3d.extract_features(f"{folder}/room")]
[2]
>>> [report.images for report in ov3d.extract_features(f"{folder}/room")]
[0]

A backend carries what they show onto the points, and the run answers to words:

>>> from pathlib import Path
>>> run = ov3d.train("points", f"{folder}/room", "stages=[fuse]", outputs=Path(folder))
>>> answer = ov3d.query("a cat", run.path)
>>> answer.prompt, answer.scene, answer.scores.shape == (len(scene.cloud),)
('a cat', 'room', True)

An index may be read by itself, with NumPy alone:

>>> index = ov3d.load_index(run.indexes["room"])
>>> index.scene, index.backend, len(index.xyz) == len(scene.cloud)
('room', 'points/fuse', True)
>>> from ov3d.common.asking.ask import text_vector
>>> vector, _ = text_vector(index.encoder, "a cat")
>>> ov3d.ask(index, "a cat", vector).best_score == answer.best_score
True
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ov3d.common.asking.answer import Answer
    from ov3d.common.base.progress import Progress
    from ov3d.common.base.runs import Run
    from ov3d.common.features.extract import ExtractReport


def extract_features(
    path: str | Path,
    *,
    encoder: str = "offline",
    refine: str = "none",
    layout: str | None = None,
    scale: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[ExtractReport]:
    """Encode the photographs of a scene, or of each scene in a folder, into the cache; what is stored already is skipped.

    Args:
        path: a scene, or a folder of scenes.
        encoder: as `ov3d extract-features --encoder` takes it.
        refine: `none`, `dino` or `timm:NAME`.
        layout: how the scenes are stored; none detects it.
        scale: metres per unit of the files; none leaves lengths as they are.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: hears how far it is.

    Returns:
        One report a scene, in the order of their ids.

    Raises:
        UsageError: no such encoder, refinement, layout or device.
        DataError: no scene there, or one with a fault.
        MissingModelError: a model is not on this machine.
    """
    from ov3d.common.base.device import pick_device
    from ov3d.common.base.progress import Silent
    from ov3d.common.readers import open_source
    from ov3d.common.teachers import open_teacher

    source = open_source(path, layout=layout, scale=scale, say=progress.say if progress else None)
    teacher = open_teacher(encoder, refine=refine, device=pick_device(device))
    return [teacher.extract(source[idx], progress=progress or Silent()) for idx in range(len(source))]


def train(backend: str, scene: str | Path, *settings: str, outputs: Path | None = None, device: str = "auto") -> Run:
    """Train a backend by name; `settings` are texts like `refine=dino`."""
    from ov3d.backends import get_backend
    from ov3d.common.base.config import load_config
    from ov3d.common.learning.run import train_run

    chosen = get_backend(backend)
    config = load_config(chosen.config_type, None, settings)
    return train_run(chosen, scene, config, outputs=outputs, device=device)


def query(
    prompt: str,
    run: str | Path = "latest",
    *,
    scene: str | None = None,
    threshold: float | None = None,
    top: int = 5,
    device: str = "auto",
) -> Answer:
    """Ask a run for something; what `ov3d query` does.

    Args:
        prompt: what to find.
        run: the folder of a run, or `latest`.
        scene: which scene of the run; may be left out where there is one.
        threshold: raw cosine from which something counts as present; none takes the encoder's own.
        top: how many objects to give at most.
        device: where the text encoder runs if the prompt was never asked before.

    Raises:
        UsageError: the prompt is empty, or the run has no such scene.
        DataError: there is no such run.
    """
    from ov3d.common.asking.ask import ask_run
    from ov3d.common.base.runs import find_run

    return ask_run(find_run(str(run)), prompt, scene=scene, threshold=threshold, top=top, device=device)
