"""What a backend is: a way of learning where words live in 3D.

A backend turns scenes into a run: a folder with `config.yaml`, `manifest.json` and one LanguageIndex per scene. Queries do
not depend on the backend that made the run; what only the backend can do with its run is behind the methods below.
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
    """Options of a run that are not settings of the method.

    Attributes:
        layout: layout of the scenes' files; None detects it.
        scale: metres per unit in the files; None keeps lengths as they are.
        extract: extract missing features; if False, missing features are an error.
        resume: reuse files that are already in the run's folder; if False, everything is recomputed.
    """

    layout: str | None = None
    scale: float | None = None
    extract: bool = True
    resume: bool = True


@runtime_checkable
class Backend(Protocol):
    """A way of learning. Backends derive from this class, which provides the defaults documented here.

    Attributes:
        name: what a user types after `ov3d train`.
        stages: stages in order; any prefix of them can be run.
        config_type: class of its configuration.
        protocols: protocols that score its runs; the first one is the default.
        can_ensemble: whether `evaluate` accepts `ensemble=True`, to score a 3D network combined with photographs' features.
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
            device: device of all tensors.
            progress: receives progress.
            options: how the scenes are read, and what may be reused.

        Raises:
            UsageError: the folder holds a run with other settings.
            DataError: no scene was found, or a scene cannot be trained on.
        """
        ...

    def estimate(self, source: SceneSource, config: Any, *, device: torch.device) -> list[Estimate]:
        """Estimate what `train` needs, one entry per scene, without writing anything."""
        ...

    def scores(self, run: Run, scene: str, text: Float[Array, "k d"]) -> Float32[Array, "n k"]:
        """The backend's own scores of all points, without the index's basis; the index must agree to 1e-3."""
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
            scene: with ground truth.
            device: device of all tensors.
            classes: prompted classes; if empty, those that the protocol scores.
            threshold: lowest raw cosine at which a class counts as present; None uses the protocol's.
            progress: receives progress.
            protocol: one of `protocols`; None uses the first.
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
        """Label a scan that the run has never seen, and write it as a PLY. Not supported by default.

        Args:
            run: a finished one.
            scan: a point cloud file, or a scene with a cloud.
            output: the PLY file to write.
            request: what to look for, and how.
            device: device of all tensors.
            progress: receives progress.

        Returns:
            What `ov3d predict --json` prints, including `points`, `unlabelled`, `classes` (points per class), `output`,
            `seconds` and `peak_bytes` (or None).

        Raises:
            UsageError: the run cannot label scans, or the request is invalid.
            DataError: the scan cannot be read, or has no points.
        """
        raise UsageError(
            f"Run {run.path} was made by the backend {self.name}, which cannot label new scans.",
            "Train a 3D network: ov3d train points ROOMS --preset cpu",
        )

    def renderer(self, folder: Path, index: LanguageIndex, answer: Answer, device: str) -> ViewRenderer | None:
        """The renderer of novel views of a scene of a run; None, the default, draws the points instead.

        Args:
            folder: the scene's folder in the run.
            index: the scene's index.
            answer: to the prompt whose score is shown.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

        Raises:
            DataError: a file that the backend renders from is missing or damaged.
        """
        return None
