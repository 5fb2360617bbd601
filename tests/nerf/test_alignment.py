"""Losses of distillation against their definitions, pair by pair in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ov3d.nerf.alignment import (
    distribution_loss,
    feature_loss,
    js_of_all_pairs,
    kl_of_all_pairs,
    relevancy_loss,
    stretched,
)


def _distributions(count: int = 12, classes: int = 4, *, sharp: float = 1.5) -> torch.Tensor:
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0))
    return (sharp * logits).softmax(1)


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def _js(p: np.ndarray, q: np.ndarray) -> float:
    return 0.5 * _kl(p, (p + q) / 2) + 0.5 * _kl(q, (p + q) / 2)


@pytest.mark.parametrize(("quick", "slow"), [(kl_of_all_pairs, _kl), (js_of_all_pairs, _js)])
def test_divergences_of_all_pairs_equal_the_twin(quick: object, slow: object) -> None:
    p = _distributions()
    rows = p.double().numpy()
    expected = np.array([[slow(a, b) for b in rows] for a in rows])  # type: ignore[operator]
    np.testing.assert_allclose(quick(p).numpy(), expected, atol=1e-4)  # type: ignore[operator]


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_distribution_loss_equals_the_twin(divergence: str) -> None:
    p = _distributions()
    likeness = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    attract, repel = distribution_loss(p, likeness, divergence=divergence, limit=0.3)  # type: ignore[arg-type]
    rows, v = p.double().numpy(), likeness.double().numpy()
    slow = _kl if divergence == "kl" else _js
    pairs = np.array([[slow(a, b) for b in rows] for a in rows])
    np.testing.assert_allclose(float(attract), (np.maximum(v, 0) * pairs).sum() / (v > 0).sum(), atol=1e-4)
    np.testing.assert_allclose(
        float(repel), (np.minimum(v, 0) * np.minimum(pairs, 0.3)).sum() / (v < 0).sum(), atol=1e-4
    )


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
    known = torch.tensor([True, True, False])
    assert float(feature_loss(found, wanted, known)) == pytest.approx(0, abs=1e-6)
    assert float(feature_loss(found, -wanted, known)) == pytest.approx(2, abs=1e-6)
    assert float(feature_loss(found, wanted, torch.zeros(3, dtype=torch.bool))) == 0


def test_relevancy_loss_is_the_divergence_of_two_softmaxes() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    relevancy = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    p, q = logits.double().softmax(1).numpy(), relevancy.double().softmax(1).numpy()
    expected = np.mean([_js(a, b) for a, b in zip(p, q, strict=True)])
    found = relevancy_loss(logits, relevancy, torch.ones(5, dtype=torch.bool))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_relevancy_is_stretched_where_it_can_be() -> None:
    cosine = torch.tensor([[[0.2, 0.5]], [[0.4, 0.5]]])
    low, high = torch.tensor([[[0.2, 0.5]]]).expand(2, 1, 2), torch.tensor([[[0.6, 0.5]]]).expand(2, 1, 2)
    found = stretched(cosine, low, high)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0]], [[0.5, 0.0]]]))
