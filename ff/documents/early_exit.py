"""early_exit.json: calibration, the network cut after each layer, and the operating point chosen on validation.

Savings are shares against full depth (vs_full) and against the reference cut (vs_cut). L is the number of layers.
"""

from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Limits, NotNegative, Positive, Run, Saving, Share

OF_EACH_LAYER = Limits(minItems=1)


class CurvePoint(TypedDict):
    """What an exit rule, or the network cut at `depth`, gives on a split: one row of early_exit.csv."""

    rule: Literal["logit", "probability", "static"]
    k: float | None
    depth: AtLeast1 | None
    """where the network is cut; null: nowhere"""
    is_reference_cut: Literal[0, 1]
    threshold: float | None
    split: Literal["val", "test"]
    n: AtLeast1
    accuracy: Share
    macro_f1: Share
    mean_layers: Annotated[float, Limits(minimum=1)]
    """layers that a sample goes through, on average"""
    macs_ff: NotNegative
    macs_heads: NotNegative
    macs_total: NotNegative
    macs_saved_share_vs_cut: Saving
    macs_saved_share_vs_full: Saving
    share_exit_1: Share
    """samples that leave after layer 1; share_exit_2 to L are the others"""
    time_ms_batch_1: NotRequired[Positive | None]
    """milliseconds per sample in batches of 1; null: not timed"""
    time_ms_batch_32: NotRequired[Positive | None]
    time_ms_batch_512: NotRequired[Positive | None]
    time_saved_share_vs_cut_batch_1: NotRequired[Saving | None]
    time_saved_share_vs_cut_batch_32: NotRequired[Saving | None]
    time_saved_share_vs_cut_batch_512: NotRequired[Saving | None]
    time_saved_share_vs_full_batch_1: NotRequired[Saving | None]
    time_saved_share_vs_full_batch_32: NotRequired[Saving | None]
    time_saved_share_vs_full_batch_512: NotRequired[Saving | None]


Point = Annotated[
    CurvePoint,
    Limits(patternProperties={"^share_exit_[1-9][0-9]*$": {"type": "number", "minimum": 0, "maximum": 1}}),
]


class Calibration(TypedDict):
    """The heads' logits on validation, heads 1 to L; null where a head says nothing."""

    split: Literal["val"]
    n: AtLeast1
    mu: Annotated[list[float | None], OF_EACH_LAYER]
    sigma: Annotated[list[float | None], OF_EACH_LAYER]
    classes_used: Annotated[list[Annotated[int, Limits(minimum=0, maximum="most classes")]], OF_EACH_LAYER]
    temperature: Annotated[list[Positive | None], OF_EACH_LAYER]


class RuleTexts(TypedDict):
    """The exit rules in words."""

    logit: str
    probability: str
    static: str


class Macs(TypedDict):
    """Multiply-accumulates of a sample."""

    ff: Annotated[list[AtLeast1], OF_EACH_LAYER]
    """layers 1 to L"""
    heads: Annotated[list[AtLeast1], OF_EACH_LAYER]
    """heads 1 to L"""
    cuts: Annotated[list[AtLeast1], OF_EACH_LAYER]
    """the network cut after layer 1 to L: its layers and its head; the last is full depth"""


class Cut(TypedDict):
    """The network cut after a layer."""

    depth: AtLeast1
    val: Point
    test: Point


class ReferenceCut(TypedDict):
    """What a saving is counted against."""

    depth: AtLeast1
    choice: str


class OperatingPoint(TypedDict):
    """The rule that was chosen on validation."""

    rule: Literal["logit", "probability", "none"]
    k: float | None
    choice: str
    thresholds: list[float | None]
    """layers 1 to L-1; null: nobody leaves there"""
    val: Point
    test: Point


class Timing(TypedDict):
    """How the times were measured."""

    device: str
    threads: AtLeast1
    repeats: AtLeast1
    repeats_static_cuts_and_operating_point: AtLeast1
    samples: dict[str, AtLeast1]
    """of one timed pass, by batch size"""
    seed: int
    statistic: str


class _Head(TypedDict):
    schema: Literal[2]
    run: Run


class EarlyExitFound(_Head):
    """Early exit of a run that has a validation split."""

    available: Literal[True]
    reason: None
    rules: RuleTexts
    macs: Macs
    calibration: Calibration
    static_cuts: Annotated[list[Cut], OF_EACH_LAYER]
    """the network cut after layer 1 to L; the last is full depth"""
    reference_cut: ReferenceCut
    operating_point: OperatingPoint
    timing: Timing


class NoEarlyExit(_Head):
    """Why there is none."""

    available: Literal[False]
    reason: str
    calibration: None
    reference_cut: None
    operating_point: None


EarlyExit = EarlyExitFound | NoEarlyExit
