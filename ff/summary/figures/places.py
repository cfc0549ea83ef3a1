"""Where a network was measured: a device, and on the CPU a number of threads, each of which is a place of its own."""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from ff.summary.figures import style

LOOKS = {"cpu": style.Look(style.VERMILION, "o", "-", ""), "cuda": style.Look(style.BLUE, "s", "--", "///")}
OTHER = style.Look(style.GREEN, "D", "-.", "")
PATHS = {
    "deploy": "head readout, inputs already on the device",
    "end_to_end": "end to end with the transfer of the inputs",
}
NOT_MEASURED = "no run has been measured yet: variance/*.csv is missing"
NO_SENSOR = "no power sensor could be read on this machine, so energy and power were not measured"
LONGEST_NAME = 34


class Place(NamedTuple):
    """A device; `threads` on the CPU (None on a GPU, and where the device is missing)."""

    device: str
    threads: int | None = None

    @property
    def label(self) -> str:
        return self.device if self.threads is None else f"{self.device}, {threads_text(self.threads)}"

    @property
    def look(self) -> style.Look:
        return LOOKS.get(self.device, OTHER)

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that were measured here."""
        rows = frame[frame["device"] == self.device]
        return rows if self.threads is None else rows[rows["threads"] == self.threads]

    def title(self, devices: pd.DataFrame) -> str:
        """The label with the name of the hardware, where that is short."""
        names = list(devices[devices["device"] == self.device]["name"].dropna()) if len(devices) else []
        named = f"{self.device} ({names[0]})" if names and len(str(names[0])) <= LONGEST_NAME else None
        return self.label.replace(self.device, named, 1) if named else self.label

    def why_not(self, devices: pd.DataFrame, otherwise: str = "not measured") -> str:
        """Why there is nothing from here."""
        gone = devices[(devices["device"] == self.device) & (devices["available"] == 0)] if len(devices) else devices
        reasons = list(gone["reason"].dropna()) if len(gone) else []
        return f"{self.label}: {reasons[0] if reasons else otherwise}"


def threads_text(threads: int) -> str:
    """`1 thread`, `4 threads`."""
    return f"{int(threads)} thread{'s' * (int(threads) != 1)}"


def places(frame: pd.DataFrame, devices: pd.DataFrame) -> list[Place]:
    """Places in a frame with `device` and `threads`, then devices that were asked for and have none; the CPU first."""
    found = {
        Place(device, int(threads) if device == "cpu" else None)
        for device, threads in frame[["device", "threads"]].drop_duplicates().itertuples(index=False)
    }
    asked = style.unique(devices["device"]) if len(devices) else []
    found |= {Place(device) for device in asked if device not in {place.device for place in found}}
    return sorted(found, key=lambda place: (place.device != "cpu", place.device, place.threads or 0))


def why_unmeasured(devices: pd.DataFrame) -> str:
    """Why no run has been measured, with the reasons of the devices that were asked for."""
    gone = devices[devices["available"] == 0].drop_duplicates("device") if len(devices) else devices
    return "; ".join([NOT_MEASURED, *(f"{row.device}: {row.reason}" for row in gone.itertuples())])


def why_nothing_to_compare(devices: pd.DataFrame) -> str:
    """Why there is no speed-up."""
    gone = devices[devices["available"] == 0] if len(devices) else devices
    if len(gone):
        return f"nothing to compare: {gone.iloc[0]['device']}: {gone.iloc[0]['reason']}"
    there = style.unique(devices["device"]) if len(devices) else []
    if not there:
        return f"nothing to compare: {NOT_MEASURED}"
    if len(there) == 1:
        return f"nothing to compare: only {there[0]} was measured; measure on cpu and cuda"
    return f"nothing to compare: {' and '.join(there)} share no run, path and batch size that both were measured with"


def why_no_column(column: str, devices: pd.DataFrame) -> str:
    """Why a quantity was not measured where others were."""
    if column not in ("net_mj_per_sample", "power_mw"):
        return "it was not measured on this machine"
    reasons = list(devices["power_reason"].dropna()) if len(devices) else []
    return f"{NO_SENSOR} ({reasons[0]})" if reasons else NO_SENSOR


def span(counts: Iterable) -> str:
    """`50`, or `50 to 100`."""
    counts = [int(count) for count in counts]
    if not counts:
        return "0"
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def deployed(frame: pd.DataFrame) -> pd.DataFrame:
    """The deploy path of one recipe: latency depends on the network, so one recipe stands for all."""
    if "path" in frame and len(frame):
        frame = frame[frame["path"] == "deploy"]
    return frame[frame["recipe"] == style.main_recipe(frame["recipe"])] if len(frame) else frame
