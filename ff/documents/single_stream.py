"""single_stream.json: latency and energy of one image after the other, after MLPerf Tiny."""

from typing import Annotated, Literal

from typing_extensions import TypedDict

from ff.documents.deployed import Runtime, RuntimeFacts
from ff.documents.values import AtLeast1, Limits, NotNegative, Positive, Run, Share, Text
from ff.documents.variance import Energy, MachineState, Versions


class StreamRun(TypedDict):
    """One image after the other without a pause, between two time stamps."""

    inferences: AtLeast1
    seconds: Positive


class StreamResult(TypedDict):
    """A network in a runtime on a device."""

    device: Text
    runtime: Runtime
    path: Literal["full", "exit"]
    """exit: by the operating point's exits"""
    test_accuracy: Share
    """of the function that is timed, one image at a time"""
    mean_layers: Annotated[float, Limits(minimum=1)]
    latency_ms: Positive
    """median of the runs"""
    inferences_per_s: Positive
    runs: Annotated[list[StreamRun], Limits(minItems=5)]
    energy: Energy | None
    """between the time stamps of the runs, gross and net of idle; null: no sensor"""
    before: MachineState
    after: MachineState


class StreamPower(TypedDict):
    """How power was read, or why not."""

    source: str | None
    reason: str | None


class SingleStream(TypedDict):
    """single_stream.json. Latency and energy of one image after the other, after MLPerf Tiny. Written by
    ff.measure.single_stream."""

    schema: Literal[1]
    run: Run
    protocol: Literal["single-stream", "quick"]
    conforms: bool
    """false: a trial, whose runs are too short to count"""
    batch_size: Literal[1]
    threads: AtLeast1
    warm_up_s: NotNegative
    versions: Annotated[Versions, Limits(additionalProperties={"type": ["string", "null"]})]
    power: StreamPower
    runtimes: Annotated[list[RuntimeFacts], Limits(minItems=1)]
    results: list[StreamResult]
