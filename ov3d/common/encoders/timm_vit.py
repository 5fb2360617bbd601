"""`timm:`: DINO, DINOv2 and other self-supervised vision transformers of timm, as encoders of patches without text.

    timm:NAME                  weights by timm's name, from its hub cache or downloaded
    timm:NAME/PATH             a checkpoint on disk: .safetensors, or a .pth that torch loads with weights_only
    timm:NAME/random:SEED      seeded random weights, for tests

For example `vit_small_patch14_dinov2.lvd142m` or `vit_small_patch16_224.dino`. Position embeddings are resized to the
requested grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ov3d.common.base.errors import DataError, MissingModelError, UsageError, did_you_mean
from ov3d.common.base.shapes import Float, UInt8
from ov3d.common.encoders.openclip_weights import first_line, why_no_download
from ov3d.common.encoders.pixels import resize
from ov3d.common.encoders.precision import dtype_name, pick_dtype
from ov3d.common.encoders.torchvision_shim import import_torchvision
from ov3d.common.encoders.weights import sha256_of
from ov3d.common.language.cards import Identity

_RANDOM = "random:"
_WRAPPERS = ("state_dict", "model", "teacher", "student")
"""Keys under which training code stores a network's tensors in a checkpoint."""
_FILES = ("model.safetensors", "pytorch_model.bin")
_HINT = "Use the path of a checkpoint (timm:NAME/PATH), or use --refine dino, which needs no download."


class TimmPatches:
    """Encodes images as unit patch tokens of a vision transformer.

    Args:
        rest: the spec after `timm:`.
        device: device of the encoder.
        dtype: see `pick_dtype`.

    Raises:
        UsageError: no such model, one without patch tokens, or no such type.
        MissingModelError: timm or the weights are not on this machine.
        DataError: a checkpoint is missing, or does not fit the model.
    """

    def __init__(self, rest: str, *, device: torch.device, dtype: str = "auto") -> None:
        timm = _import_timm()
        name, _, given = rest.partition("/")
        _refuse_unknown(timm, name)
        self._device, self._dtype = device, pick_dtype(dtype, device)
        self._name = name
        model, self._weights = _load(timm, name, given)
        self._model: Any = model.eval().requires_grad_(False).to(device, self._dtype)
        patch = self._model.patch_embed.patch_size
        self._patch: tuple[int, int] = (int(patch[0]), int(patch[1]))
        mean, std = (torch.tensor(self._model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        self._shift, self._scale = (mean * 255).to(device), (1 / (std * 255)).to(device)

    @property
    def identity(self) -> Identity:
        """Everything that determines the tokens."""
        config = self._model.pretrained_cfg
        mean, std = ([round(float(value), 5) for value in config[key]] for key in ("mean", "std"))
        return Identity(
            model=f"timm {self._name}",
            weights=self._weights,
            preprocessing=f"bicubic antialiased to {self._patch} px a patch, mean {mean}, std {std}, timm's positions",
            dtype=dtype_name(self._dtype),
        )

    @property
    def dim(self) -> int:
        """Width of a token."""
        return int(self._model.embed_dim)

    @torch.inference_mode()
    def encode_patches(self, image: UInt8[Tensor, "3 h w"], grid: tuple[int, int]) -> Float[Tensor, "gh gw d"]:
        """Unit tokens of the last layer, fp32, of the image resized to `grid` patches (rows, columns).

        Raises:
            UsageError: a side of the grid is below 1.
        """
        if min(grid) < 1:
            raise UsageError(f"The grid must have at least 1 x 1 patches, got {grid[0]} x {grid[1]}.")
        size = (grid[0] * self._patch[0], grid[1] * self._patch[1])
        pixels = (resize(image[None].to(self._device), size).float() - self._shift) * self._scale
        tokens = self._model.forward_features(pixels.to(self._dtype))[0, self._model.num_prefix_tokens :]
        return F.normalize(tokens.float(), dim=-1).view(*grid, -1)


def _import_timm() -> Any:
    import_torchvision()
    try:
        import timm
    except ImportError as error:
        raise MissingModelError(f"timm cannot be imported: {error}.", "pip install timm") from error
    return timm


def _refuse_unknown(timm: Any, name: str) -> None:
    if not name:
        raise UsageError("timm: names no model.", "For example: timm:vit_small_patch14_dinov2.lvd142m")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = did_you_mean(name, timm.list_models("vit_*", pretrained=False) + timm.list_pretrained("vit_*dino*"))
        hint = close if close.startswith("Did") else "For example: timm:vit_small_patch14_dinov2.lvd142m"
        raise UsageError(f"timm has no model {name!r}.", hint)
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UsageError(f"timm's {architecture} has no weights {tag!r}.", did_you_mean(tag, tags))


def _load(timm: Any, name: str, given: str) -> tuple[Any, str]:
    """The model in fp32 on the CPU, and the identity of its weights."""
    if given.startswith(_RANDOM):
        seed = given.removeprefix(_RANDOM)
        if not (seed.isascii() and seed.isdigit()):
            raise UsageError(f"The seed of random weights must be an integer, got {seed!r}.", "Write random:0.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            return _create(timm, name), f"seed:{seed}"
    model = _create(timm, name)
    path = Path(given).expanduser() if given else _hub_file(model.pretrained_cfg, name)
    if not path.is_file():
        raise DataError(f"No checkpoint {path}.", "Check the path.")
    _read_into(model, path, name)
    return model, sha256_of(path.resolve())


def _create(timm: Any, name: str) -> Any:
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except (TypeError, RuntimeError) as error:
        raise _no_tokens(name) from error
    if not all(hasattr(model, part) for part in ("patch_embed", "num_prefix_tokens", "forward_features")):
        raise _no_tokens(name)
    return model


def _no_tokens(name: str) -> UsageError:
    return UsageError(
        f"timm's {name} has no patch tokens: it is not a vision transformer.", "Use a ViT, for example a DINOv2 model."
    )


def _read_into(model: Any, path: Path, name: str) -> None:
    """Load a checkpoint; the key names of the DINO papers' own files are supported."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        for wrapper in _WRAPPERS:
            state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
        state = {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}
        from timm.models.vision_transformer import checkpoint_filter_fn

        state = checkpoint_filter_fn(state, model)
        result = model.load_state_dict(state, strict=False)
    except Exception as error:  # truncated files and files of other models fail in many ways
        raise _does_not_load(path, name, first_line(error)) from error
    if result.missing_keys:  # extra heads are harmless, missing weights are not
        raise _does_not_load(path, name, f"it lacks {result.missing_keys[0]}")


def _does_not_load(path: Path, name: str, reason: str) -> DataError:
    return DataError(f"Cannot load the checkpoint {path} into {name}: {reason}.", "Check the model and the file.")


def _hub_file(config: dict[str, Any], name: str) -> Path:
    """The file of a pretrained tag: from the hub's cache, or downloaded."""
    repository = config.get("hf_hub_id")
    if not repository:
        raise MissingModelError(f"timm:{name} has no weights to download.", _HINT)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    named = config.get("hf_hub_filename")
    files = [named] if named else list(_FILES)
    for file in files:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    reason = why_no_download({"hf_hub": repository})
    if not reason:
        for file in files:
            try:
                return Path(hf_hub_download(repository, file))
            except Exception as error:  # hub clients raise many types
                reason = first_line(error)
    raise MissingModelError(f"The weights of timm:{name} are not on this machine, and {reason}.", _HINT)
