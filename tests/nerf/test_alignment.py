"""Losses of distillation against their definitions, pair by pair in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ov3d.nerf import pairs
from ov3d.nerf.alignment import distribution_loss, feature_loss, relevancy_loss, stretched


def _distributions(count: int = 12, classes: int = 4, *, sharp: float = 1.5) -> torch.Tensor:
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0))
    return (sharp * logits).softmax(1)


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def _js(p: np.ndarray, q: np.ndarray) -> float:
    return 0.5 * _kl(p, (p + q) / 2) + 0.5 * _kl(q, (p + q) / 2)


def _likeness(count: int, seed: int = 1) -> torch.Tensor:
    half = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) - 0.5
    return half + half.T


@pytest.mark.parametrize("rows", [5, 256])
@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_distribution_loss_equals_the_twin(divergence: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BLOCK_ROWS", {"kl": rows, "js": rows})
    p, likeness = _distributions(), _likeness(12)
    attract, repel = distribution_loss(p, likeness, divergence=divergence, limit=0.3)  # type: ignore[arg-type]
    distributions, v = p.double().numpy(), likeness.double().numpy()
    slow = _kl if divergence == "kl" else _js
    divergences = np.array([[slow(a, b) for b in distributions] for a in distributions])
    assert (divergences > 0.3).any()
    np.testing.assert_allclose(float(attract), (np.maximum(v, 0) * divergences).sum() / (v > 0).sum(), atol=1e-4)
    np.testing.assert_allclose(
        float(repel), (np.minimum(v, 0) * np.minimum(divergences, 0.3)).sum() / (v < 0).sum(), atol=1e-4
    )


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_gradients_of_the_distribution_loss_equal_the_twin(divergence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all pairs in one block, which autograd differentiates by itself."""
    monkeypatch.setattr(pairs, "BLOCK_ROWS", {"kl": 4, "js": 4})
    likeness = _likeness(11).double()
    logits = 2 * torch.randn(11, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = []
    for quick in (True, False):
        leaf = logits.clone().requires_grad_()
        p = leaf.softmax(1)
        if quick:
            attract, repel = distribution_loss(p, likeness, divergence=divergence, limit=0.2)  # type: ignore[arg-type]
        else:
            one, other = p[:, None].expand(11, 11, 3), p[None].expand(11, 11, 3)
            if divergence == "kl":
                each = (one * (one.log() - other.log())).sum(2)
            else:
                middle = (one + other) / 2
                each = 0.5 * (one * (one / middle).log() + other * (other / middle).log()).sum(2)
            alike, unlike = likeness.clamp(min=0), likeness.clamp(max=0)
            attract = (alike * each).sum() / (alike > 0).sum()
            repel = (unlike * each.clamp(max=0.2)).sum() / (unlike < 0).sum()
        (3 * attract + 0.7 * repel).backward()
        found.append((attract.detach(), repel.detach(), leaf.grad))
    for mine, twin in zip(*found, strict=True):
        torch.testing.assert_close(mine, twin, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_no_pairs_of_a_kind_cost_nothing(divergence: str) -> None:
    p = _distributions(4).requires_grad_()
    attract, repel = distribution_loss(p, torch.zeros(4, 4), divergence=divergence, limit=0.3)  # type: ignore[arg-type]
    (attract + repel).backward()
    assert float(attract.detach()) == float(repel.detach()) == 0
    assert not p.grad.any()


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_a_probability_that_is_no_number_shows(divergence: str) -> None:
    p = _distributions(4)
    p[2, 1] = torch.nan
    attract, _ = distribution_loss(p, torch.ones(4, 4), divergence=divergence, limit=0.3)  # type: ignore[arg-type]
    assert attract.isnan()


def test_repelling_has_an_end() -> None:
    """KL grows without bound where a class dies out; what `repel` gives does not."""
    p = torch.tensor([[1 - 1e-7, 1e-7], [1e-7, 1 - 1e-7]], requires_grad=True)
    _, repel = distribution_loss(p, torch.full((2, 2), -1.0), divergence="kl", limit=0.69)
    repel.backward()
    assert float(repel.detach()) > -0.7
    assert float(p.grad.abs().max()) < 1e-3  # nothing pulls any more


def test_likeness_draws_distributions_together() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True)
    attract, repel = distribution_loss(logits.softmax(1), torch.ones(2, 2), divergence="js", limit=0.69)
    assert float(repel.detach()) == 0
    attract.backward()
    assert logits.grad[0, 0] > 0 > logits.grad[1, 0]


def test_feature_loss_leaves_out_what_the_teacher_does_not_know() -> None:
    found, wanted = torch.eye(3), torch.eye(3)
    wanted[2] = 0
    known = torch.tensor([1.0, 1.0, 0.0])
    assert float(feature_loss(found, wanted, known)) == pytest.approx(0, abs=1e-6)
    assert float(feature_loss(found, -wanted, known)) == pytest.approx(2, abs=1e-6)
    assert float(feature_loss(found, wanted, torch.zeros(3))) == 0


def test_losses_weigh_pixels_by_trust() -> None:
    found, wanted = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # 0 off, and 1
    trust = torch.tensor([0.9, 0.3])
    assert float(feature_loss(found, wanted, trust)) == pytest.approx(0.25, abs=1e-6)
    logits, relevancy = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.0], [1.0, 0.0]])
    each = [float(relevancy_loss(logits[k : k + 1], relevancy[k : k + 1], torch.ones(1))) for k in range(2)]
    together = float(relevancy_loss(logits, relevancy, trust))
    assert together == pytest.approx(0.75 * each[0] + 0.25 * each[1], abs=1e-6)


def test_relevancy_loss_is_the_divergence_of_two_softmaxes() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    relevancy = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    p, q = logits.double().softmax(1).numpy(), relevancy.double().softmax(1).numpy()
    expected = np.mean([_js(a, b) for a, b in zip(p, q, strict=True)])
    found = relevancy_loss(logits, relevancy, torch.ones(5))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_relevancy_is_stretched_where_it_can_be() -> None:
    cosine = torch.tensor([[[0.2, 0.5]], [[0.4, 0.5]]])
    low, high = torch.tensor([[[0.2, 0.5]]]).expand(2, 1, 2), torch.tensor([[[0.6, 0.5]]]).expand(2, 1, 2)
    found = stretched(cosine, low, high)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0]], [[0.5, 0.0]]]))
