"""Configuration of the nerf backend; every field is a key of its YAML file and of `--set`.

A preset fills in everything that is not given: `cpu` trains on a laptop in minutes, `gpu` spends what a graphics card gives in
about the same time, `paper` has the numbers of 3D-OVS' reference, one configuration for all scenes.
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
"""Decay of both stages' moments, the reference's."""


class FieldConfig(Config):
    """Stage `field`: the radiance field, learnt from photographs alone."""

    steps: int = Field(default=1600, ge=1)
    """Steps of training."""
    rays: int = Field(default=4096, ge=1)
    """Rays a step, at most."""
    samples: int = Field(default=160_000, ge=1)
    """Samples a step, about: while the field is a fog, rays have hundreds of samples each, and fewer rays are drawn."""
    first_voxels: int = Field(default=80**3, ge=64)
    """Voxels at the start."""
    last_voxels: int = Field(default=144**3, ge=64)
    """Voxels after the last upsampling."""
    upsample_at: tuple[int, ...] = (400, 700, 1000)
    """Steps after which the grid gets finer; resolutions are log-spaced."""
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
    """Share of the learning rates that is left at the end."""
    tv_density: float = Field(default=0.01, ge=0)
    """Weight of the total variation of the density planes."""
    tv_appearance: float = Field(default=0.01, ge=0)
    """Weight of the total variation of the appearance planes."""
    tv_every: int = Field(default=4, ge=1)
    """The total variation is taken every so many steps, with so many times its weight."""
    step_ratio: float = Field(default=0.5, gt=0, le=0.5)
    """Distance of samples along a ray, in voxels."""
    occupancy_every: int = Field(default=20, ge=1)
    """Steps between two looks at which cells are occupied."""
    occupancy_from: int = Field(default=100, ge=0)
    """Step from which cells that are nearly empty are left out as well; before, only what is exactly empty is."""
    occupancy_threshold: float = Field(default=1e-3, ge=0, lt=1)
    """Opacity of a step below which a cell is nearly empty."""
    shrink_at: int | None = Field(default=None, ge=1)
    """Step after which the box is shrunk to what is occupied; none never does."""
    white_share: float = Field(default=0.5, ge=0, le=1)
    """Share of steps whose background is white; it is black in the others."""
    depth_weight: float = Field(default=0.1, ge=0)
    """Weight of measured depth where there is some; 0 learns from colour alone."""
    long_side: int = Field(default=480, ge=8)
    """Photographs are reduced to this long side."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between two checkpoints."""
    view_every: int = Field(default=800, ge=0)
    """Steps between two pictures of a held-out view in the run's folder; 0 makes none."""


class DistilConfig(Config):
    """Stage `distil`: the teacher's features, learnt on top of the radiance field."""

    steps: int = Field(default=300, ge=1)
    """Steps of training. More of them learn a teacher's mistakes by heart."""
    joint_from: int = Field(default=50, ge=0)
    """Step from which the appearance is tuned along; its learning rates start anew."""
    rays: int = Field(default=2048, ge=1)
    """Random rays a step."""
    patches: int = Field(default=2, ge=0)
    """Patches of neighbouring rays a step, for the alignment of feature distributions."""
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
    """Targets weigh as their agreement with what their look-alikes say, to this power; 0 takes all alike. See `trust.py`."""
    attract_weight: float = Field(default=1.0, ge=0)
    """Weight of alike neighbours in the alignment of feature distributions (FDA); the reference's 200 draws small classes into
    large ones."""
    repel_weight: float = Field(default=0.2, ge=0)
    """Weight of unlike neighbours."""
    colour_weight: float = Field(default=1.0, ge=0)
    """Weight of the photographs in the joint phase."""
    divergence: Literal["kl", "js"] = "js"
    """Distance of distributions in FDA: `js` is the paper's, `kl` what its reference computes."""
    repel_limit: float = Field(default=0.69, gt=0)
    """Largest divergence of a pair that the repelling term rewards; without it `kl` runs away."""
    temperature: float = Field(default=0.2, gt=0)
    """Divides cosines before the softmax of FDA, where the encoder's logit scale is CLIP's 100; for others in proportion."""
    alike: float = Field(default=0.7, ge=-1, le=1)
    """Cosine of DINO features above which neighbours should agree."""
    selection_ranks: tuple[int, int, int] = (8, 2, 2)
    """Components of the Selection Volume."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between two checkpoints."""


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
"""What a preset sets apart from the defaults, which are `cpu`'s."""


class NerfConfig(RunConfig):
    """The nerf backend: a radiance field from photographs, with language on its surfaces."""

    STAGES: ClassVar[tuple[str, ...]] = STAGES
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    refine: str = "none"
    """Refinement of the 2D features: none, dino or timm:NAME (affinities of a patch encoder, and superpixels); auto is dino
    for the offline encoder and none for others."""
    lift: LiftConfig = LiftConfig(border=0)
    """How rendered features get onto points."""
    space: Literal["auto", "box", "forward", "contraction"] = "auto"
    """How the world gets into the grid; auto looks at the poses and says what it chose."""
    classes: tuple[str, ...] = ()
    """Class names to align with; by default the scene's own. Any text can be asked afterwards, but these are learnt best."""
    held_out_every: int = Field(default=8, ge=0)
    """Every so many views one is kept out of every loss, the first of all; 0 keeps none."""
    held_out: tuple[str, ...] = ()
    """Names of views to keep out, in place of every so many."""
    field: FieldConfig = FieldConfig()
    """The radiance field."""
    distil: DistilConfig = DistilConfig()
    """Distillation."""
    view_long_side: int = Field(default=320, ge=8, le=640)
    """Long side of the language maps beside the index, for masks and overlays."""

    @property
    def needs_teacher(self) -> bool:
        """Only distillation asks one."""
        return "distil" in self.stages
