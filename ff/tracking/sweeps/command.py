"""`ff sweep`."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.tracking.sweeps.cells import grid
from ff.tracking.sweeps.checking import check
from ff.tracking.sweeps.files import load
from ff.tracking.sweeps.local import best, local_command
from ff.tracking.sweeps.remote import agent_command, agent_environment, create


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
    parser.add_argument("--configfile", default="config/config.yaml", help="configuration for --local")
    parser.add_argument("--dry-run", action="store_true", help="with --local: only show what would be run")


def run(args: argparse.Namespace) -> int:
    """`ff sweep`: 0 when it was done, 1 when the check found problems, else the exit status of what was started."""
    if args.count is not None and args.count < 1:
        raise FFError(f"--count is {args.count}; it must be at least 1")
    if args.check:
        return _run_check(args)
    if args.local:
        return _run_local(args)
    sweep_id, sweep_path = create(args.file, args.project, args.entity)
    print(f"sweep {sweep_id}; agents anywhere: wandb agent {sweep_path}")
    if not args.run_agent:
        return 0
    return subprocess.run(agent_command(sweep_path, args.count), env=agent_environment(), check=False).returncode


def _configuration(path: str) -> dict[str, Any]:
    return load(path) if Path(path).is_file() else {}


def _run_check(args: argparse.Namespace) -> int:
    recipes = _configuration(args.configfile).get("recipes")
    found = check(args.file, args.count, recipes)
    for text in found.problems:
        print(f"problem: {text}")
    for text in found.warnings:
        print(f"note: {text}")
    size = "no fixed number of runs" if found.runs is None else f"{found.runs} runs"
    print(f"{args.file}: method {found.method}, {size}" + (f" ({found.product})" if found.product else ""))
    if not found.problems and found.runs is not None and found.method in ("grid", "random"):
        cells = grid(args.file, args.count, args.seed, recipes)["runs"]
        print(f"locally {len(cells)} trainings")
    return 1 if found.problems else 0


def _run_local(args: argparse.Namespace) -> int:
    if not Path("Snakefile").is_file():
        raise FFError("there is no Snakefile here; run `ff sweep --local` in the project's folder")
    configuration = _configuration(args.configfile)
    cells = grid(args.file, args.count, args.seed, configuration.get("recipes"))
    for text in cells["warnings"]:
        print(f"note: {text}", file=sys.stderr)
    results = str(configuration.get("results", "results"))
    command = local_command(
        args.file, cells["runs"], args.configfile, args.count, args.seed, args.cores, results, args.dry_run
    )
    print(f"{len(cells['runs'])} trainings", flush=True)
    status = subprocess.run(command, check=False).returncode
    metric = load(args.file).get("metric")
    for value, name in best(cells["runs"], metric, results):
        print(f"{metric['name']} {value:.4f}  {name}")
    return status
