"""What all benchmarks here share: sides timed in turns, medians, a table, and a JSON file with the machine in it."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ff.data.images import Images, Part, standardise
from ff.data.registry import DATASETS
from ff.learn.products import choose_library, library
from ff.learn.recipes import make_run_config
from ff.learn.trainer import Trainer
from ff.settings import RunConfig


def seconds(sides: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, float]:
    """Median seconds of a call of each side. All are called once untimed, then in turns, so that a machine that slows
    down slows all of them."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    found: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, call in sides.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            if repeat:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all benchmarks of training have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed turns (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine there too")
    return parser


def made_images(config: RunConfig, device: str = "cpu", count: int = 20_000) -> Images:
    """Random images of the shape of the config's data set: products do not care what they multiply."""
    facts, generator = DATASETS[config.dataset], torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *facts.shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, config.classes, (count,), generator=generator, dtype=torch.uint8)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    return standardise(Part(images, labels), facts, device, dtype)


def made_trainer(seeds: Sequence[int] = (0,), device: str = "cpu", **values: Any) -> Trainer:
    """A trainer of made images."""
    dataset = "CIFAR10" if str(values["layers"]).startswith("3072") else "MNIST"
    config = make_run_config({"dataset": dataset, "val_size": 1000, **values})[0]
    return Trainer(config, seeds, made_images(config, device))


def report(
    rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], path: Path | None, formats: Mapping[str, str]
) -> None:
    """Print `rows` as a table of the columns in `formats`, and write them with `about` and the machine as JSON."""
    cells = [
        [format(row[name], kind) if row[name] is not None else "" for name, kind in formats.items()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(formats, *cells, strict=True)]
    for line in [list(formats), *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"about": about, "machine": machine(), "rows": list(rows)}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "float32_products": library(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def begin(threads: int) -> None:
    """Set the number of threads and choose the library of the products, as every training does."""
    torch.set_num_threads(threads)
    choose_library()
