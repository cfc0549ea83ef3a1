"""`ff measure`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ff.arguments import add_options, execution_of
from ff.commands.runs import add_run_arguments, named_runs, opened_runs
from ff.errors import FFError
from ff.imports import heavy_imports
from ff.settings import ExecutionConfig, MeasureConfig


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
    wanted = (args.devices, execution.device, execution.no_cuda)
    with heavy_imports():
        # Here and not in the forks that measure, which need not import them again.
        from ff.measure import agreement, apart, devices, protocol, run  # noqa: F401

    for folder in folders:
        # A process of its own, as in the workflow: what is measured, memory above all, is then the same.
        given = (execution, wanted, threads, batch_sizes, args.repeats, args.energy_windows)
        found = apart.apart(_measure, folder, *given)
        print("\n".join(found))


def _measure(
    folder: Path,
    execution: ExecutionConfig,
    wanted: tuple[Sequence[str] | None, str, bool],
    threads: Sequence[str],
    batch_sizes: Sequence[int],
    repeats: int,
    energy_windows: int,
) -> list[str]:
    """Measure one run on the `wanted` devices; gives what there is to say of it. No GPU is looked for before this."""
    from ff.files import read_json
    from ff.layout import MEASURE_FOLDER, file_stem
    from ff.measure.agreement import run_agreement
    from ff.measure.devices import choose_devices
    from ff.measure.protocol import Times
    from ff.measure.run import run_measurement

    devices, lines = choose_devices(*wanted), []
    for _, config, prepared in opened_runs([folder], execution):
        run_measurement(folder, prepared, devices, threads, batch_sizes, Times(repeats), energy_windows)
        if len(devices) > 1:
            run_agreement(folder, prepared, devices)
        for device in devices:
            content = read_json(folder / MEASURE_FOLDER / f"{file_stem(device)}.json")
            if not content["device"]["available"]:
                lines.append(f"{config.name}: {device}: not measured: {content['device']['reason']}")
            lines += [f"{config.name}: {device} {_measured(row)}" for row in content["batches"]]
    return lines


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
