from __future__ import annotations

import pytest
import torch

from ov3d.common.base.errors import UsageError
from ov3d.common.sparse.blocks import BatchNorm, DimensionContext
from ov3d.common.sparse.kernel_map import kernel_map
from ov3d.common.sparse.kernel_shape import KernelShape
from ov3d.common.sparse.pool import MaxPool, global_pool, sparse_max_pool
from ov3d.common.sparse.unet import Level, UNet, UNetSpec, cylinder_unet, mink_unet18a
from ov3d.common.sparse.voxels import SparseTensor, VoxelGrid, sparse_tensor
from tests.common.sparse.test_conv import cloud_of, empty

SMALL = [
    UNetSpec(3, 5, stem_dim=4, levels=(Level(6, 8), Level(8, 10, (2, 2, 1))), stem_size=3, num_blocks=1),
    UNetSpec(3, 5, stem_dim=4, levels=(Level(6, 6), Level(8, 8, (2, 2, 1))), family="asymmetric"),
    UNetSpec(3, 5, stem_dim=4, levels=()),
]


def dense_grid(x: SparseTensor, fill: float) -> torch.Tensor:
    """[b, c, x, y, z] with `fill` where there is no voxel; coordinates are from 0."""
    size = [int(side) + 1 for side in x.coords.amax(0)]
    dense = torch.full((size[0], x.feats.shape[1], *(side + side % 2 for side in size[1:])), fill)
    dense.permute(0, 2, 3, 4, 1)[x.coords.long().unbind(1)] = x.feats
    return dense


def test_max_pool_equals_a_dense_one_with_gradients() -> None:
    occupied = torch.rand(2, 7, 6, 9) < 0.3
    x, _ = sparse_tensor(occupied.nonzero(), torch.randn(int(occupied.sum()), 4))
    feats = x.feats.clone().requires_grad_()
    pooled = MaxPool(2)(x.with_feats(feats))
    twin_feats = x.feats.clone().requires_grad_()
    dense = torch.nn.functional.max_pool3d(dense_grid(x.with_feats(twin_feats), -100.0), 2)
    twin = dense.permute(0, 2, 3, 4, 1)[pooled.coords.long().unbind(1)]
    assert torch.equal(pooled.feats, twin)
    gradient = torch.randn_like(twin)
    pooled.feats.backward(gradient)
    twin.backward(gradient)
    assert feats.grad is not None and twin_feats.grad is not None
    assert torch.allclose(feats.grad, twin_feats.grad)


def test_max_pool_of_nothing_and_of_a_submanifold_map() -> None:
    assert MaxPool()(empty(3)).feats.shape == (0, 3)
    x = cloud_of(5, 2)
    with pytest.raises(UsageError, match="strided"):
        sparse_max_pool(x.feats, kernel_map(x.grid, KernelShape.of_submanifold(3)))


@pytest.mark.parametrize("how", ["mean", "max", "sum"])
def test_global_pool_a_cloud(how: str) -> None:
    coords = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]])
    feats = torch.tensor([[1.0, -2.0], [3.0, -4.0], [5.0, -6.0]])
    x, _ = sparse_tensor(coords, feats, num_batches=4)
    first = {"mean": [2.0, -3.0], "max": [3.0, -2.0], "sum": [4.0, -6.0]}[how]
    assert global_pool(x, how).tolist() == [first, [0, 0], [5, -6], [0, 0]]  # type: ignore[arg-type]
    assert global_pool(SparseTensor(VoxelGrid(coords[:0].int(), 0), feats[:0])).shape == (0, 2)


def test_batch_norm_with_none_and_one_row() -> None:
    norm = BatchNorm(3)
    assert norm(torch.zeros(0, 3)).shape == (0, 3)
    assert torch.allclose(norm(torch.ones(1, 3)), torch.ones(1, 3), atol=1e-4)
    assert norm.running_mean is not None and torch.equal(norm.running_mean, torch.zeros(3))
    rows = torch.randn(50, 3) * 4 + 1
    assert torch.allclose(norm(rows), torch.nn.BatchNorm1d(3)(rows))


def test_context_gates_lie_between_zero_and_three() -> None:
    x = cloud_of(60, 4)
    gate = DimensionContext(4)(x).feats / x.feats
    assert (gate > 0).all() and (gate < 3).all()


@pytest.mark.parametrize("spec", SMALL, ids=["basic", "asymmetric", "no levels"])
def test_a_unet_keeps_the_voxels_and_trains_every_weight(spec: UNetSpec) -> None:
    torch.manual_seed(0)
    x = cloud_of(200, 3)
    network = UNet(spec)
    out = network(x)
    assert out.grid is x.grid and out.feats.shape == (x.grid.num_voxels, 5)
    out.feats.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("spec", SMALL, ids=["basic", "asymmetric", "no levels"])
def test_a_unet_lives_with_empty_and_single_voxels(spec: UNetSpec) -> None:
    one = SparseTensor(VoxelGrid(torch.tensor([[0, 5, -3, 2]], dtype=torch.int32), 1), torch.ones(1, 3))
    for training in (True, False):
        network = UNet(spec).train(training)
        assert network(empty(3)).feats.shape == (0, 5)
        assert torch.isfinite(network(one).feats).all()


@pytest.mark.parametrize("spec", SMALL[:2], ids=["basic", "asymmetric"])
def test_a_unet_does_not_see_where_the_cloud_lies_by_whole_strides(spec: UNetSpec) -> None:
    """Shifting all voxels by a multiple of every stride changes nothing: coordinates are used only relatively."""
    torch.manual_seed(0)
    x = cloud_of(150, 3)
    moved, _ = sparse_tensor(x.coords + torch.tensor([0, 8, -16, 4]), x.feats)
    network = UNet(spec).eval()
    assert torch.allclose(network(x).feats, network(moved).feats, atol=1e-5)


def test_clouds_of_a_batch_do_not_touch() -> None:
    torch.manual_seed(0)
    x, y = cloud_of(100, 3, seed=1), cloud_of(80, 3, seed=2)
    coords = torch.cat([x.coords, y.coords + torch.tensor([1, 0, 0, 0])])
    both, _ = sparse_tensor(coords, torch.cat([x.feats, y.feats]))
    network = UNet(SMALL[0]).eval()
    alone = torch.cat([network(x).feats, network(y).feats])
    assert torch.allclose(network(both).feats, alone, atol=1e-5)


def test_maps_are_shared_by_the_layers_of_a_level() -> None:
    x = cloud_of(100, 3)
    UNet(mink_unet18a(3, 4))(x)
    sizes = [shape.size for shape in x.grid.maps]
    assert sizes == [(5, 5, 5), (2, 2, 2), (3, 3, 3)], "the stem, down, and one for all four 3³ convolutions"


def test_the_two_lists_are_the_published_networks() -> None:
    mink, cylinder = UNet(mink_unet18a(3, 20)), UNet(cylinder_unet(16, 256))
    shape = {name: tuple(parameter.shape) for name, parameter in mink.named_parameters()}
    assert shape["stem.conv.weight"] == (125, 3, 32)
    assert shape["levels.3.to_coarse.conv.weight"] == (8, 128, 128)
    assert shape["levels.3.to_fine.conv.weight"] == (8, 256, 128)
    assert shape["levels.0.fine_blocks.0.first.conv.weight"] == (27, 96 + 32, 96)
    assert shape["head.weight"] == (20, 96)
    shape = {name: tuple(parameter.shape) for name, parameter in cylinder.named_parameters()}
    assert shape["levels.3.to_coarse.weight"] == (27, 512, 512)
    assert shape["context.axes.0.conv.weight"] == (3, 64, 64)
    assert shape["head.weight"] == (256, 128)
    strides = [level.to_coarse.shape.stride for level in cylinder.levels]
    assert strides == [(2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1)]


def test_added_skips_must_match() -> None:
    with pytest.raises(UsageError, match="cannot be added"):
        UNetSpec(3, 5, stem_dim=4, levels=(Level(6, 8),), family="asymmetric")


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SMALL, ids=["basic", "asymmetric", "no levels"])
def test_a_unet_on_cuda_equals_the_cpu(spec: UNetSpec) -> None:
    torch.manual_seed(0)
    x = cloud_of(300, 3)
    network = UNet(spec).eval()
    expected = network(x).feats
    device = torch.device("cuda")
    grid = VoxelGrid(x.coords.to(device), x.grid.num_batches)
    found = network.to(device)(SparseTensor(grid, x.feats.to(device))).feats
    assert torch.allclose(found.cpu(), expected, rtol=1e-3, atol=1e-3)
