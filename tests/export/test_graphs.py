"""ONNX graphs in ONNX Runtime against the torch network that they were made of."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_networks import made_config, made_network, made_prepared

pytest.importorskip("onnx", reason="onnx is not installed (extra edge)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")

import onnx
import onnxruntime

from ff.data.images import standardise
from ff.errors import FFError
from ff.export import graphs
from ff.export.calibration import largest_inputs
from ff.export.sessions import open_session
from ff.learn.inference import Exits, Inference
from ff.learn.readouts import HEAD, Seen
from ff.learn.recipes import RECIPES


def source_of(dataset="MNIST", **values):
    """A made network as a source of graphs, and made images."""
    prepared = made_prepared(dataset)
    network = made_network(made_config(dataset=dataset, **values), prepared.facts.shape[0])
    return graphs.Source(network, prepared.facts, HEAD.name, {"model": "0123"}), prepared


def opened(model):
    return open_session(model.SerializeToString())


def torch_scores(source, prepared):
    """Logits [n, L, C] of the test images."""
    images = standardise(prepared.test, prepared.facts, "cpu", source.network.heads.dtype)
    return HEAD.scores(HEAD.said(Seen(source.network, images.block(slice(None), 1))))[0].float().numpy()


def all_scores(source, images):
    names = [f"scores_{layer + 1}" for layer in range(source.network.depth)]
    return np.stack(opened(graphs.full(source)).run(names, {"image": images}), 1)


CASES = [
    *({"layers": layers} for layers in ("784,10", "784,30,20", "784,12,14,16,18,10")),
    # A rule that answers by heads needs nothing of its own.
    *({"recipe": recipe} for recipe in RECIPES),
    {"recipe": "bp", "normalisation": "unit"},
    {"neutral_value": 3.0},
    {"precision": "float64"},
    {"dataset": "CIFAR10", "layers": "3072,20,10", "neutral_value": 2.0},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_full_graph_gives_the_scores_of_every_layer(case):
    source, prepared = source_of(**case)
    images, expected = prepared.test.images.numpy(), torch_scores(source, prepared)
    given = all_scores(source, images)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)
    [answers] = opened(graphs.full(source)).run(["answer"], {"image": images})
    np.testing.assert_array_equal(answers, given[:, -1].argmax(1))


def test_a_network_that_torch_multiplies_in_bfloat16_differs_by_its_rounding():
    source, prepared = source_of(precision="bfloat16")
    expected = torch_scores(source, prepared)
    given = all_scores(source, prepared.test.images.numpy())
    assert 0 < np.abs(given - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_the_pixels_under_the_label_say_nothing(dataset):
    source, prepared = source_of(dataset, layers=f"{3072 if dataset == 'CIFAR10' else 784},20,10")
    images = prepared.test.images.numpy()
    other = images.copy()
    other[:, :, 0, :10] = 255 - other[:, :, 0, :10]
    np.testing.assert_array_equal(all_scores(source, images), all_scores(source, other))
    other[:, :, 0, 10] = 255 - other[:, :, 0, 10]
    assert (all_scores(source, images) != all_scores(source, other)).any()


@pytest.mark.parametrize("size", [0, 1, 7])
def test_any_batch_will_do(size):
    source, prepared = source_of()
    images = prepared.test.images.numpy()
    np.testing.assert_allclose(all_scores(source, images[:size]), all_scores(source, images)[:size], atol=1e-5)


def test_stages_one_after_the_other_are_the_full_graph():
    source, prepared = source_of(layers="784,12,14,16,10")
    known = {"image": prepared.test.images.numpy()}
    expected = all_scores(source, known["image"])
    for layer in range(4):
        stage = opened(graphs.stage(source, layer))
        activity, scores = stage.run(None, {one.name: known[one.name] for one in stage.get_inputs()})
        known[stage.get_outputs()[0].name] = activity
        np.testing.assert_allclose(scores, expected[:, layer], atol=1e-5)


# -- early exit ----


def middle(source, prepared):
    """The median of the largest score, by layer."""
    return [float(np.median(torch_scores(source, prepared)[:, layer].max(1))) for layer in range(source.network.depth)]


@pytest.mark.parametrize("kind", ["logit", "probability", "none at 2", "none at 1", "nobody", "everybody"])
def test_the_deciding_graph_answers_and_leaves_as_torch_does(kind):
    source, prepared = source_of(layers="784,12,14,16,10")
    middles = middle(source, prepared)
    exits = {
        "logit": Exits(tuple(middles[:-1])),
        "probability": Exits((0.5, 0.4, 0.3), (4.0, 5.0, 6.0)),
        "none at 2": Exits((middles[0], None, middles[2])),
        "none at 1": Exits((None, middles[1], middles[2])),
        "nobody": Exits((1e9, 1e9, 1e9)),
        "everybody": Exits((-1e9, -1e9, -1e9)),
    }[kind]
    inference = Inference(source.network, source.facts)
    expected = inference.answer(inference.pixels(prepared.test.images), exits)
    session = opened(graphs.early_exit(source, exits))
    given = [session.run(["answer", "layer"], {"image": one[None]}) for one in prepared.test.images.numpy()]
    assert [int(answer[0]) for answer, _ in given] == expected.classes.tolist()
    assert [int(layer[0]) for _, layer in given] == expected.layers.tolist()
    reached = {"nobody": {4}, "everybody": {1}, "none at 2": {1, 3, 4}, "none at 1": {2, 3, 4}}.get(kind, {1, 2, 3, 4})
    assert set(expected.layers.tolist()) == reached


def test_layers_above_the_exit_are_not_computed(tmp_path):
    source, prepared = source_of(layers="784,12,14,10")
    counts = {}
    for name, threshold in (("first", -1e9), ("last", 1e9)):
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / name)
        model = graphs.early_exit(source, Exits((threshold, threshold))).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {"image": prepared.test.images.numpy()[:1]})
        with open(session.end_profiling()) as file:
            kinds = [event.get("args", {}).get("op_name") for event in json.load(file)]
        counts[name] = sum(kind in ("Gemm", "FusedGemm") for kind in kinds)
    # A layer and its head, against all of them.
    assert counts == {"first": 2, "last": 6}


# -- int8 ----


def test_int8_products_are_those_of_rounded_numbers():
    """Scores of the int8 graph by hand: inputs and weights rounded to multiples of their scales, the rest as it is."""
    source, prepared = source_of(layers="784,30,20,10")
    images = prepared.test.images.numpy()
    names = [graphs.input_name(layer) for layer in range(3)]
    inputs = opened(graphs.full(source, inputs_too=True)).run(names, {"image": images})
    largest = largest_inputs(source, images)
    assert largest == pytest.approx([np.abs(values).max() for values in inputs])
    network, x, outputs = source.network, inputs[0].astype(float), []
    for layer in range(3):
        scale = largest[layer] / 127
        x = np.rint(x / scale).clip(-128, 127) * scale
        weight = network.weights[layer][0].double().numpy()
        scales = np.abs(weight).max(1, keepdims=True) / 127
        z = x @ (np.rint(weight / scales) * scales).T + network.biases[layer][0].double().numpy()
        x = network.normalise(torch.from_numpy(z).relu()).numpy()
        outputs.append(x)
        count = sum(network.widths[: layer + 1])
        head, bias = network.heads[0, layer, :, :count].double().numpy(), network.head_biases[0, layer].double().numpy()
        expected = np.concatenate(outputs, 1) @ head.T + bias
        given = opened(graphs.full(replace(source, largest=largest))).run([f"scores_{layer + 1}"], {"image": images})[0]
        # A value near the middle of two steps may be rounded to either.
        assert np.median(np.abs(given - expected)) < 1e-4
        assert np.abs(given - expected).max() < 0.05 * np.abs(expected).max()


def test_int8_products_run_as_int8_in_every_graph(tmp_path):
    """A graph in Q/DQ form may also be computed in float32, where a runtime does not recognise it."""
    source, _ = source_of(layers="784,12,14,10")
    source = replace(source, largest=(3.0, 4.0, 5.0))
    made = [graphs.full(source), graphs.early_exit(source, Exits((1.0, 1.0))), graphs.stage(source, 1)]
    for model, layers in zip(made, (3, 3, 1), strict=True):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = list(kinds_of(onnx.load(tmp_path / "optimised.onnx").graph))
        assert kinds.count("MatMulIntegerToFloat") == layers


def kinds_of(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from kinds_of(attribute.g)


def test_int8_is_what_tensorrt_reads():
    """Zero points 0, int8 and no int32 among what is dequantised."""
    source, _ = source_of()
    model = graphs.full(replace(source, largest=(3.0, 4.0, 5.0)))
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    seen = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(seen) == 9
    assert all(constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any() for node in seen)
    assert {constants[name].dtype for node in seen for name in node.input[:1] if name in constants} == {
        np.dtype("int8")
    }


def test_a_unit_that_is_dead_in_its_weights_is_no_reason_to_fail():
    source, prepared = source_of()
    source.network.weights[0][0, 3] = 0
    images = prepared.test.images.numpy()
    assert np.isfinite(all_scores(replace(source, largest=(3.0, 0.0, 5.0)), images)).all()


# -- the files ----


def test_a_graph_names_its_model_and_is_old_enough_for_boards():
    source, _ = source_of()
    for model in (graphs.full(source), graphs.stage(source, 0), graphs.early_exit(source, Exits((1.0, 1.0)))):
        assert {one.key: one.value for one in model.metadata_props}["model"] == "0123"
        assert ([one.version for one in model.opset_import], model.ir_version) == ([17], 8)
        assert not any(one.external_data for one in model.graph.initializer)
        assert model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_a_readout_without_a_graph_is_refused_in_one_sentence():
    source, _ = source_of()
    with pytest.raises(FFError, match=r"answer by 'goodness' cannot be exported, those that answer by head can"):
        graphs.full(replace(source, readout="goodness"))


def test_a_norm_without_a_graph_is_refused_in_one_sentence():
    source, _ = source_of()
    with pytest.raises(FFError, match=r"the norm 'batch' has no graph; add it to ff/export/graphs.py"):
        graphs.full(replace(source, network=replace(source.network, normalisation="batch")))
