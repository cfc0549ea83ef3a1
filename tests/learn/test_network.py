"""Networks: readouts by the engine's shortcuts against plain code on full images, groups, counts."""

import pytest
import textbook
import torch

from ff.data.images import Block, Images, Part, standardise
from ff.data.registry import DATASETS
from ff.learn.network import (
    Network,
    head_macs,
    initial_network,
    layer_macs,
)
from ff.learn.readouts import GOODNESS, HEAD, OWN_HEAD, SUMMED, Seen
from ff.learn.recipes import make_run_config
from ff.learn.rules import backprop, forward_forward, mono

SHAPES = [("MNIST", "784,13"), ("MNIST", "784,13,11,10"), ("CIFAR10", "3072,13,11,9,10")]


def made_part(dataset: str, count: int, seed: int = 0) -> Part:
    generator = torch.Generator().manual_seed(seed)
    return Part(
        torch.randint(0, 256, (count, *DATASETS[dataset].shape), generator=generator, dtype=torch.uint8),
        torch.randint(0, 10, (count,), generator=generator, dtype=torch.uint8),
    )


def made(dataset: str, layers: str, recipe: str, seeds: list[int], **values) -> tuple[Network, Part, Images]:
    """Networks with heads that say something, and ten images in float64."""
    config, _ = make_run_config(
        {"dataset": dataset, "layers": layers, "recipe": recipe, "precision": "float64"} | values
    )
    part = made_part(dataset, 10)
    network = initial_network(config, seeds, DATASETS[dataset].shape[0])
    noise = torch.randn(network.heads.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network.heads = noise * network.head_mask()
    network.head_biases = torch.rand(network.head_biases.shape, dtype=torch.float64)
    return network, part, standardise(part, DATASETS[dataset], "cpu", torch.float64)


@pytest.mark.parametrize("recipe", ["ff", "edgeff"])
@pytest.mark.parametrize(("dataset", "layers"), SHAPES)
def test_the_goodness_readout_equals_ten_plain_passes_over_labelled_images(dataset, layers, recipe):
    network, part, images = made(dataset, layers, recipe, [0, 1, 2], overlay_value=7.0)
    block = images.block(slice(0, 10), 3)
    found = GOODNESS.said(Seen(network, block))
    plain, channels = textbook.standardised(part, dataset), DATASETS[dataset].shape[0]
    for seed in range(3):
        weights, biases, _, _ = textbook.parameters_of(network, seed)
        for label in range(10):
            x = textbook.with_label(plain, torch.full((10,), label), channels, 7.0)
            outputs = textbook.forward(x, weights, biases, network.normalisation)
            expected = torch.stack([textbook.goodness(h) for h in outputs], 1)
            assert torch.allclose(found[seed, :, :, label], expected, rtol=1e-10)


@pytest.mark.parametrize("recipe", ["ff", "edgeff", "mono", "predsim"])
@pytest.mark.parametrize(("dataset", "layers"), SHAPES)
def test_the_head_readout_equals_a_plain_pass_over_neutral_images(dataset, layers, recipe):
    network, part, images = made(dataset, layers, recipe, [0, 1], neutral_value=0.3)
    block = images.block(slice(0, 10), 2)
    seen = Seen(network, block)
    found = HEAD.said(seen)
    value, see = (0.0, "own") if recipe in ("mono", "predsim") else (0.3, "below")
    slope = 0.01 if recipe == "predsim" else 0.0
    plain = textbook.neutral(textbook.standardised(part, dataset), DATASETS[dataset].shape[0], value)
    for seed in range(2):
        weights, biases, heads, head_biases = textbook.parameters_of(network, seed)
        outputs = textbook.forward(plain, weights, biases, network.normalisation, slope=slope)
        for layer, h in enumerate(outputs):
            assert torch.allclose(seen.neutral.outputs[layer][seed], h, rtol=1e-9, atol=1e-12)
            assert torch.allclose(seen.neutral.goodness[layer][seed], textbook.goodness(h), rtol=1e-9)
            normalised = textbook.normalised(h, network.normalisation)
            assert torch.allclose(seen.neutral.normalised[layer][seed], normalised, rtol=1e-9, atol=1e-12)
        summed = torch.zeros(10, 10, dtype=torch.float64)
        for depth in range(1, network.depth + 1):
            expected = textbook.head_logits(outputs, heads, head_biases, depth, network.normalisation, see)
            assert torch.allclose(found[seed, :, depth - 1], expected, rtol=1e-9, atol=1e-12)
            summed += torch.log(torch.exp(expected) / torch.exp(expected).sum(1, keepdim=True))
            assert torch.allclose(SUMMED.scores(found)[seed, :, depth - 1], summed, rtol=1e-9, atol=1e-12)


def test_bfloat16_products_stay_close_to_float32():
    network, _, images = made("MNIST", "784,64,32", "ff", [0])
    block = images.block(slice(0, 10), 1)
    single = network.with_tensors(lambda t: t.float())
    single.precision = "float32"
    half = network.with_tensors(lambda t: t.float())
    half.precision = "bfloat16"
    block = Block(block.pixels.float(), block.square.float(), block.labels)
    exact, rough = (GOODNESS.said(Seen(n, block)) for n in (single, half))
    assert rough.dtype == torch.float32
    assert textbook.relative_difference(rough, exact) < 0.02
    assert not torch.equal(rough, exact)


def test_a_seeds_first_weights_do_not_depend_on_its_group():
    config, _ = make_run_config({"layers": "784,20,10"})
    group, alone = initial_network(config, [3, 5, 9], 1), initial_network(config, [5], 1)
    for found, expected in zip(
        [*group.of_seed(1).weights, *group.of_seed(1).biases], [*alone.weights, *alone.biases], strict=True
    ):
        assert torch.equal(found, expected)
    assert not torch.equal(group.weights[0][0], group.weights[0][1])


def test_first_weights_are_drawn_as_torchs_linear_layers_draw_them():
    config, _ = make_run_config({"layers": "784,400,100"})
    network = initial_network(config, [0], 1)
    for inputs, tensors in ((784, (network.weights[0], network.biases[0])), (400, (network.weights[1],))):
        limit = inputs**-0.5
        for tensor in tensors:
            assert tensor.abs().max() <= limit
            assert tensor.abs().max() > 0.95 * limit
            # Variance of a uniform distribution.
            assert tensor.var().item() == pytest.approx(limit**2 / 3, rel=0.15)
            assert abs(tensor.mean().item()) < 0.1 * limit
    assert not network.heads.any()
    he = initial_network(make_run_config({"layers": "784,400,100", "recipe": "mono"})[0], [0], 1)
    for found, expected in zip([*he.weights, *he.biases], [*network.weights, *network.biases], strict=True):
        assert torch.allclose(found, expected * 6**0.5)


def test_parameters_are_counted():
    config, _ = make_run_config({"layers": "784,200,200,10"})
    layers = (784 * 200 + 200) + (200 * 200 + 200) + (200 * 10 + 10)
    heads = (200 * 10 + 10) + (400 * 10 + 10) + (410 * 10 + 10)
    assert initial_network(config, [0, 1], 1).parameter_count() == layers + heads
    config = make_run_config({"layers": "784,200,200,10", "recipe": "mono"})[0]
    # Mono-Forward's matrices have no bias, and each sees its own layer.
    assert initial_network(config, [0, 1], 1).parameter_count() == layers + 10 * (200 + 200 + 10)


def test_multiplications_are_counted():
    layers, config = (784, 200, 200, 10), make_run_config({"layers": "784,200,200,10"})[0]
    assert layer_macs(layers) == [156_800, 40_000, 2_000]
    assert head_macs(layers, 10) == [2_000, 4_000, 4_100]
    # Forward-forward: forward and weight gradient of positives and negatives, which share the first layer's pixels.
    assert forward_forward.training_macs(config) == 2 * 156_800 + 2 * 2 * (40_000 + 2_000)
    # Backprop: forward, weight gradient, and the gradient of the inputs but for the first layer's.
    assert backprop.training_macs(config) == 3 * (156_800 + 40_000 + 2_000) - 156_800
    # Mono-Forward: forward and weight gradient.
    assert mono.training_macs(config) == 2 * (156_800 + 40_000 + 2_000)
    assert head_macs(layers, 10, "own") == [2_000, 2_000, 100]
    assert OWN_HEAD.macs(layers, 10) == 156_800 + 40_000 + 2_000 + 100
    assert SUMMED.macs(layers, 10) == 156_800 + 40_000 + 2_000 + 2_000 + 2_000 + 100
    assert HEAD.macs(layers, 10) == 156_800 + 40_000 + 2_000 + 4_100
    # The first layer's pixels once, its label columns and all that follows for each of ten labels.
    assert GOODNESS.macs(layers, 10) == 156_800 + 10 * 200 + 10 * (40_000 + 2_000)


def test_the_claim_that_forward_forward_costs_about_a_quarter_more_than_backprop():
    config = make_run_config({"layers": "784,1000,1000,1000"})[0]
    ratio = forward_forward.training_macs(config) / backprop.training_macs(config)
    assert ratio == pytest.approx(1.26, abs=0.005)


def test_bfloat16_multiplies_in_bfloat16_and_adds_the_bias_in_float32():
    network, _, _ = made("MNIST", "784,64,32", "ff", [0, 1])
    network = network.with_tensors(lambda t: t.float())
    network.precision = "bfloat16"
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 7, 64, generator=generator)
    rounded_x, rounded_weight = (t.bfloat16().double() for t in (x, network.weights[1]))
    product = (rounded_x @ rounded_weight.mT).bfloat16().double()
    # A bias that bfloat16 does not hold.
    network.biases[1] = 3 + torch.rand(2, 32, generator=generator)
    expected = torch.relu(product + network.biases[1].double()[:, None])
    assert torch.allclose(network.forward_layer(1, x).double(), expected, rtol=0, atol=0.01)
    # The sum is as exact as float32 wherever the product was rounded alike.
    assert ((network.forward_layer(1, x).double() - expected).abs() < 1e-6).double().mean() > 0.95
