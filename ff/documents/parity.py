"""export/parity.json: whether the graphs of a bundle answer as the trained network does."""

from typing import Annotated, Literal

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Count, Limits, NotNegative, Positive, Run, Share, Text

Difference = Annotated[float, Limits(minimum=-1, maximum=1)]


class AccuracyLoss(TypedDict):
    """Accuracy of the trained network less that of the graph, paired over the images, with its 95 % interval."""

    estimate: Difference
    low: Difference
    high: Difference
    method: Text


class Different(TypedDict):
    """A test image that the graph answers otherwise, or at another layer."""

    row: Count
    label: Count
    answer_torch: Count
    answer: Count
    layer_torch: AtLeast1
    """at which it left"""
    layer: AtLeast1
    margin: NotNegative
    """by how much the trained network's scores would have had to be others for another answer"""


class Path(TypedDict):
    """A way to answer with the graphs of a number format: at full depth, one by one with the graph that decides itself,
    or in batches stage by stage, with exits where there are any."""

    path: Literal["full", "early_exit", "stages"]
    number_format: Literal["float32", "int8"]
    n: AtLeast1
    accuracy_torch: Share
    accuracy: Share
    accuracy_loss: AccuracyLoss
    different: list[Different]


class Parity(TypedDict):
    """export/parity.json. Whether the graphs of a bundle answer as the trained network does. Written by
    ff.export.bundle."""

    schema: Literal[1]
    run: Run
    split: Literal["test"]
    tolerance: Positive
    """float32 graphs may differ where the margin is smaller"""
    onnxruntime: Text
    paths: Annotated[list[Path], Limits(minItems=2)]
