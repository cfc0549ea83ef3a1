"""Losses and their derivatives against autograd, in float64."""

import pytest
import textbook
import torch
from torch.nn.functional import cross_entropy as torch_cross_entropy

from ff.learn.objectives import (
    activation_gradient,
    cross_entropy,
    normalisation_gradient,
    symba,
    threshold,
)

SEEDS, BATCH = 3, 17


def drawn(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("scale", [0.1, 2.0, 300.0])
@pytest.mark.parametrize("loss", ["symba", "threshold"])
def test_goodness_losses_and_derivatives(loss, scale):
    positive, negative = (drawn(SEEDS, BATCH, scale=scale, seed=s).abs().requires_grad_() for s in (1, 2))
    found = symba(positive, negative, 3.0) if loss == "symba" else threshold(positive, negative, 1.5)
    if loss == "symba":
        expected = torch.nn.functional.softplus(-3.0 * (positive - negative)).mean(1)
    else:
        margins = torch.cat([positive - 1.5, 1.5 - negative], 1)
        expected = torch.nn.functional.softplus(-margins).mean(1)
    assert torch.allclose(found.loss, expected, rtol=1e-12)
    by_positive, by_negative = torch.autograd.grad(expected.sum(), [positive, negative])
    # torch takes softplus for a straight line beyond 20, which leaves out e^-20 = 2e-9.
    assert textbook.relative_difference(found.by_positive.detach(), by_positive) < 3e-9
    assert textbook.relative_difference(found.by_negative.detach(), by_negative) < 3e-9


def test_goodness_losses_stay_finite_where_their_exponential_does_not():
    high, low = torch.tensor([[1e4]]), torch.tensor([[0.0]])
    for found, value in ((symba(low, high, 4.0), 4e4), (threshold(low, high, 2.0), (2.1269 + 9998.0) / 2)):
        assert found.loss.item() == pytest.approx(value, rel=1e-4)
        assert torch.isfinite(torch.stack([found.by_positive, found.by_negative])).all()
    assert symba(high, low, 4.0).loss.item() == 0


def test_the_gradient_of_the_activation_is_that_of_the_mean_square_through_the_relu():
    z = drawn(SEEDS, BATCH, 6).requires_grad_()
    by_goodness = drawn(SEEDS, BATCH, seed=3)
    h = torch.relu(z)
    ((h * h).mean(-1) * by_goodness).sum().backward()
    assert textbook.relative_difference(activation_gradient(h.detach(), by_goodness), z.grad) < 1e-14


def test_cross_entropy_of_all_heads_at_once():
    logits = drawn(SEEDS, BATCH, 4, 10, scale=5).requires_grad_()
    labels = torch.randint(0, 10, (SEEDS, BATCH), generator=torch.Generator().manual_seed(4))
    loss, gradient = cross_entropy(logits.detach(), labels)
    expected = torch.stack(
        [
            torch.stack([torch_cross_entropy(logits[seed, :, head], labels[seed]) for head in range(4)])
            for seed in range(SEEDS)
        ]
    )
    assert torch.allclose(loss, expected, rtol=1e-12)
    expected.sum().backward()
    assert textbook.relative_difference(gradient, logits.grad) < 1e-12


@pytest.mark.parametrize("normalisation", ["rms", "unit"])
def test_the_gradient_through_the_normalisation(normalisation):
    x = drawn(SEEDS, BATCH, 8).requires_grad_()
    by_y = drawn(SEEDS, BATCH, 8, seed=5)
    y = textbook.normalised(x, normalisation)
    y.backward(by_y)
    scale = (y.detach() / x.detach())[..., 0]
    found = normalisation_gradient(y.detach(), scale, by_y, normalisation)
    assert textbook.relative_difference(found, x.grad) < 1e-12


@pytest.mark.parametrize("normalisation", ["rms", "unit"])
def test_the_gradient_through_the_normalisation_of_a_silent_layer_is_finite(normalisation):
    zeros = torch.zeros(1, 2, 5, dtype=torch.float64)
    found = normalisation_gradient(zeros, torch.full((1, 2), 1e4, dtype=torch.float64), zeros + 1, normalisation)
    assert torch.isfinite(found).all()
