"""`precision: auto`: bfloat16 products where they are faster and were shown to cost no accuracy, else float32.

What was shown is in precision.csv beside this file, a row for each network that was trained with five or more seeds in
both formats by a built-in recipe (`benchmarks/precision.py` writes it): the mean difference in validation accuracy,
bfloat16 minus float32, in points, and its 95 % interval over seeds, paired.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from ff.errors import FFError
from ff.learn.products import bfloat16_gain
from ff.learn.recipes import RECIPES
from ff.settings import RunConfig

EVIDENCE = Path(__file__).with_name("precision.csv")
# The interval must lie within so many points of 0 on either side: seeds of one network differ by more.
EQUAL_WITHIN_POINTS = 0.2
LEAST_SEEDS = 5
LEAST_GAIN = 1.1
# TF32 came with compute capability 8.0 (NVIDIA A100, whitepaper of 2020); older devices multiply in float32 instead.
TF32_FROM = (8, 0)


class Choice(NamedTuple):
    """A number format for the products, and why."""

    precision: str
    why: str


def choose(config: RunConfig, device: torch.device) -> Choice:
    """The precision of a run; that which `config` names, unless it says `auto`.

    Raises FFError for tf32 on a device that has none.
    """
    if config.precision == "tf32" and why_no_tf32(device):
        raise FFError(f"precision tf32 {why_no_tf32(device)}: take float32 or bfloat16")
    if config.precision != "auto":
        return Choice(config.precision, "asked for")
    row = _shown().get((config.dataset, config.layers_name, config.recipe))
    if row is None or config.settings != RECIPES[config.recipe]:
        return Choice("float32", "auto: bfloat16 was not tried on this network with these settings")
    seeds, low, high = int(row["seeds"]), float(row["low_points"]), float(row["high_points"])
    how = f"{seeds} seeds, paired, {row['epochs']} epochs"
    found = f"bfloat16 changes validation accuracy by [{low:+.2f}, {high:+.2f}] points ({how})"
    if seeds < LEAST_SEEDS or max(-low, high) > EQUAL_WITHIN_POINTS:
        return Choice("float32", f"auto: {found}, which is not shown equal")
    if device.type == "cpu" and bfloat16_gain() < LEAST_GAIN:
        return Choice("float32", "auto: bfloat16 is not faster on this processor")
    return Choice("bfloat16", f"auto: {found}")


def why_no_tf32(device: torch.device) -> str | None:
    """Why `device` does not round products to TF32, or None where it does."""
    if device.type != "cuda":
        return f"needs a CUDA device, and this run is on {device.type}"
    if torch.cuda.get_device_capability(device) < TF32_FROM:
        return f"needs a CUDA device of compute capability 8.0, and {torch.cuda.get_device_name(device)} is older"
    return None


@cache
def _shown() -> dict[tuple[str, str, str], dict[str, str]]:
    with open(EVIDENCE, newline="") as file:
        return {(row["dataset"], row["layers"], row["recipe"]): row for row in csv.DictReader(file)}
