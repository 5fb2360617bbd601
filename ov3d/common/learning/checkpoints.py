"""Checkpoints: weights, the optimiser's state and everything else that the next step depends on, in one safetensors file.

Random numbers are drawn from a generator that is seeded by (seed, stage, step), so a checkpoint stores no generator state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ov3d.common.base.files import hash_text
from ov3d.common.base.shapes import Array, Shaped
from ov3d.common.base.tensor_files import read_tensors, write_tensors

KIND = "checkpoint"
VERSION = 1
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def adam(groups: Iterable[Mapping[str, Any]], *, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.Adam:
    """Adam in one pass over the parameters.

    Args:
        groups: of parameters, with their learning rates.
        betas: decay of the first and the second moment.
    """
    return torch.optim.Adam([dict(group) for group in groups], betas=betas, fused=True)


def generator_for(seed: int, stage: str, step: int) -> torch.Generator:
    """The source of a step's random numbers, on the CPU."""
    return torch.Generator().manual_seed(int(hash_text(str(seed), stage, str(step))[:15], 16))


def write_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer | None,
    metadata: Mapping[str, Any],
    extra: Mapping[str, Shaped[Array, ...]] | None = None,
) -> Path:
    """Write a checkpoint.

    Args:
        path: the file.
        modules: by prefix.
        optimiser: Adam or AdamW, whose moments are kept; None at the end of a stage.
        metadata: the step, and what is needed to rebuild the modules; JSON-able.
        extra: further arrays.
    """
    tensors = {f"extra/{name}": array for name, array in (extra or {}).items()}
    for prefix, module in modules.items():
        for name, value in module.state_dict().items():
            tensors[f"{prefix}/{name}"] = value.detach().cpu().numpy()
    if optimiser is not None:
        for idx, state in enumerate(_states(optimiser)):
            for name in _MOMENTS:
                if name in state:
                    tensors[f"adam/{idx}/{name}"] = np.asarray(state[name].detach().cpu().numpy())
    return write_tensors(path, tensors, kind=KIND, version=VERSION, metadata=dict(metadata))


class Checkpoint:
    """A verified checkpoint; raises as `tensor_files.read_tensors` does."""

    def __init__(self, path: Path) -> None:
        file = read_tensors(path, kind=KIND, version=VERSION)
        self.metadata, self._tensors = file.metadata, file.tensors

    def extra(self, name: str) -> Shaped[Array, ...]:
        """A further array."""
        return self._tensors[f"extra/{name}"]

    def load_module(self, prefix: str, module: nn.Module) -> None:
        """Load the weights with that prefix into a module of the same shapes."""
        start = f"{prefix}/"
        state = {
            name[len(start) :]: torch.from_numpy(np.array(array))
            for name, array in self._tensors.items()
            if name.startswith(start)
        }
        module.load_state_dict(state)

    def load_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Load the moments into an optimiser over the same parameters."""
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for idx, parameter in enumerate(parameters):
            if f"adam/{idx}/step" not in self._tensors:
                continue
            moments = {name: torch.from_numpy(np.array(self._tensors[f"adam/{idx}/{name}"])) for name in _MOMENTS}
            # The fused step needs the counter on the parameter's device.
            optimiser.state[parameter] = {name: value.to(parameter.device) for name, value in moments.items()}


def _states(optimiser: torch.optim.Optimizer) -> list[dict[str, torch.Tensor]]:
    return [optimiser.state.get(parameter, {}) for group in optimiser.param_groups for parameter in group["params"]]
