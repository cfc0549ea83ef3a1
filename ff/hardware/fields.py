"""The fields of a record of the hardware log and of `ff monitor --json`: unit, where they come from, what they mean.

docs/hardware.md shows them. Sources: Jetson Linux Developer Guide, "tegrastats Utility"; NVML API reference,
nvmlUtilization_t, nvmlDeviceGetPowerUsage; powercap of the Linux kernel. What a sensor does not say is left out or
None, never 0.
"""

from typing import NamedTuple

EVERY = "every"
"""In the place of a source: a field of all samples."""


class Field(NamedTuple):
    """A field of a sample: its unit ("" for none) and, by source, whether it is of now or a mean, and of what."""

    name: str
    unit: str
    meaning: dict[str, str]


FIELDS = (
    Field("kind", "", {EVERY: "`sample`; other records are `header`, `source` and `note`"}),
    Field("source", "", {EVERY: "who says it: `tegrastats`, `ina3221`, `nvml`, `rapl`, `psutil`, `monitor`"}),
    Field("monotonic_s", "s", {EVERY: "when it was read, on the clock that all processes of a boot share"}),
    Field("unix_s", "s", {EVERY: "when it was read, on the wall's clock"}),
    Field(
        "power_mw",
        "mW by rail",
        {
            "tegrastats": "now, the first number that it prints; rails as printed",
            "ina3221": "now: a conversion of the chip, steps of about 40 mW",
            "nvml": "now; on Ampere (but GA100) and newer without the instantaneous field a mean over 1 s: the record "
            "`source` says which",
            "rapl": "mean since the sample before",
        },
    ),
    Field(
        "energy_mj",
        "mJ by rail",
        {
            "nvml": "counted since the source was opened; the difference of two samples is exact",
            "rapl": "counted since the source was opened; the difference of two samples is exact",
        },
    ),
    Field(
        "cpu_percent",
        "% of each core",
        {
            "tegrastats": "as printed, relative to the clock that it prints; null: the core is off",
            "psutil": "mean since the sample before",
        },
    ),
    Field(
        "cpu_freq_mhz",
        "MHz of each core",
        {"tegrastats": "now; null: the core is off", "psutil": "now; each tenth sample where reading it is slow"},
    ),
    Field(
        "gpu_percent",
        "%",
        {
            "tegrastats": "as printed, relative to the clock that it prints",
            "nvml": "share of the last 1/6 to 1 s in which a kernel ran",
        },
    ),
    Field("gpu_freq_mhz", "MHz of each part", {"tegrastats": "now; null: the part is off", "nvml": "now"}),
    Field("gpu_memory_used_mb", "MB (2^20)", {"nvml": "now, of all processes"}),
    Field("gpu", "", {"nvml": "number of the GPU, as nvidia-smi counts"}),
    Field("ram_used_mb", "MB (2^20)", {"tegrastats": "now", "psutil": "now: total less available"}),
    Field("ram_total_mb", "MB (2^20)", {"tegrastats": "what the system has", "psutil": "what the system has"}),
    Field("swap_used_mb", "MB (2^20)", {"tegrastats": "now", "psutil": "now"}),
    Field("emc_percent", "%", {"tegrastats": "used memory bandwidth as printed, relative to the clock that it prints"}),
    Field("emc_freq_mhz", "MHz", {"tegrastats": "now"}),
    Field("engines", "% or MHz by engine", {"tegrastats": "now: load if it prints one, else clock; null: off"}),
    Field(
        "temperature_c",
        "C by sensor",
        {
            "tegrastats": "now",
            "nvml": "now",
            "psutil": "now; each tenth sample where reading it is slow",
        },
    ),
    Field("timestamp", "", {"tegrastats": "as printed, where it prints one"}),
    Field("raw", "", {"tegrastats": "the line as printed"}),
    Field(
        "shared_with",
        "",
        {EVERY: "other jobs of ff, of a GPU other processes, beside the job that is recorded; not of `monitor`"},
    ),
    Field(
        "monitor_cpu_percent",
        "% of one core",
        {
            "monitor": "processor time of `ff monitor` itself and of the tegrastats that it started, mean since the "
            "sample before"
        },
    ),
)


def table() -> list[str]:
    """The fields as the lines of a Markdown table."""
    lines = ["| field | unit | source | meaning |", "| --- | --- | --- | --- |"]
    for field in FIELDS:
        for number, (source, meaning) in enumerate(field.meaning.items()):
            name, unit = (f"`{field.name}`", field.unit) if number == 0 else ("", "")
            lines.append(f"| {name} | {unit} | {source} | {meaning} |")
    return lines
