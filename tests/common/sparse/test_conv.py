from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ov3d.common.base.errors import UsageError
from ov3d.common.sparse import spconv_adapter
from ov3d.common.sparse.conv import InverseConv, StridedConv, SubmanifoldConv, sparse_conv, to_dense_weight
from ov3d.common.sparse.kernel_map import kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.spconv_adapter import from_spconv_weight, spconv_pairs, to_spconv_weight
from ov3d.common.sparse.voxels import SparseTensor, VoxelGrid, voxelise
from tests.common.sparse.oracle import Case, relative_error, run_dense, run_sparse


def cloud_of(num_voxels: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> SparseTensor:
    generator = torch.Generator().manual_seed(seed)
    grid, _ = voxelise(torch.randn(num_voxels, 3, generator=generator) * max(num_voxels, 1) ** (1 / 3) / 2, 1.0)
    return SparseTensor(grid, torch.randn(grid.num_voxels, dim, generator=generator, dtype=dtype))


def empty(dim: int) -> SparseTensor:
    return SparseTensor(VoxelGrid(torch.zeros(0, 4, dtype=torch.int32), 1), torch.zeros(0, dim))


@pytest.mark.parametrize(
    "shape",
    [
        KernelShape.of_submanifold(3),
        KernelShape.of_submanifold((3, 1, 3), 2),
        KernelShape((2, 2, 2), (2, 2, 2)),
        KernelShape((3, 3, 3), (2, 2, 1), padding=(1, 1, 1)),
    ],
)
@pytest.mark.parametrize("direction", ["forward", "transposed"])
def test_gradcheck(shape: KernelShape, direction: str) -> None:
    x = cloud_of(25, 2, dtype=torch.float64)
    kernel = kernel_map(x.grid, shape)
    rows = (kernel.source if direction == "forward" else kernel.target).num_voxels
    feats = torch.randn(rows, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape.volume, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, w: sparse_conv(f, w, kernel, direction), (feats, weight))  # type: ignore[arg-type]


@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_each_gradient_alone_equals_both(needs: tuple[bool, bool]) -> None:
    x = cloud_of(200, 4)
    kernel = kernel_map(x.grid, KernelShape.of_submanifold(3))
    weight = torch.randn(27, 4, 5)

    def gradients(flags: tuple[bool, bool]) -> list[Tensor | None]:
        feats, w = x.feats.clone().requires_grad_(flags[0]), weight.clone().requires_grad_(flags[1])
        sparse_conv(feats, w, kernel).sin().sum().backward()
        return [feats.grad, w.grad]

    for wanted, alone, both in zip(needs, gradients(needs), gradients((True, True)), strict=True):
        assert (alone is not None) == wanted
        if alone is not None and both is not None:
            assert torch.allclose(alone, both, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_empty_and_single_voxels_go_through_every_module(bias: bool) -> None:
    one = SparseTensor(VoxelGrid(torch.tensor([[0, 3, -1, 2]], dtype=torch.int32), 1), torch.ones(1, 3))
    down = StridedConv(3, 4, 2, bias=bias)
    overlapping = StridedConv(3, 4, 3, stride=(2, 2, 1), padding=1, bias=bias)
    for x in (empty(3), one):
        count = len(x.feats)
        x = x.with_feats(x.feats.requires_grad_())
        for conv in (down, overlapping):
            coarse = conv(x)
            back = InverseConv(4, 2, conv.shape, bias=bias)(coarse, x)
            assert back.feats.shape == (count, 2)
            SubmanifoldConv(2, 2, 3, bias=bias)(back).feats.sum().backward()
            assert conv.weight.grad is not None and torch.isfinite(conv.weight.grad).all()
        assert x.feats.grad is not None and x.feats.grad.shape == (count, 3)
    assert torch.equal(down(one).coords, torch.tensor([[0, 1, -1, 1]], dtype=torch.int32))


def test_a_voxel_alone_sees_only_the_centre() -> None:
    one = SparseTensor(VoxelGrid(torch.tensor([[0, 0, 0, 0]], dtype=torch.int32), 1), torch.ones(1, 2))
    conv = SubmanifoldConv(2, 3, 5)
    assert torch.allclose(conv(one).feats, one.feats @ conv.weight[62])


def test_size_one_is_a_linear_layer() -> None:
    x = cloud_of(20, 3)
    conv = SubmanifoldConv(3, 4, 1)
    kernel = kernel_map(x.grid, conv.shape)
    assert torch.allclose(conv(x).feats, sparse_conv(x.feats, conv.weight, kernel), atol=1e-6)


def test_bias_is_added_to_every_voxel() -> None:
    x = cloud_of(30, 3)
    conv = SubmanifoldConv(3, 4, 3, bias=True)
    without = conv(x).feats
    assert conv.bias is not None
    torch.nn.init.constant_(conv.bias, 2.0)
    assert torch.allclose(conv(x).feats, without + 2, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_bfloat16_is_as_exact_as_its_mantissa(seed: int) -> None:
    case = Case.random(seed)
    rows, gradient = (tensor.bfloat16() for tensor in case.rows_and_gradient(seed))
    case.weight = case.weight.bfloat16().float()
    found = run_sparse(case, rows, gradient)
    expected = run_dense(case, rows.float(), gradient.float())
    assert found[0].dtype == torch.bfloat16 and found[2].dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 0.02


def test_inverse_needs_the_tensor_that_went_down() -> None:
    x = cloud_of(40, 2)
    down = StridedConv(2, 2)
    coarse = down(x)
    other = cloud_of(40, 2, seed=1)
    up = InverseConv(2, 2, down.shape)
    assert up(coarse, x).grid is x.grid
    with pytest.raises(UsageError, match="were not made by a convolution"):
        up(coarse, other)
    down(other)
    with pytest.raises(UsageError, match="were not made by a convolution"):
        up(coarse, other)


def test_rows_and_weights_must_fit() -> None:
    x = cloud_of(10, 2)
    kernel = kernel_map(x.grid, KernelShape.of_submanifold(3))
    for feats, weight in ((x.feats[1:], torch.zeros(27, 2, 2)), (x.feats, torch.zeros(8, 2, 2))):
        with pytest.raises(UsageError, match="do not fit"):
            sparse_conv(feats, weight, kernel)


def test_dense_weight_layout_round_trip_with_spconvs() -> None:
    size = (3, 1, 5)
    weight = torch.randn(15, 4, 6)
    theirs = to_spconv_weight(weight, size)
    assert theirs.shape == (6, 3, 1, 5, 4)
    assert torch.equal(from_spconv_weight(theirs), weight)
    assert torch.equal(theirs[2, 1, 0, 4], weight[1 * 5 + 4, :, 2])
    # spconv's layout is Conv3d's with the input channels moved last.
    assert torch.equal(to_dense_weight(weight, size), theirs.permute(0, 4, 1, 2, 3))


@pytest.mark.parametrize("seed", range(20))
def test_spconv_pairs_hold_the_whole_map(seed: int) -> None:
    """A scatter over the padded pairs, which is what spconv's kernels do, equals the engine."""
    case = Case.random(seed)
    rows, gradient = case.rows_and_gradient(seed)
    kernel = kernel_map(case.x.grid, case.shape)
    pairs, counts = spconv_pairs(kernel)
    source, target = (0, 1) if case.direction == "forward" else (1, 0)
    out = torch.zeros_like(gradient)
    for offset, count in enumerate(counts.tolist()):
        out.index_add_(0, pairs[target, offset, :count], rows[pairs[source, offset, :count]] @ case.weight[offset])
        assert (pairs[:, offset, count:] == -1).all()
    assert relative_error(run_sparse(case, rows, gradient)[0], out.double()) < 1e-5


def test_spconv_never_serves_the_cpu() -> None:
    assert not spconv_adapter.serves(torch.zeros(1, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(40))
def test_cuda_equals_the_dense_oracle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spconv_adapter, "_cuda_build", lambda: None)
    _compare_on_cuda(seed, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(40))
def test_spconv_on_cuda_equals_the_dense_oracle(seed: int) -> None:
    if not spconv_adapter.serves(torch.zeros(1, 1, device="cuda")):
        pytest.skip("no CUDA build of spconv is installed")
    _compare_on_cuda(seed, 1e-3)


def _compare_on_cuda(seed: int, tolerance: float) -> None:
    case = Case.random(seed)
    rows, gradient = case.rows_and_gradient(seed)
    expected = run_dense(case, rows, gradient)
    grid, device = case.x.grid, torch.device("cuda")
    moved = VoxelGrid(grid.coords.to(device), grid.num_batches, grid.extent)
    case.x = SparseTensor(moved, case.x.feats.to(device))
    case.weight = case.weight.to(device)
    found = run_sparse(case, rows.to(device), gradient.to(device))
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one.cpu(), other) < tolerance
