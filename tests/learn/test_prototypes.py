"""Class prototypes against autograd in float64: cosines, as they are written."""

import pytest
import textbook
import torch
from test_trainer import BATCH, NETWORKS, Made, trained
from torch.nn.functional import cross_entropy

from ff.learn.noise import Dropout, draw_keys
from ff.learn.recipes import make_run_config
from ff.learn.rule import Batch
from ff.learn.rules import prototypes


def cosines(h: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Cosines [B, C] of outputs [B, W] and directions [C, W] of any length; the engine's epsilon in the outputs'."""
    return textbook.normalised(h, "rms") @ (directions / directions.norm(dim=1, keepdim=True)).T / h.shape[1] ** 0.5


@pytest.mark.parametrize(("temperature", "rate"), [(0.1, 0.0), (0.7, 0.0), (0.3, 0.4)])
@pytest.mark.parametrize(("dataset", "layers"), NETWORKS)
def test_the_gradients_equal_autograds(dataset, layers, temperature, rate):
    seeds = [3, 4]
    made = Made(dataset, layers, seeds, recipe="hff", temperature=temperature, dropout=rate)
    learner, network = made.trainer.learner, made.network
    # As after a step: rows of another length than is asked of them.
    for adam in learner.optimisers.values():
        adam.parameters.mul_(1.3)
    keys = torch.stack([draw_keys(torch.Generator().manual_seed(seed), BATCH) for seed in seeds]) if rate else None
    losses = learner.gradients(Batch(made.rows, None, keys))
    for seed in range(len(seeds)):
        images, labels = made.batch(seed)
        weights, biases, heads, _ = textbook.parameters_of(network, seed)
        x, expected = textbook.neutral(images, made.channels, 0.0), []
        directions = [heads[k, :, span].detach().requires_grad_() for k, span in enumerate(network.head_spans())]
        kept: torch.Tensor | float = 1.0
        for layer, (weight, bias, direction) in enumerate(zip(weights, biases, directions, strict=True)):
            x = textbook.layer(x.detach(), weight, bias, "rms", kept)
            # What is dropped is missing to the next layer, not to the layer's own scores.
            kept = 1.0 if keys is None else Dropout(rate, keys).factors(layer, x.expand(len(seeds), -1, -1))[seed]
            expected.append(cross_entropy(cosines(x, direction) / temperature, labels))
        sum(expected).backward()
        assert losses[seed].tolist() == pytest.approx([loss.item() for loss in expected], rel=1e-9)
        parameters = [*weights, *biases, *directions]
        found = [g[seed] for g in (*learner.layers.weight_gradients, *learner.layers.bias_gradients)]
        found += [learner.heads.gradient[seed, k, :, span] for k, span in enumerate(network.head_spans())]
        for one, other in zip(found, parameters, strict=True):
            assert textbook.relative_difference(one, other.grad) < 1e-9
        assert not (learner.heads.gradient[seed] * (1 - learner.heads.mask)).any()
    assert not learner.heads.bias_gradient.any()


def test_what_is_asked_has_prototypes_of_length_1(digits):
    trainer = trained(
        digits, [0, 3], recipe="hff", layers="784,40,30", temperature=0.2, rep_epochs=10, softmax_epochs=10
    )
    network = trainer.state.network
    for layer, (span, width) in enumerate(zip(network.head_spans(), (40, 30), strict=True)):
        length = network.heads[:, layer, :, span].norm(dim=-1) * 0.2 * width**0.5
        assert torch.allclose(length, torch.ones_like(length), atol=1e-5)
    assert not (network.heads * (1 - network.head_mask())).any()
    assert trainer.state.history[-1].loss[0] < trainer.state.history[0].loss[0]
    assert trainer.state.history[-1].validation_accuracy[0] > 0.7


def test_each_seed_draws_prototypes_of_its_own():
    group, alone = (Made("MNIST", "784,12,9", seeds, recipe="hff").network.heads for seeds in ([3, 8], [8]))
    assert torch.equal(group[1], alone[0])
    assert not torch.equal(group[0], group[1])


def test_costs_and_remarks():
    config, warnings = make_run_config({"recipe": "hff", "layers": "784,200", "dropout": 0.2})
    assert prototypes.training_macs(config) == 2 * 784 * 200
    assert warnings == ["dropout has no effect on recipe hff with a single layer: its own scores see all outputs"]
    assert make_run_config({"recipe": "hff", "dropout": 0.2})[1] == []
