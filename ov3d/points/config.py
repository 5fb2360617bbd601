"""Configuration of the points backend; every field is a key of its YAML file and of `--set`.

The preset `zero-shot`, the default, fuses features and learns nothing. The others add the stages that train a 3D network:
`cpu` in minutes on a laptop, `gpu` with what a graphics card gives in about the same time, `paper` with 3DSS-VLG's numbers.
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
    """Stage `pseudo-label`: a class for every seen point, out of those that its scene is said to have."""

    top_share: float = Field(default=1.0, gt=0, le=1)
    """Share of each class's points of a scene that keep their label, those with the highest scores; 1 keeps all."""
    superpoints: bool = False
    """Whether labels are spread over pieces of surface that geometry holds together, by majority."""


class SpecialiseConfig(Config):
    """Stage `specialise`: an affine map of features that tells the trained classes apart (ESS)."""

    enabled: bool = True
    """Whether features are specialised; without, they guide as they are, and other prompts are answered as well as ever."""
    steps: int = Field(default=180, ge=1)
    """Steps of training."""
    epochs: int | None = Field(default=None, ge=1)
    """Times that every scene is seen, in place of a number of steps."""
    batch: int = Field(default=4, ge=1)
    """Scenes a step."""
    points: int = Field(default=40_000, ge=1)
    """Points drawn of a scene, at most."""
    rate: float = Field(default=3e-3, gt=0)
    """Learning rate of Adam."""
    rate_decay: float = Field(default=0.7, gt=0, le=1)
    """Factor on the rate every `decay_every` epochs."""
    decay_every: int = Field(default=20, ge=1)
    """Epochs between two falls of the rate."""
    residual: float = Field(default=0.05, ge=0, le=1)
    """Share of the feature itself in the specialised one."""
    balance: float = Field(default=0.0, ge=0, le=1)
    """Points weigh as the share of their pseudo label among all points to minus this power; the paper's 0 takes all alike."""
    scale: float | None = Field(default=1.0, gt=0)
    """Factor on the logits; the paper has none (1), none takes the encoder's own."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two checkpoints."""


class GuideConfig(Config):
    """Stage `guide`: a sparse U-Net learns the features of points from their neighbourhood (ESGS)."""

    voxel_size: float = Field(default=0.08, gt=0)
    """Side of the network's voxels, scene units."""
    stem_dim: int = Field(default=16, ge=1)
    """Channels after the first convolution."""
    stem_size: int = Field(default=3, ge=1)
    """Side of the first kernel, odd."""
    down: tuple[int, ...] = (32, 48, 64, 96)
    """Channels of the levels on the way down."""
    up: tuple[int, ...] = (32, 48, 64, 64)
    """Channels of the levels on the way up, the finest first."""
    blocks: int = Field(default=1, ge=1)
    """Residual blocks a level, each way."""
    steps: int = Field(default=960, ge=1)
    """Steps of training."""
    epochs: int | None = Field(default=None, ge=1)
    """Times that every scene is seen, in place of a number of steps."""
    batch: int = Field(default=1, ge=1)
    """Scenes a step."""
    crop: float | None = Field(default=None, gt=0)
    """Side of a random square column of a scene that a step sees, scene units; none takes it whole."""
    focus: float = Field(default=0.0, ge=0, le=1)
    """Share of crops around a point of a class drawn among the scene's, all alike; the others are around any point."""
    rate: float = Field(default=5e-3, gt=0)
    """Learning rate of Adam at the start."""
    power: float = Field(default=0.9, ge=0)
    """The rate falls as (1 - step / steps) to this power."""
    agreement: float = Field(default=16.0, ge=0)
    """Points weigh as the agreement of their views to this power; the paper's 0 takes all alike."""
    corroboration: float = Field(default=6.0, ge=0)
    """Points that v views see weigh as v / (v + 1) to this power: nobody has confirmed what one view says. The paper's 0 takes
    all alike."""
    balance: float = Field(default=0.33, ge=0, le=1)
    """Points weigh as the share of their pseudo label among all points to minus this power; the paper's 0 takes all alike."""
    label_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy to the pseudo labels beside the distance of features; the paper's is 0."""
    statistics: Literal["scan", "training"] = "scan"
    """What the trained network normalises by: the statistics of the scan that it is asked about, as a step of training does by
    its scenes', or those of the training. The paper's are the training's."""
    settle: int = Field(default=16, ge=0)
    """Whole scenes from which the normalisation's statistics are taken anew at the end; the paper's 0 keeps running ones."""
    bf16: bool = False
    """Whether convolutions run in bf16, on devices that multiply it."""
    augment: AugmentConfig = AugmentConfig()
    """How a scene is changed before a step."""
    select: Literal["last", "best"] = "last"
    """Which network is kept: that of the last epoch, or the best on the validation scenes by their true labels."""
    validate_every: int = Field(default=5, ge=1)
    """Epochs between two looks at the validation scenes."""
    checkpoint_every: int = Field(default=60, ge=1)
    """Steps between two checkpoints."""

    @model_validator(mode="after")
    def _fits(self) -> GuideConfig:
        if len(self.down) != len(self.up):
            raise ValueError("guide.down and guide.up must be as long as each other")
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
"""What a preset sets apart from the defaults, which are `cpu`'s."""


class PointsConfig(RunConfig):
    """The points backend: features fused from photographs onto points, and a 3D network that learns from them."""

    STAGES: ClassVar[tuple[str, ...]] = STAGES
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    preset: str = "zero-shot"
    """Where the values come from that are not given."""
    voxel_size: float | None = Field(default=None, gt=0)
    """Side of the voxels that a cloud made from depth is thinned to, scene units; by default the scene decides."""
    basis: BasisConfig = BasisConfig()
    """In how few numbers lifted features are kept."""
    lifted: Path | None = None
    """Another run: its lifted features are taken over where they fit, and its basis codes the others; by default all features
    are lifted."""
    score: Literal["mean", "cosine"] = "mean"
    """What a fused point's score is: the mean of its views' cosines (disagreement lowers it) or the cosine of their mean."""
    score_tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Largest change of a score that the index's low-rank basis may make."""
    labels: Path | None = None
    """Which classes are in which scene: a text file, a folder of them or a YAML; by default labels.txt beside a scene, else
    its true labels."""
    classes: tuple[str, ...] = ()
    """Class names to learn; by default those that the scenes are said to have."""
    validation: tuple[str, ...] = ()
    """Names of scenes that are kept out of training; their index comes from the network alone."""
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
