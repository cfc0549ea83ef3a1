"""evaluation.json: what a trained network is worth, by split, readout and depth; its layers; its confidence."""

from typing import Annotated, Literal

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Count, Limits, ReadoutName, Run, Share

Split = Literal["train", "val", "test"]
OF_EACH_CLASS = Limits(minItems="fewest classes", maxItems="most classes")


class Definitions(TypedDict):
    """What the words and numbers of this file mean."""

    negatives: str
    negatives_seed: int
    ece: str
    separation_auc: str
    paired_share: str
    sparsity: str
    dead_units: str


_Named = TypedDict("_Named", {"class": str})


class ClassScore(_Named):
    """Scores of one class; null where undefined."""

    n: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Score(TypedDict):
    """How often a readout is right at a depth; n samples."""

    split: Split
    readout: ReadoutName
    depth: AtLeast1
    n: AtLeast1
    accuracy: Share
    macro_f1: Share
    """mean of the F1 of the classes that occur, as truth or prediction"""
    error: Share


class Readout(Score):
    """The same with what each class says of it."""

    per_class: Annotated[list[ClassScore], OF_EACH_CLASS]
    confusion: Annotated[list[Annotated[list[Count], OF_EACH_CLASS]], OF_EACH_CLASS]
    """row: true class, column: predicted class"""
    ece: Share | None
    """expected calibration error; null for a readout that gives no probability"""


class Moments(TypedDict):
    """A distribution in five numbers."""

    mean: float
    std: float
    p5: float
    p50: float
    p95: float


class GoodnessGroups(TypedDict):
    """Goodness of inputs under the true label, under a wrong one, and without one."""

    positive: Moments | None
    negative: Moments | None
    neutral: Moments | None


class Layer(TypedDict):
    """One layer on the test split."""

    depth: AtLeast1
    width: AtLeast1
    sparsity: Share | None
    dead_units: Count | None
    goodness: GoodnessGroups
    separation_auc: Share | None
    paired_share: Share | None


class Confidence(TypedDict):
    """Largest logit and probability of a head, where it is right and where it is wrong."""

    split: Split
    depth: AtLeast1
    outcome: Literal["right", "wrong"]
    n: Count
    logit: Moments | None
    probability: Moments | None


class Evaluation(TypedDict):
    """evaluation.json. What a trained network is worth: scores by split, readout and depth; layers; confidence. Written
    by ff.assess.evaluation."""

    schema: Literal[1]
    run: Run
    classes: Annotated[list[str], OF_EACH_CLASS]
    definitions: Definitions
    readouts: list[Readout]
    layers: Annotated[list[Layer], Limits(minItems=1)]
    confidence: list[Confidence]
