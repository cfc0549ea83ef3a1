"""variance/agreement.json: whether two devices answer the same."""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from ff.documents.values import Count, Limits, NotNegative, Run, Share


class _Head(TypedDict):
    schema: Literal[1]
    run: Run
    devices: Annotated[list[str], Limits(minItems=1, maxItems=2)]


class Differing(TypedDict):
    """A test image that two devices answer differently; margin_{device}: its largest logit less the second largest."""

    index: Count


class Comparison(TypedDict):
    """The answers of two devices; n test images, null shares where n is 0."""

    n: Count
    same_predictions_share: Share | None
    max_logit_difference: NotNegative | None
    differing: list[
        Annotated[Differing, Limits(patternProperties={"^margin_[A-Za-z0-9_]+$": {"type": "number", "minimum": 0}})]
    ]


class NoComparison(TypedDict):
    """Nothing was compared."""

    n: None
    same_predictions_share: None
    max_logit_difference: None
    differing: Annotated[list[Any], Limits(maxItems=0)]


class Compared(_Head, Comparison):
    """Whether two devices answer the same."""

    available: Literal[True]
    reason: None


class NotCompared(_Head, NoComparison):
    """Why two devices were not compared."""

    available: Literal[False]
    reason: str


Agreement = Compared | NotCompared
"""variance/agreement.json. Whether two devices answer the same. Written by ff.measure.agreement."""
