"""Batches through the stages, who left dropped, against torch."""

import numpy as np
import pytest
import torch
from made_networks import made_config, made_network, made_prepared

pytest.importorskip("onnx", reason="onnx is not installed (extra edge)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")

from ff.data.images import standardise
from ff.export import graphs
from ff.export.sessions import OnnxNetwork
from ff.files import write_bytes
from ff.learn.inference import Exits, Inference
from ff.learn.readouts import HEAD, Seen


def exits_of(network, prepared, shares, temperatures):
    images = standardise(prepared.test, prepared.facts, "cpu").block(slice(None), 1)
    scores = HEAD.scores(HEAD.said(Seen(network, images)))[0]
    if temperatures is not None:
        scores = (scores / torch.tensor([*temperatures, 1.0])[:, None]).softmax(-1)
    thresholds = []
    for layer, share in enumerate(shares):
        largest = scores[:, layer].amax(-1).sort().values
        # Between two images, or beyond all.
        middles = torch.cat([largest[:1] * 0.99, (largest[1:] + largest[:-1]) / 2, largest[-1:] * 1.01])
        thresholds.append(None if share is None else float(middles[round(share * len(largest))]))
    return Exits(tuple(thresholds), temperatures)


# Shares of the images whose largest score is below the threshold of each layer, and where images leave.
@pytest.mark.parametrize(
    ("shares", "layers"),
    [
        *((None, {4}), ((0.5, 0.6, 0.3), {1, 2, 3, 4}), ((0.5, None, 0.5), {1, 3, 4}), ((None, 0.4, 1.0), {2, 4})),
        *(((0.0, 0.0, 0.0), {1}), ((1.0, 1.0, 1.0), {4})),
    ],
)
@pytest.mark.parametrize("temperatures", [None, (4.0, 5.0, 6.0)])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_stages_answer_a_batch_as_torch_does(tmp_path, shares, layers, temperatures, size):
    prepared = made_prepared()
    network = made_network(made_config("784,12,14,16,10"))
    source = graphs.Source(network, prepared.facts, "head", {})
    for layer in range(4):
        write_bytes(tmp_path / f"stage{layer + 1}.onnx", graphs.stage(source, layer).SerializeToString())
    exits = None if shares is None else exits_of(network, prepared, shares, temperatures)
    inference, onnx_network = Inference(network, prepared.facts), OnnxNetwork(tmp_path, 4, exits=exits)
    images, seen = prepared.test.images, set()
    for start in range(0, 60, size):
        batch = images[start : start + size]
        expected = inference.answer(inference.pixels(batch), exits)
        given = onnx_network.answer_by_stages(batch.numpy())
        np.testing.assert_array_equal(given.classes, expected.classes)
        np.testing.assert_array_equal(given.layers, expected.layers)
        seen |= set(given.layers.tolist())
    assert seen == layers
