"""export/bundle.json: what an exported network is, how it is fed, and what each file of its bundle is."""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Count, Limits, Positive, ReadoutName, Run, Text

Numbers = Annotated[list[float], Limits(minItems=1)]
Counts = Annotated[list[AtLeast1], Limits(minItems=1)]
NumberFormat = Literal["float32", "int8"]


class Input(TypedDict):
    """What the graphs take: images as they are stored."""

    name: Literal["image"]
    type: Literal["uint8"]
    shape: Annotated[list[AtLeast1], Limits(minItems=3, maxItems=3)]
    """channels, rows, columns"""


class Normalisation(TypedDict):
    """Of the values / 255, by channel; it is part of the graphs."""

    mean: Numbers
    std: Annotated[list[Positive], Limits(minItems=1)]


class BundleMacs(TypedDict):
    """Multiply-accumulates of a sample."""

    layers: Counts
    cuts: Counts
    """the network cut after layer 1 to L, scores included; the last is full depth"""


class ExportedExits(TypedDict):
    """When a sample leaves after layer 1 to L-1; null: nobody leaves there."""

    thresholds: list[float | None]
    """of the largest score, or, where there are temperatures, of the largest softmax(scores / temperature)"""
    temperatures: list[Positive] | None


class ExportedEarlyExit(TypedDict):
    """The operating point that was chosen on validation, which early_exit.onnx has inside."""

    available: bool
    reason: str | None
    """why there is no early_exit.onnx"""
    rule: Literal["logit", "probability", "none"] | None
    k: float | None
    exits: ExportedExits | None


class Int8(TypedDict):
    """How the int8 graphs were calibrated."""

    available: bool
    reason: str | None
    images: AtLeast1 | None
    """of the validation split"""
    method: str | None
    largest_inputs: Numbers | None
    """absolute, of layer 1 to L"""


class Examples(TypedDict):
    """Test images in images.npy, and the class numbers that each graph must answer."""

    rows: Annotated[list[Count], Limits(minItems=1)]
    labels: Annotated[list[Count], Limits(minItems=1)]
    answers: dict[str, list[Count]]


class Versions(TypedDict):
    """Of what made the bundle."""

    onnx: Text
    onnxruntime: Text
    torch: Text


class BundleFile(TypedDict):
    """A file beside bundle.json."""

    file: Text
    graph: Annotated[str, Limits(pattern="^(full|early_exit|stage[1-9][0-9]*)$")] | None
    number_format: NumberFormat | None
    bytes: AtLeast1
    sha256: Annotated[str, Limits(pattern="^[0-9a-f]{64}$")]


class Bundle(TypedDict):
    """export/bundle.json. What an exported network is, how it is fed, and what each file of its bundle is. Written last
    by ff.export.bundle."""

    schema: Literal[1]
    run: Run
    config: Annotated[dict[str, Any], Limits(allOf="run config")]
    readout: ReadoutName
    input: Input
    labels: Annotated[list[Text], Limits(minItems=2)]
    normalisation: Normalisation
    parameters: AtLeast1
    macs: BundleMacs
    early_exit: ExportedEarlyExit
    int8: Int8
    tolerance: Positive
    """scores that differ by less differ by rounding"""
    examples: Examples
    opset: AtLeast1
    versions: Versions
    files: Annotated[list[BundleFile], Limits(minItems=1)]
