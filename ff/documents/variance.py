"""variance/{device}.json, variance/runtimes/{device}_{runtime}.json: latency, throughput, memory and energy of a run.

The raw repeats are in the CSV file beside it. Times in ms or s, power in mW, energy in mJ; intervals are 95 %.
"""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Count, Limits, NotNegative, Positive, ProductsLibrary, Run


class DeviceThere(TypedDict):
    """A device that was measured."""

    name: str | None
    kind: str
    available: Literal[True]
    reason: None


class DeviceMissing(TypedDict):
    """A device that is not there."""

    name: None
    kind: str
    available: Literal[False]
    reason: str


class MachineState(TypedDict):
    """What can change the speed between two moments."""

    clocks_mhz: dict[str, Any]
    governor: dict[str, str]
    power_mode: str | None
    jetson_clocks: bool | None
    temperature_c: dict[str, float]


class Versions(TypedDict):
    """Versions of what computes; null: not there."""

    python: str
    torch: str
    ff: str


class Interval(TypedDict):
    """A mean with its 95 % interval; method says which."""

    n: AtLeast1
    mean: float
    low: float | None
    high: float | None
    method: str


class IdlePower(TypedDict):
    """Idle power in mW over its windows."""

    total: Interval | None
    rails: dict[str, Interval | None]
    windows_mw: Annotated[list[float | None], Limits(minItems=2)]
    """the total of each window; null: the sensor failed"""


class PowerSensor(TypedDict):
    """How power was read, or why not."""

    source: str | None
    period_s: Positive | None
    reason: str | None
    idle_mw: IdlePower | None
    """null: no energy was measured"""


class Conditions(TypedDict):
    """What the numbers were measured with."""

    threads: list[AtLeast1]
    """CPU threads that this device was measured with; a GPU is fed by one"""
    cores: AtLeast1
    """cores that the process may use: `all` threads"""
    matmul_precision: str
    float32_products: ProductsLibrary
    versions: Annotated[Versions, Limits(additionalProperties={"type": ["string", "null"]})]
    before: MachineState
    after: MachineState
    power: PowerSensor


class TimesAskedFor(TypedDict):
    """What was asked for; a device measured alone has one round."""

    repeats: AtLeast1
    single_samples: AtLeast1
    rounds: AtLeast1
    queued_windows: AtLeast1
    warm_up_s: NotNegative


class Spread(TypedDict):
    """Milliseconds: median with its 95 % interval (low, high), and percentiles of the repeats."""

    median: NotNegative
    p5: NotNegative
    p95: NotNegative
    low: NotNegative | None
    high: NotNegative | None
    method: str


class Throughput(TypedDict):
    """Samples/s: a median with its interval."""

    median: Positive | None
    low: Positive | None
    high: Positive | None


class QueuedWindow(TypedDict):
    """A window of batches back to back; order: its place among all that was timed."""

    order: Count
    batches: AtLeast1
    seconds: Positive
    samples_per_s: Positive


class QueuedThroughput(TypedDict):
    """Samples/s: the median over the windows with its interval."""

    median: Positive
    low: Positive | None
    high: Positive | None
    method: str
    windows: Annotated[list[QueuedWindow], Limits(minItems=1)]


class EnergyWindow(TypedDict):
    """The total in one window of repeated work."""

    order: Count
    """place among all energy windows"""
    rail: str
    window_s: Positive
    inferences: AtLeast1
    """samples answered in the window"""
    readings: AtLeast1
    """readings of the sensor in the window"""
    power_mw: float
    idle_mw: float | None
    gross_mj_per_sample: float
    net_mj_per_sample: float | None


class RailEnergy(TypedDict):
    """One rail, or the total, over the windows of a cell."""

    rail: str
    gross_mj_per_sample: Interval
    net_mj_per_sample: Interval | None
    power_mw: Interval
    idle_mw: Interval | None


class Energy(TypedDict):
    """Energy of a sample, over windows of repeated work."""

    total: RailEnergy | None
    """null where a rail that is part of the total failed"""
    rails: dict[str, RailEnergy]
    windows: list[EnergyWindow]
    """the total of each window"""
    shared: list[str] | None
    """who else used the devices in the windows; null: the sensor does not say"""


class Batch(TypedDict):
    """One thread count, path and batch size."""

    threads: AtLeast1
    path: Literal["deploy", "end_to_end"]
    batch_size: AtLeast1
    n_repeats: AtLeast1
    latency_ms: Spread
    """on the host's clock"""
    device_ms: Spread | None
    """between two events of the device, where it has them"""
    throughput_synchronised_per_s: Throughput
    """batch size / latency: each answer is waited for before the next batch is handed over"""
    throughput_queued_per_s: QueuedThroughput | None
    """batches handed over back to back, one wait at the end; deploy path only"""
    peak_memory_mb: Positive | None
    energy: Energy | None


class Variance(TypedDict):
    """Latency, throughput, memory and energy of a run on one device, in one runtime. Written by ff.measure.run."""

    schema: Literal[3]
    run: Run
    device: DeviceThere | DeviceMissing
    runtime: Literal["torch", "onnxruntime", "onnxruntime-int8", "tensorrt"]
    file_bytes: AtLeast1 | None
    """of the network's file; null: not there"""
    conditions: Conditions
    seed: int
    """draws the order and the images"""
    times: TimesAskedFor
    measured_together: list[str]
    """devices that were measured in the same rounds"""
    peak_memory_source: str | None
    batches: list[Batch]
