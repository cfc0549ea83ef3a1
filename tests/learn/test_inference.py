"""The deployed network says what the trained one says, and really drops what has left."""

import pytest
import textbook
import torch
from made_networks import made_config, made_network, made_prepared

from ff.data.images import standardise
from ff.errors import FFError
from ff.learn.inference import Exits, Inference
from ff.learn.network import initial_network
from ff.learn.readouts import HEAD, Seen

CASES = [
    {},
    {"precision": "float64"},
    {"recipe": "edgeff", "precision": "float64"},
    {"layers": "784,25", "precision": "float64"},
    {"dataset": "CIFAR10", "layers": "3072,20,10", "precision": "float64"},
    {"precision": "bfloat16"},
    {"recipe": "mono", "precision": "float64"},
    {"recipe": "mono"},
    {"recipe": "mono", "precision": "bfloat16"},
    {"recipe": "predsim", "precision": "float64"},
    {"recipe": "predsim", "precision": "bfloat16"},
    {"recipe": "hff", "precision": "float64"},
]
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "bfloat16": 0.3}


@pytest.mark.parametrize("values", CASES, ids=str)
def test_logits_are_those_of_the_network(values):
    config = made_config(**values)
    prepared = made_prepared(config.dataset)
    network = made_network(config, prepared.facts.shape[0])
    network.head_biases = torch.randn(network.head_biases.shape).to(network.head_biases.dtype)
    network.biases = [bias + torch.rand_like(bias) for bias in network.biases]
    inference = Inference(network, prepared.facts)
    images = standardise(prepared.test, prepared.facts, "cpu", network.heads.dtype).block(slice(None), 1)
    expected = HEAD.said(Seen(network, images))[0, :, -1]
    logits = inference.logits(inference.pixels(prepared.test.images))
    assert torch.allclose(logits, expected, rtol=0, atol=TOLERANCE[config.precision])
    answers = inference.answer(inference.pixels(prepared.test.images))
    assert torch.equal(answers.classes, logits.argmax(1))
    assert (answers.layers == network.depth).all()


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_pixels_are_standardised_as_for_training(dataset):
    prepared = made_prepared(dataset)
    config = made_config("784,20,10", dataset=dataset)
    inference = Inference(made_network(config, prepared.facts.shape[0]), prepared.facts)
    expected = standardise(prepared.test, prepared.facts, "cpu").block(slice(None), 1).pixels[0]
    assert torch.allclose(inference.pixels(prepared.test.images), expected, atol=1e-6)


def layer_batches(inference: Inference, monkeypatch) -> list[int]:
    """How many samples each call of a layer gets, as it happens."""
    sizes: list[int] = []
    original = inference.layer
    monkeypatch.setattr(inference, "layer", lambda index, x: sizes.append(len(x)) or original(index, x))
    return sizes


def head_calls(inference: Inference, monkeypatch) -> list[tuple[int, int]]:
    """(depth, samples) of each head computed, as it happens."""
    calls: list[tuple[int, int]] = []
    original = inference.head
    monkeypatch.setattr(
        inference,
        "head",
        lambda features: calls.append((len(features), len(features[0]))) or original(features),
    )
    return calls


def made_inference() -> tuple[Inference, torch.Tensor]:
    prepared, config = made_prepared(), made_config(precision="float64")
    inference = Inference(made_network(config), prepared.facts)
    return inference, inference.pixels(prepared.test.images)


def test_samples_that_left_are_dropped_from_the_batch(monkeypatch):
    inference, pixels = made_inference()
    first = head_logits(inference, pixels)[:, 0].amax(1)
    sizes, heads = layer_batches(inference, monkeypatch), head_calls(inference, monkeypatch)
    answers = inference.answer(pixels, Exits((float(first.median()), 1e9)))
    stayed = int((answers.layers > 1).sum())
    assert 0 < stayed < 60
    assert sizes == [60, stayed, stayed]
    assert heads == [(1, 60), (2, stayed), (3, stayed)]


@pytest.mark.parametrize("depth", [1, 2, 3, None])
def test_a_cut_network_computes_its_layers_and_its_own_head_only(depth, monkeypatch):
    inference, pixels = made_inference()
    expected = head_logits(inference, pixels)
    sizes, heads = layer_batches(inference, monkeypatch), head_calls(inference, monkeypatch)
    answers = inference.answer(pixels, None, depth)
    reached = depth or 3
    assert sizes == [60] * reached and heads == [(reached, 60)]
    assert torch.equal(answers.classes, expected[:, reached - 1].argmax(-1))
    assert answers.layers.tolist() == [reached] * 60


def test_in_a_cut_network_exits_lie_below_the_cut(monkeypatch):
    inference, pixels = made_inference()
    heads = head_calls(inference, monkeypatch)
    assert set(inference.answer(pixels, Exits((1e9,)), 2).layers.tolist()) == {2}
    assert heads == [(1, 60), (2, 60)]


def test_a_layer_without_threshold_lets_nobody_leave_and_asks_no_head(monkeypatch):
    inference, pixels = made_inference()
    heads = head_calls(inference, monkeypatch)
    answers = inference.answer(pixels, Exits((None, -1e9)))
    assert heads == [(2, 60)] and (answers.layers == 2).all()


def test_when_all_have_left_nothing_more_runs(monkeypatch):
    inference, pixels = made_inference()
    sizes = layer_batches(inference, monkeypatch)
    answers = inference.answer(pixels, Exits((-1e9, -1e9)))
    assert sizes == [60] and (answers.layers == 1).all()


def head_logits(inference: Inference, pixels: torch.Tensor) -> torch.Tensor:
    """Logits [n, L, C] of all heads for pixels [n, D], by the textbook."""
    network = inference.network
    weights, biases, heads, head_biases = textbook.parameters_of(network, 0)
    neutral = textbook.neutral(pixels, network.channels, network.neutral_value)
    outputs = textbook.forward(neutral, weights, biases, network.normalisation)
    depths = range(1, network.depth + 1)
    logits = [textbook.head_logits(outputs, heads, head_biases, k, network.normalisation) for k in depths]
    return torch.stack(logits, 1).detach()


def test_each_sample_is_answered_as_if_it_were_alone():
    inference, pixels = made_inference()
    logits = head_logits(inference, pixels)
    sure, soft = logits.amax(-1).quantile(0.6, dim=0), (logits / 9).softmax(-1).amax(-1).quantile(0.6, dim=0)
    for exits in (None, Exits(tuple(sure[:2].tolist())), Exits(tuple(soft[:2].tolist()), (9.0, 9.0))):
        whole = inference.answer(pixels, exits)
        alone = [inference.answer(pixels[i : i + 1], exits) for i in range(len(pixels))]
        assert whole.classes.tolist() == [int(a.classes) for a in alone]
        assert whole.layers.tolist() == [int(a.layers) for a in alone]
        assert exits is None or len(set(whole.layers.tolist())) == 3


def test_the_probability_rule_is_softmax_of_logits_by_temperature():
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    exits = Exits((0.6,), (1.7,))
    expected = (logits / 1.7).softmax(1).amax(1) > 0.6
    assert torch.equal(exits.leaving(0, logits, logits.amax(1)), expected)
    assert 0 < int(expected.sum()) < 200


def test_values_that_are_not_numbers_do_not_leave():
    inference, pixels = made_inference()
    broken = pixels.clone()
    broken[3] = float("nan")
    for exits in (Exits((-1e9, -1e9)), Exits((0.0, 0.0), (1.0, 1.0))):
        assert int(inference.answer(broken, exits).layers[3]) == 3


def test_an_empty_batch_has_no_answers():
    inference, pixels = made_inference()
    answers = inference.answer(pixels[:0], Exits((0.0, 0.0)))
    assert len(answers.classes) == len(answers.layers) == 0


def test_several_networks_at_once_are_refused():
    with pytest.raises(FFError, match="one network"):
        Inference(initial_network(made_config(), [0, 1], 1), made_prepared().facts)
