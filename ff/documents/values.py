"""Types of single values and their ranges, and the run that a document is about."""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict


class Limits:
    """Keywords of JSON Schema that an annotated value keeps to, beside its type.

    Where a registry of a higher floor says it, such as the names of learning rules' phases, it is given by a name that
    `ff.schemas` looks up: Limits(enum="datasets").
    """

    def __init__(self, **keywords: Any):
        self.keywords = keywords

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Called by pydantic, which `ff.schemas` uses; what stands in $defs is changed there."""
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema).update(self.keywords)
        return schema


Share = Annotated[float, Limits(minimum=0, maximum=1)]
Saving = Annotated[float, Limits(maximum=1)]
"""A share; negative where it costs more."""
NotNegative = Annotated[float, Limits(minimum=0)]
Positive = Annotated[float, Limits(exclusiveMinimum=0)]
Count = Annotated[int, Limits(minimum=0)]
AtLeast1 = Annotated[int, Limits(minimum=1)]
Text = Annotated[str, Limits(minLength=1)]

DatasetName = Annotated[str, Limits(enum="datasets")]
RecipeName = Annotated[str, Limits(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]*$")]
ReadoutName = Annotated[str, Limits(enum="readouts")]
Stamp = Annotated[str, Limits(pattern="^[0-9a-f]{16}$")]
"""Of a model: a hash of its config and weights (`ff.stamps`)."""

ProductsLibrary = Literal["default", "onednn"]
"""The library in PyTorch that multiplies large float32 matrices on a CPU (`ff.learn.products`)."""


class Run(TypedDict):
    """The run that a document is about."""

    name: Annotated[str, Limits(pattern="^[^/]+/[0-9-]+/[^/]+/seed[0-9]+$")]
    """its folder below the results folder"""
    dataset: DatasetName
    layers: Annotated[str, Limits(pattern="^[1-9][0-9]*(-[1-9][0-9]*)+$")]
    """as in a path"""
    recipe: RecipeName
    seed: Count
    model: Stamp
    """stamp of the model: a hash of its config and weights"""
