"""`ff sweep`."""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.files import read_yaml
from ff.tracking.sweeps.cells import Sweep, in_place_of_the_grid
from ff.tracking.sweeps.checking import check
from ff.tracking.sweeps.files import load
from ff.tracking.sweeps.remote import agent_command, agent_environment, create

_TOP = 5
_BASE_CONFIGURATION = "config/config.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff sweep`."""
    parser.add_argument("file", help="W&B sweep file (YAML)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check and count only")
    what.add_argument("--local", action="store_true", help="run it here through the DAG, without W&B")
    what.add_argument("--run-agent", action="store_true", help="create it on W&B and run an agent here")
    parser.add_argument("--count", type=int, help="at most so many runs (method random needs it)")
    parser.add_argument("--project", help="W&B project (default: the file's, else edgeff)")
    parser.add_argument("--entity", help="W&B user or team")
    parser.add_argument("--seed", type=int, default=0, help="fixes the draws of method random with --local")
    parser.add_argument("--cores", default="all", help="cores for --local (default: all)")
    parser.add_argument(
        "--out", help="results folder for --local (default: one below results/sweeps/ for each content of a file)"
    )
    parser.add_argument("--configfile", default=_BASE_CONFIGURATION, help="configuration for --local")
    parser.add_argument("-n", "--dry-run", action="store_true", help="with --local: only show what would be done")


def run(args: argparse.Namespace) -> int:
    """`ff sweep`: 0 when it was done, 1 when the check found problems, else the exit status of what was started."""
    if args.count is not None and args.count < 1:
        raise FFError(f"--count is {args.count}; it must be at least 1")
    if args.seed < 0:
        raise FFError(f"--seed is {args.seed}; it must be at least 0")
    if args.check:
        return _run_check(args)
    if args.local:
        return _run_local(args)
    for text in check(args.file).warnings:
        print(f"note: {text}", file=sys.stderr)
    sweep_id, sweep_path = create(args.file, args.project, args.entity)
    print(f"sweep {sweep_id}; agents anywhere: wandb agent {sweep_path}")
    if not args.run_agent:
        return 0
    return wait_for(agent_command(sweep_path, args.count), agent_environment())


def wait_for(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `command` to its end; returns its exit status. Ctrl-C reaches it as well; it is left to tidy up."""
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _configuration(args: argparse.Namespace) -> dict[str, Any]:
    """What the workflow reads: config/config.yaml, under the given file, with the sweep of the command line."""
    from snakemake.utils import update_config

    configuration: dict[str, Any] = {"results": "results"}
    for path in dict.fromkeys((_BASE_CONFIGURATION, args.configfile)):
        if path == _BASE_CONFIGURATION and not Path(path).is_file():
            continue
        content = read_yaml(path, "configuration") or {}
        if not isinstance(content, dict):
            raise FFError(f"configuration {path} must hold keys and values, not {type(content).__name__}")
        update_config(configuration, content)
    given = {"sweep": args.file, "sweep_count": args.count, "sweep_seed": args.seed, "sweep_out": args.out}
    return configuration | {key: value for key, value in given.items() if value is not None}


def _run_check(args: argparse.Namespace) -> int:
    configuration = _configuration(args)
    found = check(args.file, args.count, configuration.get("recipes"))
    for text in found.problems:
        print(f"problem: {text}")
    for text in found.warnings:
        print(f"note: {text}")
    size = "no fixed number of runs" if found.runs is None else f"{found.runs} runs"
    print(f"{args.file}: method {found.method}, {size}" + (f" ({found.product})" if found.product else ""))
    if not found.problems and found.runs is not None and found.method in ("grid", "random"):
        sweep, keys = in_place_of_the_grid(configuration)
        print(f"locally {len(sweep.runs)} trainings, in {keys['results']}")
    return 1 if found.problems else 0


def _run_local(args: argparse.Namespace) -> int:
    if not Path("Snakefile").is_file():
        raise FFError("there is no Snakefile here; run `ff sweep --local` in the project's folder")
    if args.cores != "all" and not (args.cores.isdecimal() and int(args.cores)):
        raise FFError(f"--cores is {args.cores!r}; it must be 'all' or at least 1")
    configuration = _configuration(args)
    sweep, keys = in_place_of_the_grid(configuration)
    results = Path(keys["results"])
    from ff.tracking.sweeps.local import claim, snakemake_command

    if not args.dry_run:
        claim(results, args.file, sweep, Path(configuration["results"]))
    print(f"{len(sweep.runs)} trainings, in {results}", flush=True)
    command = snakemake_command(args.file, args.configfile, args.cores, args.count, args.seed, args.out, args.dry_run)
    status = wait_for(command)
    if not args.dry_run:
        _print_ranking(sweep, load(args.file).get("metric"), results)
    return status


def _print_ranking(sweep: Sweep, metric: Mapping[str, Any] | None, results: Path) -> None:
    """The best cells by the sweep's metric, and where everything is."""
    from ff.tracking.sweeps.local import ranking

    places = ranking(sweep.runs, metric, results)
    finished = sum(place.interval.n for place in places)
    if metric and not places:
        print(f"no finished run has {metric['name']}")
    elif metric:
        print(f"{metric['name']}, mean over seeds (95 % interval), best of {len(places)}:")
    for place in places[:_TOP]:
        n, mean, low, high, _ = place.interval
        interval = "" if low is None else f" ({low:.4f} to {high:.4f})"
        seeds = f"{n} of {place.asked}" if n < place.asked else str(n)
        print(f"{mean:.4f}{interval}  {place.cell}  {seeds} seed{'s' * (place.asked != 1)}")
    if metric and places and str(metric["name"]).startswith(("test/", "final/test_")):
        print("note: this ranks by test data; settings are chosen on validation, such as by final/val_accuracy")
    if metric and 0 < finished < len(sweep.runs):
        print(f"{len(sweep.runs) - finished} of {len(sweep.runs)} trainings have no {metric['name']}")
    for name in ("report.html", "summary/missing.csv"):
        if (results / name).is_file():
            print(f"{name.split('/')[-1].split('.')[0]}: {results / name}")
