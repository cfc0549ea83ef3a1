"""metrics.json: one finished training run: what was asked, what came out, what it cost, where it ran."""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from ff.documents.evaluation import Score
from ff.documents.values import AtLeast1, Count, Limits, NotNegative, Positive, ProductsLibrary, Run, Text

_Import = TypedDict("_Import", {"import": NotNegative})


class Seconds(_Import):
    """Wall time of the processes that had a share in the run; beside these, training of each phase of the rule."""

    load: NotNegative
    validation: NotNegative
    """after each epoch"""
    evaluation: NotNegative
    """scoring"""
    write: NotNegative
    idle: NotNegative
    """windows in which idle power was measured"""
    other: NotNegative
    """the rest of total"""
    total: NotNegative


class PeakMemory(TypedDict):
    """Highest use in MB (2^20 bytes) of the process and of the device's tensors."""

    host: Positive
    device: Positive | None


class Packages(TypedDict):
    """Versions of the packages that compute."""

    torch: Text
    numpy: Text


class DataOrigin(TypedDict):
    """What the run was trained on."""

    content: Annotated[str, Limits(pattern="^[0-9a-f]{64}$")]
    """hash of the images and labels"""
    verified: bool
    """whether they came from the official files"""


class Provenance(TypedDict):
    """Which code, machine and data made the run."""

    git_commit: Annotated[str, Limits(pattern="^[0-9a-f]{40}$")] | None
    git_dirty: bool | None
    code_hash: Annotated[str, Limits(pattern="^[0-9a-f]{12}$")]
    python: Text
    packages: Annotated[Packages, Limits(additionalProperties={"type": "string", "minLength": 1})]
    platform: Text
    machine: dict[str, Any]
    data: DataOrigin
    device: Text
    cuda_graph: bool
    """whether training steps were launched as CUDA graphs"""
    threads: AtLeast1
    float32_products: ProductsLibrary
    why_precision: Text
    """why the products are in the number format that config names"""
    started_at: Annotated[str, Limits(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    group_seeds: Annotated[list[Count], Limits(minItems=1, uniqueItems=True)]
    warnings: list[Text]


class Metrics(TypedDict):
    """metrics.json. One finished training run: what was asked, what came out, what it cost, where it ran. Written last
    by ff.learn.run."""

    schema: Literal[1]
    config: Annotated[dict[str, Any], Limits(allOf="run config")]
    run: Run
    final: Annotated[dict[str, Any], Limits(allOf="final accuracies")]
    """accuracies at full depth; null where there is no such split or readout"""
    results: Annotated[list[Score], Limits(minItems=2)]
    seconds: Annotated[Seconds, Limits(patternProperties="phase", oneOf="phases of one rule")]
    shared_by_seeds: AtLeast1
    """how many runs shared the seconds, the memory and the energy: they are those of the whole group"""
    samples_per_s: Annotated[dict[str, Any], Limits(oneOf="rates of one rule")]
    """training samples of all seeds of the group by the seconds of training alone, by phase; null where a phase has no
    epochs"""
    parameters: AtLeast1
    macs_per_sample: Annotated[dict[str, Any], Limits(anyOf="macs of one rule")]
    """multiply-accumulates"""
    peak_memory_mb: PeakMemory
    resumed_from_epoch: AtLeast1 | None
    provenance: Provenance
