"""export/deployed.json: early exit of an exported network as it is deployed, in each runtime."""

from typing import Annotated, Literal

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Limits, Positive, Run, Share, Text
from ff.documents.variance import MachineState, Spread, Versions

Runtime = Literal["torch", "onnxruntime", "onnxruntime-int8", "tensorrt"]


class RuntimeFacts(TypedDict):
    """A runtime on a device, or why it is not measured there."""

    device: Text
    name: str | None
    runtime: Runtime
    available: bool
    reason: str | None


class Ratio(TypedDict):
    """Of times of the same repeats: the median with its 95 % interval; below 1 is faster."""

    estimate: Positive
    low: Positive | None
    high: Positive | None
    method: Text


class Way(TypedDict):
    """A way to answer at a batch size, on the test split."""

    device: Text
    runtime: Runtime
    path: Literal["cut", "exit"]
    depth: AtLeast1 | None
    """where the network is cut; null: by the exits of the operating point"""
    batch_size: AtLeast1
    is_reference_cut: Literal[0, 1]
    """1: the cheapest cut that is as accurate as full depth on validation, in this runtime"""
    val_accuracy: Share | None
    test_accuracy: Share
    mean_layers: Annotated[float, Limits(minimum=1)]
    """layers that an image goes through, on average"""
    time_ms: Spread
    """per image, over passes"""
    time_vs_cut: Ratio
    """against the reference cut of the same runtime"""
    time_vs_full: Ratio


class Deployed(TypedDict):
    """export/deployed.json. Early exit of an exported network as it is deployed, in each runtime. Written by
    ff.measure.deployed."""

    schema: Literal[1]
    run: Run
    bundle: Annotated[str, Limits(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of bundle.json"""
    split: Literal["test"]
    n: AtLeast1
    threads: AtLeast1
    """CPU threads, of every runtime"""
    repeats: AtLeast1
    samples: dict[str, AtLeast1]
    """of one timed pass, by batch size"""
    seed: int
    versions: Annotated[Versions, Limits(additionalProperties={"type": ["string", "null"]})]
    before: MachineState
    after: MachineState
    runtimes: Annotated[list[RuntimeFacts], Limits(minItems=1)]
    ways: list[Way]
