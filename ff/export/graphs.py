"""ONNX graphs of a trained network, written node by node from its tensors.

A network as it is deployed (`ff.learn.inference`) is a dozen kinds of nodes, so the graphs are written with
`onnx.helper` instead of being traced from torch code: that takes milliseconds, branches of `If` are as they are
written, and float32 and int8 differ in one function (`Sheet.product`). Everything computes in float32, whatever the
precision of the training was.

    image                uint8 [N, C, H, W]; overlay of the neutral label, standardising and norm are in the graph
    activity_l           norm(h) of layer l, float32 [N, W_l]
    scores_l             of the readout after layer l, float32 [N, classes]
    answer, layer        the class and the layer (from 1) at which the sample left, int64 [N]

The int8 graphs hold the layers' products in Q/DQ form: weights int8 with a scale for each unit, inputs int8 with one
scale, zero points 0, since TensorRT reads no others ("Working with Quantized Types", explicit quantization). Scores
stay in float32: they are less than a hundredth of the products.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ff import __version__
from ff.data.registry import Facts
from ff.errors import FFError
from ff.learn.inference import Exits, Inference
from ff.learn.network import RMS_EPSILON, UNIT_EPSILON, Network
from ff.learn.readouts import HEAD

OPSET, IR_VERSION = 17, 8
"""Old enough for the ONNX Runtime and the TensorRT (8.6, 10) of every JetPack since 6; `If` and per-unit Q/DQ are
older (operator sets 11 and 13)."""
INT8_LIMIT = 127
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Source:
    """What graphs are made of."""

    network: Network
    """One network (S = 1) on the CPU."""
    facts: Facts
    readout: str
    """Name of the readout that answers."""
    about: Mapping[str, str]
    """What the file says of itself: metadata of the graph."""
    largest: tuple[float, ...] | None = None
    """Largest size of a value that enters layer 1..L, for int8; None: float32."""

    @cached_property
    def deployed(self) -> Inference:
        """The network as it is deployed, multiplied in the format of its own tensors."""
        return Inference(replace(self.network, precision="float32"), self.facts)

    def heads_layers(self, layer: int) -> list[int]:
        """Which layers' activities the head after layer `layer` sees (all from 0)."""
        return list(range(layer + 1 - len(self.deployed.heads[layer]), layer + 1))


class Sheet:
    """Nodes and constants of a graph, or of a branch of it, in which everything above it can be named.

    A constant lies where it is used first: ONNX Runtime makes no int8 product of weights that lie outside its branch.
    """

    def __init__(self, source: Source, above: "Sheet | None" = None):
        self.source, self.nodes, self._above = source, list[onnx.NodeProto](), above
        self.constants: dict[str, onnx.TensorProto] = {}
        self._count: list[int] = [0] if above is None else above._count

    def branch(self) -> "Sheet":
        """An empty sheet for a branch of this one."""
        return Sheet(self.source, self)

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name, by default a new one."""
        self._count[0] += 1
        output = output or f"{kind.lower()}_{self._count[0]}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{self._count[0]}", **attributes))
        return output

    def constant(self, name: str, value: Any, kind: type = np.float32) -> str:
        """A constant; the same name is the same constant."""
        if not self._knows(name):
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind), name)
        return name

    def _knows(self, name: str) -> bool:
        return name in self.constants or (self._above is not None and self._above._knows(name))

    def product(self, layer: int, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """x W^T + b of layer `layer` (from 0): [N, in], [out, in], [out] -> [N, out]."""
        name, largest = f"layer{layer + 1}", self.source.largest
        if largest is None:
            values = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
            return self.node("Gemm", x, *values, transB=1)
        of_input = [
            self.constant(f"{name}.input_scale", max(largest[layer], _TINY) / INT8_LIMIT),
            self.constant(f"{name}.input_zero", 0, np.int8),
        ]
        scales = np.maximum(np.abs(weight).max(1), _TINY) / INT8_LIMIT
        rounded = np.rint(weight / scales[:, None]).clip(-INT8_LIMIT, INT8_LIMIT)
        of_weight = [
            self.constant(f"{name}.weight_scale", scales),
            self.constant(f"{name}.weight_zero", np.zeros(len(scales)), np.int8),
        ]
        quantised = self.constant(f"{name}.weight", rounded.T, np.int8)
        x = self.node("DequantizeLinear", self.node("QuantizeLinear", x, *of_input), *of_input)
        product = self.node("MatMul", x, self.node("DequantizeLinear", quantised, *of_weight, axis=1))
        # ONNX Runtime joins a MatMul and an Add to a Gemm, of which it makes no int8 product where the bias is
        # float32; TensorRT reads no int32 bias. A difference stays by itself.
        return self.node("Sub", product, self.constant(f"{name}.minus_bias", -bias))


# -- a layer, and what is read off it ----


def _numbers(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _standardised(sheet: Sheet, image: str) -> str:
    """Neutral input [N, D]: pixels x factor + offset, where the label's pixels have factor 0."""
    network, facts = sheet.source.network, sheet.source.facts
    size = network.input_size // network.channels
    factor = np.repeat(1 / (255 * np.array(facts.std)), size)
    offset = np.repeat(-np.array(facts.mean) / np.array(facts.std), size)
    for part in network.label_slices():
        factor[part], offset[part] = 0, network.neutral_value
    pixels = sheet.node("Flatten", sheet.node("Cast", image, to=TensorProto.FLOAT), axis=1)
    scaled = sheet.node("Mul", pixels, sheet.constant("pixel_factor", factor))
    return sheet.node("Add", scaled, sheet.constant("pixel_offset", offset))


def _normalised(sheet: Sheet, x: str, width: int, output: str) -> str:
    """norm(x) of x [N, width]: by its root mean square, by its length, or x itself (`Network.scale`)."""
    normalisation = sheet.source.network.normalisation
    if normalisation == "none":
        return sheet.node("Identity", x, output=output)
    if normalisation == "rms":
        square = sheet.node("ReduceSumSquare", x, axes=[1], keepdims=1)
        mean = sheet.node("Mul", square, sheet.constant(f"one_over_{width}", 1 / width))
        size = sheet.node("Sqrt", sheet.node("Add", mean, sheet.constant("epsilon", RMS_EPSILON)))
    elif normalisation == "unit":
        length = sheet.node("ReduceL2", x, axes=[1], keepdims=1)
        size = sheet.node("Add", length, sheet.constant("epsilon", UNIT_EPSILON))
    else:
        raise FFError(f"the norm {normalisation!r} has no graph; add it to ff/export/graphs.py")
    return sheet.node("Div", x, size, output=output)


def activity_name(layer: int) -> str:
    """What norm(h) of layer `layer` (from 0) is called."""
    return f"activity_{layer + 1}"


def scores_name(layer: int) -> str:
    """What the scores after layer `layer` (from 0) are called."""
    return f"scores_{layer + 1}"


def input_name(layer: int) -> str:
    """What enters the product of layer `layer` (from 0)."""
    return activity_name(layer - 1) if layer else "normalised_pixels"


def _layer(sheet: Sheet, layer: int) -> None:
    """norm(ReLU(W x + b)) of layer `layer` (from 0), from the image or the activity below; the ReLU may be leaky."""
    network = sheet.source.network
    if layer == 0:
        _normalised(sheet, _standardised(sheet, "image"), network.input_size, output=input_name(0))
    weight, bias = _numbers(sheet.source.deployed.weights[layer]), _numbers(sheet.source.deployed.biases[layer])
    z = sheet.product(layer, input_name(layer), weight, bias)
    slope = network.negative_slope
    h = sheet.node("LeakyRelu", z, alpha=slope) if slope else sheet.node("Relu", z)
    _normalised(sheet, h, network.widths[layer], output=activity_name(layer))


def _head_scores(sheet: Sheet, layer: int) -> None:
    """Logits of the head after layer `layer` (from 0)."""
    deployed, name = sheet.source.deployed, f"head{layer + 1}"
    seen = [activity_name(index) for index in sheet.source.heads_layers(layer)]
    features = sheet.node("Concat", *seen, axis=1) if len(seen) > 1 else seen[0]
    parts = [_numbers(part) for part in deployed.heads[layer]]
    weight = sheet.constant(f"{name}.weight", np.concatenate(parts, 1))
    bias = sheet.constant(f"{name}.bias", _numbers(deployed.head_biases[layer]))
    sheet.node("Gemm", features, weight, bias, output=scores_name(layer), transB=1)


class _Scores(NamedTuple):
    """How a readout scores in a graph: `add` names scores of a layer (from 0), which need the activities that the
    source says (`seen`)."""

    add: Callable[[Sheet, int], None]
    seen: Callable[[Source, int], list[int]]


_READOUTS = {HEAD.name: _Scores(_head_scores, Source.heads_layers)}
"""A rule whose networks answer otherwise has a line here."""


def _scores(source: Source) -> _Scores:
    if source.readout not in _READOUTS:
        raise FFError(
            f"networks that answer by {source.readout!r} cannot be exported, those that answer by "
            f"{', '.join(_READOUTS)} can; add its graph to ff/export/graphs.py"
        )
    return _READOUTS[source.readout]


def _answer(sheet: Sheet, layer: int, output: str = "answer") -> str:
    return sheet.node("ArgMax", scores_name(layer), output=output, axis=1, keepdims=0)


# -- whole graphs ----


def full(source: Source, inputs_too: bool = False) -> onnx.ModelProto:
    """The whole network, any batch: the scores after each layer, and the last one's answer.

    `inputs_too`: also what enters each layer's product, which calibration looks at.
    """
    sheet, scores = Sheet(source), _scores(source)
    depth, outputs = source.network.depth, []
    for layer in range(depth):
        _layer(sheet, layer)
        scores.add(sheet, layer)
        outputs.append(_value(scores_name(layer), "batch", source.network.classes))
    _answer(sheet, depth - 1)
    if inputs_too:
        sizes = [source.network.input_size, *source.network.widths]
        outputs += [_value(input_name(layer), "batch", sizes[layer]) for layer in range(depth)]
    return _model(sheet, "full", [_image(source, "batch")], [*outputs, _value("answer", "batch", kind="INT64")])


def stage(source: Source, layer: int) -> onnx.ModelProto:
    """Layer `layer` (from 0) alone, any batch: from the image, or the activities that it and its scores need, to its
    own activity and scores."""
    network, scores, sheet = source.network, _scores(source), Sheet(source)
    _layer(sheet, layer)
    scores.add(sheet, layer)
    needed = sorted({*scores.seen(source, layer), layer - 1} - {layer, -1})
    inputs = [_value(activity_name(index), "batch", network.widths[index]) for index in needed]
    outputs = [
        _value(activity_name(layer), "batch", network.widths[layer]),
        _value(scores_name(layer), "batch", network.classes),
    ]
    return _model(sheet, f"stage{layer + 1}", inputs or [_image(source, "batch")], outputs)


def early_exit(source: Source, exits: Exits) -> onnx.ModelProto:
    """The network for one image that answers at the first layer that is sure enough: nested `If`s, of which a runtime
    evaluates the branch that is taken."""
    sheet = Sheet(source)
    _from_layer(sheet, 0, exits)
    return _model(sheet, "early_exit", [_image(source, 1)], _left())


def _from_layer(sheet: Sheet, layer: int, exits: Exits, suffix: str = "") -> None:
    """All that follows from layer `layer` (from 0): ends with the outputs `answer` and `layer`, with a suffix."""
    source, scores = sheet.source, _scores(sheet.source)
    _layer(sheet, layer)
    last = layer == source.network.depth - 1
    if not last and exits.thresholds[layer] is None:
        _from_layer(sheet, layer + 1, exits, suffix)
        return
    scores.add(sheet, layer)
    if last:
        _leave(sheet, layer, suffix)
        return
    condition = _leaving(sheet, layer, exits)
    here, deeper = sheet.branch(), sheet.branch()
    _leave(here, layer, f"_at_{layer + 1}")
    _from_layer(deeper, layer + 1, exits, f"_above_{layer + 1}")
    branches = {
        "then_branch": _branch(here, f"at_{layer + 1}"),
        "else_branch": _branch(deeper, f"above_{layer + 1}"),
    }
    outputs = [one.name for one in _left(suffix)]
    sheet.nodes.append(helper.make_node("If", [condition], outputs, name=f"If_{layer + 1}", **branches))


def _branch(sheet: Sheet, name: str) -> onnx.GraphProto:
    return helper.make_graph(sheet.nodes, name, [], _left(f"_{name}"), list(sheet.constants.values()))


def _left(suffix: str = "") -> list[onnx.ValueInfoProto]:
    return [_value(name + suffix, 1, kind="INT64") for name in ("answer", "layer")]


def _leave(sheet: Sheet, layer: int, suffix: str) -> None:
    _answer(sheet, layer, output=f"answer{suffix}")
    number = sheet.constant(f"layer_number_{layer + 1}", [layer + 1], np.int64)
    sheet.node("Identity", number, output=f"layer{suffix}")


def _leaving(sheet: Sheet, layer: int, exits: Exits) -> str:
    """Whether the image leaves at `layer` (from 0), bool [1]: what `Exits.leaving` says."""
    scores, threshold = scores_name(layer), sheet.constant(f"threshold_{layer + 1}", exits.thresholds[layer])
    largest = sheet.node("ReduceMax", scores, axes=[1], keepdims=1)
    if exits.temperatures is None:
        condition = sheet.node("Greater", largest, threshold)
    else:
        factor = sheet.constant(f"one_over_temperature_{layer + 1}", 1 / exits.temperatures[layer])
        surplus = sheet.node("Exp", sheet.node("Mul", sheet.node("Sub", scores, largest), factor))
        total = sheet.node("ReduceSum", surplus, sheet.constant("axis_1", [1], np.int64), keepdims=1)
        condition = sheet.node("Less", sheet.node("Mul", total, threshold), sheet.constant("one", 1))
    return sheet.node("Reshape", condition, sheet.constant("shape_1", [1], np.int64))


# -- protobuf ----


def _value(name: str, batch: int | str, *sizes: int, kind: str = "FLOAT") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), [batch, *sizes])


def _image(source: Source, batch: int | str) -> onnx.ValueInfoProto:
    return _value("image", batch, *source.facts.shape, kind="UINT8")


def _model(
    sheet: Sheet, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    graph = helper.make_graph(sheet.nodes, name, inputs, outputs, list(sheet.constants.values()))
    model = helper.make_model(
        graph,
        producer_name="ff",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, {**sheet.source.about, "graph": name})
    onnx.checker.check_model(model, full_check=True)
    return model
