"""Configuration of the points backend; every field is a key of its YAML file and of `--set`.

The preset `zero-shot`, the default, fuses features without training. The others add the stages that train a 3D network:
`cpu` in minutes on a laptop, `gpu` on a graphics card in about the same time, `paper` with the numbers of 3DSS-VLG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ov3d.common.base.config import Config
from ov3d.common.learning.augment import AugmentConfig
from ov3d.common.learning.run_config import RunConfig
from ov3d.common.lifting.basis import BasisConfig

STAGES = ("fuse", "pseudo-label", "specialise", "guide")
"""Stages in order; any prefix can be run."""


class PseudoConfig(Config):
    """Stage `pseudo-label`: a class for every seen point, chosen from its scene's classes."""

    top_share: float = Field(default=1.0, gt=0, le=1)
    """Fraction of each class's points in a scene that keep their label, highest scores first; 1 keeps all."""
    superpoints: bool = False
    """Whether labels are spread over geometric superpoints by majority vote."""


class SpecialiseConfig(Config):
    """Stage `specialise`: an affine map of features that separates the trained classes (ESS)."""

    enabled: bool = True
    """Whether features are specialised; if not, `guide` learns them unchanged and other prompts lose nothing."""
    steps: int = Field(default=180, ge=1)
    """Training steps."""
    epochs: int | None = Field(default=None, ge=1)
    """Number of passes over all scenes, instead of a number of steps."""
    batch: int = Field(default=4, ge=1)
    """Scenes per step."""
    points: int = Field(default=40_000, ge=1)
    """Maximum points drawn per scene."""
    rate: float = Field(default=3e-3, gt=0)
    """Learning rate of Adam."""
    rate_decay: float = Field(default=0.7, gt=0, le=1)
    """The learning rate is multiplied by this every `decay_every` epochs."""
    decay_every: int = Field(default=20, ge=1)
    """Epochs between decays of the learning rate."""
    residual: float = Field(default=0.05, ge=0, le=1)
    """Share of the original feature in the specialised one."""
    balance: float = Field(default=0.0, ge=0, le=1)
    """Class-balance exponent p: a point's weight = (frequency of its pseudo label)^-p; 0, as in the paper, disables it."""
    scale: float | None = Field(default=1.0, gt=0)
    """Factor on the logits: 1 as in the paper; `None` uses the encoder's logit scale."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between checkpoints."""


class GuideConfig(Config):
    """Stage `guide`: a sparse U-Net learns the features of points from their neighbourhood (ESGS)."""

    voxel_size: float = Field(default=0.08, gt=0)
    """Voxel size of the network, scene units."""
    stem_dim: int = Field(default=16, ge=1)
    """Channels after the first convolution."""
    stem_size: int = Field(default=3, ge=1)
    """Kernel size of the first convolution, odd."""
    down: tuple[int, ...] = (32, 48, 64, 96)
    """Channels of the levels on the way down."""
    up: tuple[int, ...] = (32, 48, 64, 64)
    """Channels of the levels on the way up, finest first."""
    blocks: int = Field(default=1, ge=1)
    """Residual blocks per level, each way."""
    steps: int = Field(default=960, ge=1)
    """Training steps."""
    epochs: int | None = Field(default=None, ge=1)
    """Number of passes over all scenes, instead of a number of steps."""
    batch: int = Field(default=1, ge=1)
    """Scenes per step."""
    crop: float | None = Field(default=None, gt=0)
    """Side of the random square column cropped from a scene per step, scene units; `None` uses the whole scene."""
    focus: float = Field(default=0.0, ge=0, le=1)
    """Fraction of crops centred on a point of a class drawn uniformly from the scene's; the rest, on any point."""
    rate: float = Field(default=5e-3, gt=0)
    """Learning rate of Adam at the start."""
    power: float = Field(default=0.9, ge=0)
    """The rate falls as (1 - step / steps) to this power."""
    agreement: float = Field(default=16.0, ge=0)
    """Exponent p: a point's weight = (agreement of its views)^p; 0, as in the paper, weights all equally."""
    corroboration: float = Field(default=6.0, ge=0)
    """Exponent p: the weight of a point seen by v views = (v / (v + 1))^p, since nothing confirms a single view. 0, as in the
    paper, weights all equally."""
    balance: float = Field(default=0.33, ge=0, le=1)
    """Class-balance exponent p: a point's weight = (frequency of its pseudo label)^-p; 0, as in the paper, disables it."""
    label_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy with the pseudo labels, added to the feature distance; 0 in the paper."""
    statistics: Literal["scan", "training"] = "scan"
    """Statistics that the trained network normalises with: those of the scan it labels, just as a training step uses those of
    its scenes, or (`training`, as in the paper) averages over training."""
    settle: int = Field(default=16, ge=0)
    """Whole scenes used to recompute the normalisation statistics at the end; 0, as in the paper, keeps running ones."""
    bf16: bool = False
    """Whether convolutions run in bf16, on devices that support it."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of a scene before each step."""
    select: Literal["last", "best"] = "last"
    """Which network is kept: the one of the last epoch, or the best on the validation scenes by their true labels."""
    validate_every: int = Field(default=5, ge=1)
    """Epochs between evaluations on the validation scenes."""
    checkpoint_every: int = Field(default=60, ge=1)
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _fits(self) -> GuideConfig:
        if len(self.down) != len(self.up):
            raise ValueError("guide.down and guide.up must have the same length")
        if self.stem_size % 2 == 0:
            raise ValueError("guide.stem_size must be odd")
        return self


_MINK = {"stem_dim": 32, "stem_size": 5, "down": [32, 64, 128, 256], "up": [96, 96, 128, 128], "blocks": 2}
_PAPER_AUGMENT = {
    "tilt": 0.049,  # pi / 64
    "turn": "any",
    "scale": [0.9, 1.1],
    "contrast": 0.2,
    "tint": 0.1,
    "colour_noise": 0.05,
}
PRESETS: dict[str, dict[str, Any]] = {
    "zero-shot": {"stages": ["fuse"]},
    "cpu": {},
    "gpu": {
        "guide": {
            **_MINK,
            "voxel_size": 0.03,
            "epochs": 60,
            "batch": 4,
            "statistics": "training",
            "bf16": True,
            "augment": _PAPER_AUGMENT,
            "checkpoint_every": 200,
        },
    },
    "paper": {
        "specialise": {"epochs": 80, "batch": 16, "scale": 1.0},
        "guide": {
            **_MINK,
            "voxel_size": 0.02,
            "epochs": 100,
            "batch": 8,
            "rate": 1e-3,
            "agreement": 0.0,
            "corroboration": 0.0,
            "balance": 0.0,
            "label_weight": 0.0,
            "statistics": "training",
            "settle": 0,
            "augment": _PAPER_AUGMENT,
            "checkpoint_every": 200,
        },
    },
}
"""Values of each preset that differ from the defaults, which are those of `cpu`."""


class PointsConfig(RunConfig):
    """The points backend: features fused from photographs onto points, and a 3D network that learns from them."""

    STAGES: ClassVar[tuple[str, ...]] = STAGES
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    preset: str = "zero-shot"
    """Preset that supplies all values not given."""
    voxel_size: float | None = Field(default=None, gt=0)
    """Voxel size to which a cloud made from depth is thinned, scene units; by default chosen from the scene."""
    basis: BasisConfig = BasisConfig()
    """Low-rank basis in which lifted features are stored."""
    lifted: Path | None = None
    """Another run whose lifted features are reused where they fit, and whose basis encodes the others; by default all features
    are lifted."""
    score: Literal["mean", "cosine"] = "mean"
    """Score of a fused point: the mean of its views' cosines (disagreement lowers it) or the cosine of their mean."""
    score_tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Largest change of a score that the index's low-rank basis may cause."""
    labels: Path | None = None
    """Which classes are in which scene: a text file, a folder of text files or a YAML file; by default labels.txt beside a
    scene, else the classes of its true labels."""
    classes: tuple[str, ...] = ()
    """Class names to learn; by default all classes listed for the scenes."""
    validation: tuple[str, ...] = ()
    """Names of scenes kept out of training; their index comes from the network alone."""
    pseudo: PseudoConfig = PseudoConfig()
    """Pseudo labels."""
    specialise: SpecialiseConfig = SpecialiseConfig()
    """Specialisation."""
    guide: GuideConfig = GuideConfig()
    """Guidance."""

    @model_validator(mode="after")
    def _has_validation(self) -> PointsConfig:
        if self.guide.select == "best" and not self.validation:
            raise ValueError("guide.select=best needs validation scenes: --set validation=[NAME]")
        return self
