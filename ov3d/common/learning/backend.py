"""What a backend is: a way of learning where words live in 3D.

A backend turns scenes into a run: a folder with `config.yaml`, `manifest.json` and one LanguageIndex per scene. Nobody who
asks the run needs to know which backend made it; what only the backend can do with its run is behind the methods below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ov3d.common.base.errors import UsageError
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float, Float32
from ov3d.common.learning.estimate import Estimate
from ov3d.common.learning.prediction_request import PredictRequest
from ov3d.common.learning.run_config import RunConfig
from ov3d.common.metrics.run_report import RunReport
from ov3d.common.scenes.scene import Scene, SceneSource

if TYPE_CHECKING:
    import torch

    from ov3d.common.asking.answer import Answer
    from ov3d.common.asking.index import LanguageIndex
    from ov3d.common.exporters.orbit import ViewRenderer


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; none of it is a setting of the method.

    Attributes:
        layout: how the scenes are stored; none detects it.
        scale: metres per unit of the files; none leaves lengths as they are.
        extract: whether missing features are extracted; otherwise they are an error.
        resume: whether files that the run's folder already holds are used; otherwise everything is made again.
    """

    layout: str | None = None
    scale: float | None = None
    extract: bool = True
    resume: bool = True


@runtime_checkable
class Backend(Protocol):
    """A way of learning. A backend derives from this class: what it does not define then works as said here.

    Attributes:
        name: what a user types after `ov3d train`.
        stages: in order; any prefix of them can be run.
        config_type: its configuration.
        protocols: how its runs can be scored; the first one is the default.
        can_ensemble: whether `evaluate` takes `ensemble=True`, to score a 3D network together with what photographs show.
    """

    name: str
    stages: tuple[str, ...]
    config_type: type[RunConfig]
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
        options: RunOptions = RunOptions(),
    ) -> Run:
        """Run the stages that the configuration names, on every scene of the source.

        Args:
            source: the scenes.
            config: of `config_type`.
            run: the run's folder. An unfinished run is resumed and ends identical to an uninterrupted one.
            device: where tensors live.
            progress: hears how far it is.
            options: how the scenes were read, and what may be used again.

        Raises:
            UsageError: the folder holds a run with other settings.
            DataError: there is no scene, or one that cannot be trained on.
        """
        ...

    def estimate(self, source: SceneSource, config: Any, *, device: torch.device) -> list[Estimate]:
        """About what `train` would take, one entry per scene, without making anything."""
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
            threshold: raw cosine from which a class counts as present; none takes the protocol's own.
            progress: hears how far it is.
            protocol: one of `protocols`; none takes the first.
        """
        ...

    def predict(
        self,
        run: Run,
        scan: Path,
        output: Path,
        request: PredictRequest,
        *,
        device: torch.device,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Label a scan that the run has never seen, and write it as a PLY; by default a backend cannot.

        Args:
            run: a finished one.
            scan: a point cloud's file, or a scene that has a cloud.
            output: the PLY to write.
            request: what to look for, and how.
            device: where tensors live.
            progress: hears how far it is.

        Returns:
            What `ov3d predict --json` prints, among it `points`, `unlabelled`, `classes` (points per class), `output`,
            `seconds` and `peak_bytes` (or none).

        Raises:
            UsageError: the run cannot label scans, or the request makes no sense.
            DataError: the scan cannot be read, or has no points.
        """
        raise UsageError(
            f"Run {run.path} was made by the backend {self.name}, which cannot label new scans.",
            "Train a 3D network: ov3d train points ROOMS --preset cpu",
        )

    def renderer(self, folder: Path, index: LanguageIndex, answer: Answer, device: str) -> ViewRenderer | None:
        """What shows a scene of a run from where no camera stood; none, the default, has its points painted instead.

        Args:
            folder: of the scene in the run.
            index: the scene's.
            answer: to the prompt whose score is shown.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

        Raises:
            DataError: what the backend would render is missing or damaged.
        """
        return None
