"""Configuration of the nerf backend; every field is a key of its YAML file and of `--set`.

A preset fills in everything that is not given: `cpu` trains on a laptop in minutes, `gpu` uses a graphics card for about the
same time, `paper` has the numbers of the 3D-OVS reference code, one configuration for all scenes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ov3d.common.base.config import Config
from ov3d.common.learning.run_config import RunConfig
from ov3d.common.lifting.lift import LiftConfig

STAGES = ("field", "distil")
"""Stages in order; any prefix can be run."""

ADAM_BETAS = (0.9, 0.99)
"""Adam betas of both stages, as in the reference code."""


class FieldConfig(Config):
    """Stage `field`: the radiance field, trained from photographs alone."""

    steps: int = Field(default=1600, ge=1)
    """Training steps."""
    rays: int = Field(default=4096, ge=1)
    """Maximum rays per step."""
    samples: int = Field(default=160_000, ge=1)
    """Approximate samples per step: early on, rays have hundreds of samples each, so fewer rays are drawn."""
    first_voxels: int = Field(default=80**3, ge=64)
    """Number of voxels at the start."""
    last_voxels: int = Field(default=144**3, ge=64)
    """Number of voxels after the last upsampling."""
    upsample_at: tuple[int, ...] = (400, 700, 1000)
    """Steps after which the grid is upsampled; resolutions are log-spaced."""
    density_ranks: tuple[int, int, int] = (16, 4, 4)
    """Components of density on the planes XY, XZ, YZ."""
    appearance_ranks: tuple[int, int, int] = (48, 12, 12)
    """Components of appearance on the planes XY, XZ, YZ."""
    colour_width: int = Field(default=64, ge=1)
    """Width of the colour network's hidden layers."""
    grid_rate: float = Field(default=0.02, gt=0)
    """Learning rate of planes and lines."""
    network_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of the networks."""
    rate_decay: float = Field(default=0.1, gt=0, le=1)
    """Final learning rates, as a fraction of the initial ones."""
    tv_density: float = Field(default=0.01, ge=0)
    """Weight of the total variation of the density planes."""
    tv_appearance: float = Field(default=0.01, ge=0)
    """Weight of the total variation of the appearance planes."""
    tv_every: int = Field(default=4, ge=1)
    """Apply total variation every this many steps, with its weight multiplied by the same number."""
    step_ratio: float = Field(default=0.5, gt=0, le=0.5)
    """Distance of samples along a ray, in voxels."""
    occupancy_every: int = Field(default=20, ge=1)
    """Steps between updates of the occupancy grid."""
    occupancy_from: int = Field(default=100, ge=0)
    """Step from which nearly empty cells are skipped too; before it, only exactly empty ones are."""
    occupancy_threshold: float = Field(default=1e-3, ge=0, lt=1)
    """Opacity per sampling step below which a cell counts as nearly empty."""
    shrink_at: int | None = Field(default=None, ge=1)
    """Step after which the box is shrunk to the occupied cells; `None` never shrinks it."""
    white_share: float = Field(default=0.5, ge=0, le=1)
    """Fraction of steps with a white background; the others use black."""
    depth_weight: float = Field(default=0.1, ge=0)
    """Weight of measured depth, where available; 0 trains on colour alone."""
    long_side: int = Field(default=480, ge=8)
    """Photographs are downscaled to this long side, in pixels."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    view_every: int = Field(default=800, ge=0)
    """Steps between renderings of a held-out view into the run's folder; 0 disables them."""


class DistilConfig(Config):
    """Stage `distil`: the teacher's features, distilled onto the radiance field."""

    steps: int = Field(default=300, ge=1)
    """Training steps; with more of them, the field memorises the teacher's mistakes."""
    joint_from: int = Field(default=50, ge=0)
    """Step from which appearance is trained jointly; its learning rates restart."""
    rays: int = Field(default=2048, ge=1)
    """Random rays per step."""
    patches: int = Field(default=2, ge=0)
    """Patches of neighbouring rays per step, for the alignment of feature distributions."""
    patch_side: int = Field(default=24, ge=2)
    """Rays along a patch's side."""
    head_rate: float = Field(default=5e-3, gt=0)
    """Learning rate of the feature head and of the selection's network."""
    selection_rate: float = Field(default=0.02, gt=0)
    """Learning rate of the Selection Volume."""
    joint_grid_rate: float = Field(default=5e-3, gt=0)
    """Learning rate of the appearance grids in the joint phase."""
    joint_network_rate: float = Field(default=5e-4, gt=0)
    """Learning rate of the colour networks in the joint phase."""
    relevancy_weight: float = Field(default=1.0, ge=0)
    """Weight of the alignment of relevancy distributions (RDA)."""
    doubt: float = Field(default=4.0, ge=0)
    """Exponent p: a target's weight = (agreement with its look-alikes)^p; 0 weights all equally. See `trust.py`."""
    attract_weight: float = Field(default=1.0, ge=0)
    """Weight of similar neighbours in the alignment of feature distributions (FDA); the reference's 200 absorbs small classes
    into large ones."""
    repel_weight: float = Field(default=0.2, ge=0)
    """Weight of dissimilar neighbours."""
    colour_weight: float = Field(default=1.0, ge=0)
    """Weight of the photographs in the joint phase."""
    divergence: Literal["kl", "js"] = "js"
    """Divergence between distributions in FDA: `js` as in the paper, `kl` as in its reference code."""
    repel_limit: float = Field(default=0.69, gt=0)
    """Largest divergence of a pair that the repelling term rewards; without a limit, `kl` diverges."""
    temperature: float = Field(default=0.2, gt=0)
    """Divides cosines before the softmax of FDA, for CLIP's logit scale of 100; scaled in proportion for other encoders."""
    alike: float = Field(default=0.7, ge=-1, le=1)
    """Cosine of DINO features above which neighbours should agree."""
    selection_ranks: tuple[int, int, int] = (8, 2, 2)
    """Components of the Selection Volume."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints."""


PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "field": {
            "steps": 6000,
            "first_voxels": 128**3,
            "last_voxels": 300**3,
            "upsample_at": [1500, 2200, 3000, 4000],
            "samples": 1 << 20,
            "colour_width": 128,
            "tv_every": 1,
            "occupancy_from": 500,
            "long_side": 1280,
            "checkpoint_every": 1000,
            "view_every": 2000,
        },
        "distil": {
            "steps": 1000,
            "joint_from": 200,
            "rays": 4096,
            "patches": 8,
            "patch_side": 32,
            "selection_ranks": [16, 4, 4],
            "checkpoint_every": 1000,
        },
    },
    "paper": {
        "field": {
            "steps": 30000,
            "first_voxels": 2097156,
            "last_voxels": 262144000,
            "upsample_at": [2000, 3000, 4000, 5500],
            "samples": 1 << 30,
            "colour_width": 128,
            "network_rate": 1e-4,
            "tv_every": 1,
            "occupancy_from": 2500,
            "occupancy_threshold": 1e-4,
            "shrink_at": 2500,
            "depth_weight": 0.0,
            "long_side": 4096,
            "checkpoint_every": 5000,
            "view_every": 5000,
        },
        "distil": {
            "steps": 15000,
            "joint_from": 5000,
            "rays": 4096,
            "patches": 8,
            "patch_side": 32,
            "head_rate": 1e-4,
            "doubt": 0.0,
            "attract_weight": 200.0,
            "joint_network_rate": 5e-5,
            "divergence": "kl",
            "selection_ranks": [16, 4, 4],
            "checkpoint_every": 2500,
        },
    },
}
"""Values of each preset that differ from the defaults, which are those of `cpu`."""


class NerfConfig(RunConfig):
    """The nerf backend: a radiance field from photographs, with language on its surfaces."""

    STAGES: ClassVar[tuple[str, ...]] = STAGES
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    refine: str = "none"
    """Refinement of the 2D features: none, dino or timm:NAME (affinities of a patch encoder, and superpixels); auto means dino
    for the offline encoder, none for others."""
    lift: LiftConfig = LiftConfig(border=0)
    """How rendered features are lifted onto points."""
    space: Literal["auto", "box", "forward", "contraction"] = "auto"
    """How the world is mapped into the grid; auto decides from the poses and reports its choice."""
    classes: tuple[str, ...] = ()
    """Class names to align with; by default the scene's own. Any text can be queried afterwards, but these work best."""
    held_out_every: int = Field(default=8, ge=0)
    """Keep every Nth view out of training, starting with the first; 0 keeps none out."""
    held_out: tuple[str, ...] = ()
    """Names of views to keep out of training, instead of every Nth."""
    field: FieldConfig = FieldConfig()
    """The radiance field."""
    distil: DistilConfig = DistilConfig()
    """Distillation."""
    view_long_side: int = Field(default=320, ge=8, le=640)
    """Long side of the language maps stored with the index, for masks and overlays, in pixels."""

    @property
    def needs_teacher(self) -> bool:
        """Only distillation uses a teacher."""
        return "distil" in self.stages
