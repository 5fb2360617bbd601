"""spconv's CPU wheel as a peer, in a process of its own that holds it to one thread.

The wheel is wrong with more threads, and its backward asks CUDA for a stream, which is patched away here. It is used by
benchmarks alone. Make an environment for it with torch and `spconv==2.3.8` (Python 3.11), and pass its interpreter:

    python -m benchmarks.sparse_conv --peer-python peer/bin/python

Parent and peer talk in JSON lines; arrays go through files.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:  # the peer's side has nothing of it installed
    from benchmarks.shared.sparse_levels import LevelCase

NO_PEER = "No peer: pass --peer-python, the interpreter of an environment with torch and spconv 2.3.8 (CPU wheel)."


class Peer:
    """The parent's side.

    Args:
        python: interpreter of the peer's environment.
        folder: where the arrays are: `level<i>.pt` with coords, feats, weight, gradient.
    """

    def __init__(self, python: str, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.shared.spconv_peer", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.version: str = self._read()["version"]

    def ask(self, task: str, level: int) -> dict[str, Any]:
        """The peer's answer to `convolve`, `build` or `check` on a level."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"task": task, "level": level}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"The peer process ended. {NO_PEER}")


@contextlib.contextmanager
def open_peer(python: str | None, cases: Sequence[LevelCase], folder: Path) -> Iterator[Peer | None]:
    """The peer with the levels' arrays in `folder`; nothing, and a line that says so, without its interpreter."""
    if python is None:
        print(NO_PEER)
        yield None
        return
    for number, case in enumerate(cases):
        case.save(folder / f"level{number}.pt")
    peer = Peer(python, folder)
    try:
        yield peer
    finally:
        peer.close()


class _Worker:
    """The peer's side."""

    def __init__(self, folder: Path) -> None:
        import spconv.pytorch as spconv
        from spconv.pytorch import functional, ops

        ops.get_current_stream = functional.get_current_stream = lambda: 0
        self.spconv, self.ops, self.functional, self.folder = spconv, ops, functional, folder
        self._levels: dict[int, dict[str, Any]] = {}

    def level(self, number: int) -> dict[str, Any]:
        """A level's arrays, convolution and warm map."""
        if number not in self._levels:
            from ov3d.common.sparse.spconv_adapter import to_spconv_weight

            data = torch.load(self.folder / f"level{number}.pt", weights_only=True)
            weight = data["weight"]
            conv = self.spconv.SubMConv3d(weight.shape[1], weight.shape[2], 3, bias=False, indice_key="warm")
            conv.weight.data = to_spconv_weight(weight, (3, 3, 3))
            data["coords"] = data["coords"].contiguous()
            data["shape"] = [int(side) + 1 for side in data["coords"][:, 1:].amax(0)]
            data["conv"], data["feats"] = conv, data["feats"].requires_grad_()
            x = self.spconv.SparseConvTensor(data["feats"], data["coords"], data["shape"], 1)
            data["indices"] = conv(x).indice_dict
            self._levels[number] = data
        return self._levels[number]

    def convolve(self, number: int) -> dict[str, float]:
        """Seconds of a forward and a backward with the map at hand."""
        data = self.level(number)
        x = self.spconv.SparseConvTensor(data["feats"], data["coords"], data["shape"], 1)
        x.indice_dict = data["indices"]
        start = time.perf_counter()
        out = data["conv"](x).features
        middle = time.perf_counter()
        out.backward(data["gradient"])
        return {"forward": middle - start, "backward": time.perf_counter() - middle}

    def build(self, number: int) -> dict[str, float]:
        """Seconds of building the 3³ submanifold map."""
        data = self.level(number)
        ones, zeros = [1, 1, 1], [0, 0, 0]
        start = time.perf_counter()
        self.ops.get_indice_pairs(
            data["coords"], 1, data["shape"], self.spconv.ConvAlgo.Native, [3, 3, 3], ones, ones, ones, zeros, True
        )
        return {"build": time.perf_counter() - start}

    def check(self, number: int) -> dict[str, float]:
        """Largest relative deviations of ours from spconv's own module, and of the adapter's calls from ours."""
        data = self.level(number)
        weight = data["weight"].clone().requires_grad_()
        feats, coords, gradient = data["feats"].detach().clone().requires_grad_(), data["coords"], data["gradient"]
        data["conv"].weight.grad = data["feats"].grad = None
        x = self.spconv.SparseConvTensor(data["feats"], coords, data["shape"], 1)
        out = data["conv"](x).features
        out.backward(gradient)
        from ov3d.common.sparse.conv import sparse_conv
        from ov3d.common.sparse.kernel_map import kernel_map
        from ov3d.common.sparse.kernel_shape import KernelShape
        from ov3d.common.sparse.spconv_adapter import from_spconv_weight
        from ov3d.common.sparse.voxels import VoxelGrid

        grid = VoxelGrid(coords)
        ours = sparse_conv(feats, weight, kernel_map(grid, KernelShape.of_submanifold(3)))
        ours.backward(gradient)
        theirs = [out, data["feats"].grad, from_spconv_weight(data["conv"].weight.grad)]
        module = max(map(_deviation, [ours, feats.grad, weight.grad], theirs))
        data["conv"].weight.grad = data["feats"].grad = None
        return {"module": module, "adapter": max(self._check_adapter(grid, shape) for shape in _shapes())}

    def _check_adapter(self, grid: Any, shape: Any) -> float:
        """The adapter's calls of spconv's functions, both directions, against ours."""
        from ov3d.common.sparse.conv import sparse_conv
        from ov3d.common.sparse.kernel_map import kernel_map
        from ov3d.common.sparse.spconv_adapter import convolve_with

        kernel, worst = kernel_map(grid, shape), 0.0
        modules = type("Modules", (), {"functional": self.functional, "native": self.spconv.ConvAlgo.Native})
        for direction in ("forward", "transposed"):
            rows = (kernel.source if direction == "forward" else kernel.target).num_voxels
            feats, weight = torch.randn(rows, 16), torch.randn(shape.volume, 16, 24)
            results = []
            for function in (sparse_conv, lambda *given: convolve_with(modules, *given)):
                leaf, leaf_weight = feats.clone().requires_grad_(), weight.clone().requires_grad_()
                out = function(leaf, leaf_weight, kernel, direction)
                out.sin().sum().backward()
                results.append((out, leaf.grad, leaf_weight.grad))
            worst = max(worst, *map(_deviation, *results))
        return worst


def _shapes() -> list[Any]:
    from ov3d.common.sparse.kernel_shape import KernelShape

    return [
        KernelShape.of_submanifold(3),
        KernelShape.of_submanifold((1, 3, 3)),
        KernelShape((2, 2, 2), (2, 2, 2)),
        KernelShape((3, 3, 3), (2, 2, 1), padding=(1, 1, 1)),
    ]


def _deviation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def main(folder: Path) -> None:
    """Answer tasks until the input ends."""
    torch.set_num_threads(1)
    worker = _Worker(folder)
    import importlib.metadata

    print(json.dumps({"version": importlib.metadata.version("spconv")}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        task = {"convolve": worker.convolve, "build": worker.build, "check": worker.check}[request["task"]]
        print(json.dumps(task(request["level"])), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
