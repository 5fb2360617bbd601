"""Crops a second through the offline encoder's image network, against timm's own forward of the same weights.

    python -m benchmarks.encoding

Peer: timm's `tf_efficientnet_lite0` as it is created, crops resized and normalised as floats, batches of 32. Ours: batch norms
folded, symmetric padding, bytes resized as bytes, channels last, a few crops at a time. Both give the posterior of the same
crops, interleaved, fp32. The last line is one JSON object; `ratio` is the median of the repeats' ratios.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import interleaved, median_ratio, medians, parser, report
from ov3d.common.encoders import create_encoder
from ov3d.common.encoders.efficientnet_lite import VARIANTS
from ov3d.common.encoders.torchvision_shim import import_torchvision

NUM_CROPS, CROP_SIZE, REPEATS, PEER_BATCH = 64, 96, 5, 32
GOAL = 2.0


def main() -> None:
    """Run both, print crops a second and the JSON line."""
    options = parser(__doc__).parse_args()
    crops = _crops()
    encoder = create_encoder("offline:lite0", device=torch.device("cpu"), dtype="float32")
    peer = _timm_lite0()
    with torch.inference_mode():
        similarity = F.cosine_similarity(encoder.encode_crops(crops), _peer_vectors(peer, crops)).min()
        calls = {"ours": lambda: encoder.encode_crops(crops), "peer": lambda: _peer_vectors(peer, crops)}
        times = interleaved(calls, REPEATS, warm_up=0)  # the comparison of vectors was the warm-up
    ours, theirs = (NUM_CROPS / median for median in medians(times).values())
    ratio = median_ratio(times["peer"], times["ours"])
    print(
        f"{NUM_CROPS} crops of {CROP_SIZE} px: {ours:.0f} crops/s, timm {theirs:.0f} ({ratio:.1f}x); cosine {similarity:.5f}"
    )
    report(
        "encoding",
        ours=round(ours, 1),
        peer=round(theirs, 1),
        unit="crops/s, EfficientNet-Lite0, fp32",
        ratio=round(ratio, 2),
        goal=GOAL,
        met=ratio >= GOAL,
        save=options.save,
        threads=torch.get_num_threads(),
        min_cosine=round(float(similarity), 6),
    )


def _crops() -> Tensor:
    """Crops over a photograph, so that posteriors are real ones; without scikit-image smooth noise does."""
    generator = torch.Generator().manual_seed(0)
    try:
        from skimage import data

        image = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)
    except ImportError:
        coarse = torch.rand(1, 3, 10, 15, generator=generator) * 255
        image = F.interpolate(coarse, (300, 450), mode="bicubic").clamp(0, 255)[0].byte()
    rows = torch.randint(0, image.shape[1] - CROP_SIZE, (NUM_CROPS,), generator=generator).tolist()
    columns = torch.randint(0, image.shape[2] - CROP_SIZE, (NUM_CROPS,), generator=generator).tolist()
    return torch.stack([image[:, y : y + CROP_SIZE, x : x + CROP_SIZE] for y, x in zip(rows, columns, strict=True)])


def _timm_lite0() -> nn.Module:
    import_torchvision()
    import timm

    network: nn.Module = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(VARIANTS["lite0"].file.verified(), map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network


def _peer_vectors(network: nn.Module, crops: Tensor) -> Tensor:
    rows = []
    for batch in crops.split(PEER_BATCH):
        resized = F.interpolate(batch.float(), (224, 224), mode="bicubic", antialias=True)
        resized = resized.round().clamp(0, 255)  # as resizing with Pillow gives
        rows.append(network((resized / 255 - 0.5) / 0.5).softmax(1).sqrt())
    return torch.cat(rows)


if __name__ == "__main__":
    main()
