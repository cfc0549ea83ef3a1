"""`ff measure`."""

import argparse
from typing import Any

from ff.arguments import add_options, execution_of
from ff.commands.runs import add_run_arguments, named_runs, opened_runs
from ff.errors import FFError
from ff.imports import heavy_imports
from ff.settings import MeasureConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff measure`; --threads is its own, since a training's is a single number."""
    add_run_arguments(parser, without=("threads",))
    parser.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="what to measure on: cpu, cuda, cuda:N. Precedence: --no-cuda, then --devices, then --device; a device "
        "that is named must be there [cpu, and cuda where there is one]",
    )
    add_options(parser, MeasureConfig, ("threads", "batch_sizes", "repeats", "energy_windows"))


def run(args: argparse.Namespace) -> None:
    """Measure latency, throughput and energy of trained runs, and print what was measured."""
    try:
        batch_sizes = [int(size) for size in args.batch_sizes.split(",")]
    except ValueError:
        raise FFError(f"--batch-sizes must be numbers separated by commas, not {args.batch_sizes!r}") from None
    threads = args.threads.split(",")
    del args.threads  # a setting of training by that name is a single number
    folders, execution = named_runs(args), execution_of(args)
    from ff.files import read_json
    from ff.layout import MEASURE_FOLDER, file_stem

    with heavy_imports():
        from ff.measure.agreement import run_agreement
        from ff.measure.devices import choose_devices
        from ff.measure.protocol import Times
        from ff.measure.run import run_measurement

    devices = choose_devices(args.devices, execution.device, execution.no_cuda)
    for folder, config, prepared in opened_runs(folders, execution):
        times = Times(args.repeats)
        run_measurement(folder, prepared, devices, threads, batch_sizes, times, args.energy_windows)
        if len(devices) > 1:
            run_agreement(folder, prepared, devices)
        for device in devices:
            content = read_json(folder / MEASURE_FOLDER / f"{file_stem(device)}.json")
            if not content["device"]["available"]:
                print(f"{config.name}: {device}: not measured: {content['device']['reason']}")
            for row in content["batches"]:
                print(f"{config.name}: {device} {_measured(row)}")


def _measured(row: dict[str, Any]) -> str:
    """What was measured of one path and batch size, in a line."""
    time, queued, energy = row["latency_ms"], row["throughput_queued_per_s"], row["energy"]
    text = (
        f"({row['threads']} CPU thread{'s' * (row['threads'] > 1)}) {row['path']}, batch {row['batch_size']}: median "
        f"{time['median']:.3f} ms (p5 {time['p5']:.3f}, p95 {time['p95']:.3f}), "
        f"{row['throughput_synchronised_per_s']['median']:.0f} samples/s synchronised"
    )
    if queued:
        text += f", {queued['median']:.0f} samples/s queued"
    if energy and energy["total"]:
        gross, net = energy["total"]["gross_mj_per_sample"], energy["total"]["net_mj_per_sample"]
        text += f", {gross['mean']:.3g} mJ a sample" + (f" ({net['mean']:.3g} mJ above idle)" if net else "")
    return text
