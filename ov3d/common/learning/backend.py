"""What a backend is: a way of learning where words live in 3D, behind four methods.

A backend turns scenes into a run: a folder with `config.yaml`, `manifest.json` and one LanguageIndex a scene. Nobody who asks
the run needs to know which backend made it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ov3d.common.base.config import Config
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import Scene, SceneSource

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Backend(Protocol):
    """A way of learning.

    Attributes:
        name: what a user types after `ov3d train`.
        stages: in order; any prefix of them can be run.
        config_type: its configuration.
        protocols: how its runs can be scored; the first one is the default.
        can_ensemble: whether `evaluate` takes `ensemble=True`, which scores a network together with the photographs' features.
    """

    name: str
    stages: tuple[str, ...]
    config_type: type[Config]
    protocols: tuple[str, ...]
    can_ensemble: bool = False

    def train(
        self,
        source: SceneSource,
        config: Any,
        *,
        run: Path,
        device: torch.device,
        progress: Progress | None = None,
        extract: bool = True,
        resume: bool = True,
    ) -> Run:
        """Run the stages that the configuration names, on every scene of the source.

        Args:
            source: the scenes.
            config: of `config_type`.
            run: the run's folder. One that was left unfinished is gone on with, and ends as if it had never stopped.
            device: where tensors live.
            progress: hears how far it is.
            extract: whether missing features are extracted; otherwise they are an error.
            resume: whether what the folder holds already is used; otherwise everything is made again.
        """
        ...

    def estimate(self, source: SceneSource, config: Any, *, device: torch.device) -> list[dict[str, Any]]:
        """About what `train` would take, a scene an entry, without making anything.

        Returns:
            `scene`, `images` to encode, `points` (of a cloud; 0 for none), `bytes` on the disk, `peak_bytes` of memory and
            `seconds`.
        """
        ...

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """The backend's own scores of all points, without the index's basis: what the index must equal to 1e-3."""
        ...

    def evaluate(
        self,
        run: Run,
        scene: Scene,
        *,
        device: torch.device,
        classes: tuple[str, ...] = (),
        threshold: float | None = None,
        progress: Progress | None = None,
        protocol: str | None = None,
    ) -> RunReport:
        """Compare the run's answers on a scene with its truth.

        Args:
            run: a finished one.
            scene: with truth.
            device: where tensors live.
            classes: prompted classes; empty takes those that the protocol scores.
            threshold: raw cosine from which a class counts as present; None takes the protocol's own.
            progress: hears how far it is.
            protocol: one of `protocols`; None takes the first.
        """
        ...
