"""hardware.json: what the recorder saw beside one job.

Times in s, power in mW, energy in mJ. All intervals are 95 %. `ff.hardware.attribution` gives the formulas.
"""

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ff.documents.values import AtLeast1, Count, Limits, NotNegative, Stamp


class Machine(TypedDict):
    """The machine as of the last attempt, as `ff.hardware.machine` describes it."""

    model: NotRequired[str | None]
    cpu: NotRequired[dict[str, Any]]
    gpus: NotRequired[list[dict[str, Any]]]
    l4t: NotRequired[str | None]
    jetpack: NotRequired[str | None]
    nvpmodel: NotRequired[dict[str, Any] | None]
    jetson_clocks: NotRequired[bool | None]
    temperature_c: NotRequired[dict[str, float]]


class PowerMethod(TypedDict):
    """How a source reads power, and how often it has something new."""

    source: str
    method: str | None
    period_s: float | None


class MissingSource(TypedDict):
    """A source that was not there, or failed."""

    source: str
    reason: str


class Sources(TypedDict):
    """Where the samples come from."""

    used: list[str]
    power: list[PowerMethod]
    missing: list[MissingSource]


class AttemptRow(TypedDict):
    """One start of the recorder."""

    started_unix_s: float | None
    boot_id: str | None
    pid: int | None
    mode: str | None
    interval_ms: float | None
    samples: Count
    ended: str | None
    """null: it was killed, or still runs"""


class Gap(TypedDict):
    """A time on the monotonic clock without a power reading for more than three intervals."""

    start_s: float
    end_s: float


class RailPower(TypedDict):
    """Idle power of a rail: mean of n sub-windows of the idle windows, and its interval."""

    power_mw: float
    low_mw: float | None
    high_mw: float | None
    n: AtLeast1
    method: str


class TotalPower(RailPower):
    """The same of the rails of the total together."""

    rail: str


class Idle(TypedDict):
    """Power in the windows idle_before and idle_after; without any, nothing is idle and net energy is null."""

    before: dict[str, float] | None
    after: dict[str, float] | None
    windows: Count
    rails: dict[str, RailPower]
    total: TotalPower | None
    """null where its rails were not all measured in one window"""


class _Energy(TypedDict):
    gross_low_mj: float | None
    gross_high_mj: float | None
    net_mj: float | None
    net_low_mj: float | None
    net_high_mj: float | None
    method: str | None
    """how the interval of gross was made, or why there is none"""
    shared: bool | None
    """whether something else ran on the device at the time; null where that is not known"""


class RailEnergy(_Energy):
    """What a rail took: gross, and net of idle power."""

    gross_mj: float | None


class TotalEnergy(_Energy):
    """What the machine took."""

    gross_mj: float
    rail: str
    """the input rail, or: sum of rails"""
    rails: list[str]
    """the rails that were added"""


class Part(TypedDict):
    """The energy of a phase."""

    seconds: NotNegative
    covered_s: NotNegative
    """of them, those that were measured"""
    windows: AtLeast1
    """what the interval is made of: rows of phases.csv, short ones put together"""
    rails: dict[str, RailEnergy]
    total: TotalEnergy | None
    shared: bool | None
    shared_with: list[str]
    """other jobs of ff on the machine, other processes on a GPU"""


class RunPart(Part):
    """The energy of all phases together; a rail, or the total, is null where a phase of it was not measured."""

    phases: list[str]


class Hardware(TypedDict):
    """What the recorder saw beside one job; what was not measured is null or absent, never 0. Times in s, power in mW,
    energy in mJ, 95 % intervals. Written by ff.hardware.summary; ff.hardware.attribution gives the formulas."""

    schema: Literal[1]
    model: Stamp | None
    """the model that the job made, as phases.csv names it; null where it made none"""
    machine: Annotated[Machine, Limits(additionalProperties=True)] | None
    """null when there is no log"""
    sources: Sources
    attempts: list[AttemptRow]
    samples: Count
    duration_s: NotNegative
    interval_ms: float | None
    gaps: list[Gap]
    idle: Idle
    energy: dict[str, Part] | None
    """per phase, idle windows left out; null where no power was measured or no phase is known"""
    run_energy: RunPart | None
    notes: list[str]
    """what went wrong, in order"""
