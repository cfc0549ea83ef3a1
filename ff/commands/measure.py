"""`ff measure`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff.arguments import add_options, execution_of
from ff.commands.runs import add_run_arguments, named_runs, opened_runs
from ff.errors import FFError
from ff.imports import heavy_imports
from ff.settings import ExecutionConfig, MeasureConfig

if TYPE_CHECKING:
    from ff.data.prepared import Prepared

RUNTIMES = next(field for field in fields(MeasureConfig) if field.name == "runtimes").metadata["choices"]


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
    parser.add_argument(
        "--runtimes",
        nargs="+",
        choices=RUNTIMES,
        metavar="RUNTIME",
        help=f"what computes: {', '.join(RUNTIMES)}; others than torch take exported runs (ff export) [torch]",
    )
    parser.add_argument(
        "--power-modes",
        nargs="+",
        type=int,
        default=MeasureConfig.power_modes,
        metavar="N",
        help="of a Jetson, by nvpmodel's numbers: measure in each of them too, and put back the one that is on; takes "
        "root, or sudo that asks for no password",
    )
    parser.add_argument(
        "--deployed",
        action="store_true",
        help="instead: early exit of exported runs as it is deployed, in each runtime, beside network cuts",
    )
    parser.add_argument(
        "--protocol",
        choices=("single-stream", "quick"),
        help="instead: one image after the other, five runs of 10 s or more and their median, after MLPerf Tiny; "
        "quick: the same in a moment, to try it",
    )
    add_options(parser, MeasureConfig, ("threads", "batch_sizes", "repeats", "energy_windows", "early_exit_repeats"))


def run(args: argparse.Namespace) -> None:
    """Measure latency, throughput and energy of trained runs, and print what was measured."""
    try:
        batch_sizes = [int(size) for size in args.batch_sizes.split(",")]
    except ValueError:
        raise FFError(f"--batch-sizes must be numbers separated by commas, not {args.batch_sizes!r}") from None
    threads = args.threads.split(",")
    del args.threads  # a setting of training by that name is a single number
    folders, execution = named_runs(args), execution_of(args)
    with heavy_imports():
        # Here and not in the forks that measure, which need not import them again.
        from ff.measure import agreement, apart, deployed, devices, protocol, run, single_stream  # noqa: F401

    for folder in folders:
        # A process of its own, as in the workflow: what is measured, memory above all, is then the same.
        found = apart.apart(_measure, folder, execution, args, threads, batch_sizes)
        print("\n".join(found))


def _measure(
    folder: Path,
    execution: ExecutionConfig,
    args: argparse.Namespace,
    threads: Sequence[str],
    batch_sizes: Sequence[int],
) -> list[str]:
    """Measure one run as the command line says; gives what there is to say of it. No GPU is looked for before this."""
    from ff.files import read_json
    from ff.layout import EXPORT_FOLDER, SINGLE_STREAM_FILE
    from ff.measure.deployed import run_deployed
    from ff.measure.devices import choose_devices
    from ff.measure.single_stream import run_single_stream

    devices = choose_devices(args.devices, execution.device, execution.no_cuda)
    found = []
    for _, config, prepared in opened_runs([folder], execution):
        if args.protocol:
            runtimes = args.runtimes or MeasureConfig.runtimes
            run_single_stream(folder, prepared, args.protocol, devices, runtimes, threads)
            lines = stream_lines(read_json(folder / SINGLE_STREAM_FILE))
        elif args.deployed:
            runtimes = args.runtimes or RUNTIMES[:3]
            run_deployed(folder, prepared, devices, runtimes, threads, args.early_exit_repeats)
            lines = deployed_lines(read_json(folder / EXPORT_FOLDER / "deployed.json"))
        else:
            lines = _measure_times(folder, prepared, args, devices, threads, batch_sizes)
        found += [f"{config.name}: {line}" for line in lines]
    return found


def _measure_times(
    folder: Path,
    prepared: Prepared,
    args: argparse.Namespace,
    devices: Sequence[str],
    threads: Sequence[str],
    batch_sizes: Sequence[int],
) -> Iterator[str]:
    """Measure times and energy by batch size, and say what was measured."""
    from ff.files import read_json
    from ff.layout import file_stem, measure_folder, runtime_stem
    from ff.measure.agreement import run_agreement
    from ff.measure.protocol import Times
    from ff.measure.run import run_measurement, run_power_modes

    runtimes = args.runtimes or MeasureConfig.runtimes
    how: dict[str, Any] = {
        "devices": devices,
        "threads": threads,
        "batch_sizes": batch_sizes,
        "times": Times(args.repeats),
    }
    how |= {"energy_windows": args.energy_windows, "runtimes": runtimes}
    run_measurement(folder, prepared, **how)
    run_power_modes(folder, prepared, args.power_modes, **how)
    if len(devices) > 1:
        run_agreement(folder, prepared, devices)
    others = [runtime for runtime in runtimes if runtime != MeasureConfig.runtimes[0]]
    stems = {device: file_stem(device) for device in devices}
    stems |= {f"{name} on {device}": runtime_stem(device, name) for device in devices for name in others}
    for mode in (None, *args.power_modes):
        title = "" if mode is None else f"power mode {mode}: "
        for name, stem in stems.items():
            content = read_json(folder / measure_folder(mode) / f"{stem}.json")
            if not content["device"]["available"]:
                yield f"{title}{name}: not measured: {content['device']['reason']}"
            for row in content["batches"]:
                yield f"{title}{name} {_measured(row)}"


def stream_lines(content: dict[str, Any]) -> Iterator[str]:
    """What single_stream.json says, a line for each network."""
    yield from _not_there(content["runtimes"])
    for one in content["results"]:
        way = "early exit" if one["path"] == "exit" else "full depth"
        yield (
            f"{one['runtime']} on {one['device']}, {way}: {one['latency_ms']:.4g} ms an image, "
            f"{one['inferences_per_s']:.0f} a second (median of {len(one['runs'])} runs), "
            f"accuracy {one['test_accuracy']:.2%}{_joules(one['energy'])}"
        )
    if not content["conforms"]:
        yield f"a trial by the protocol {content['protocol']}: its runs are too short to be a result"


def _not_there(runtimes: list[dict[str, Any]]) -> Iterator[str]:
    for one in runtimes:
        if not one["available"]:
            yield f"{one['runtime']} on {one['device']}: not measured: {one['reason']}"


def deployed_lines(content: dict[str, Any]) -> Iterator[str]:
    """What deployed.json says of exits, against full depth and against the cut that is as accurate, in lines."""
    yield from _not_there(content["runtimes"])
    for way in content["ways"]:
        name = f"{way['runtime']} on {way['device']}, batch {way['batch_size']}"
        text = f"{way['test_accuracy']:.2%}, {way['time_ms']['median']:.4g} ms an image"
        if way["path"] == "exit":
            cut, full = (f"{way[f'time_vs_{base}']['estimate']:.2f}" for base in ("cut", "full"))
            yield f"{name}: early exit: {text}; {cut} x the time of the cheapest cut as accurate, {full} x full depth's"
        elif way["is_reference_cut"]:
            share = way["time_vs_full"]["estimate"]
            yield f"{name}: cheapest cut as accurate, after layer {way['depth']}: {text}; {share:.2f} x full depth's"


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
    return text + _joules(energy)


def _joules(energy: dict[str, Any] | None) -> str:
    if not (energy and energy["total"]):
        return ""
    gross, net = energy["total"]["gross_mj_per_sample"], energy["total"]["net_mj_per_sample"]
    return f", {gross['mean']:.3g} mJ a sample" + (f" ({net['mean']:.3g} mJ above idle)" if net else "")
