"""How long Snakemake takes to plan: the demo grid against an empty Snakefile, and a large grid.

    python benchmarks/planning.py [--repeats 5] [--jobs 10000]

The first two are timed in turns in one run, so that a busy machine slows both; the ratio is that of the medians.
The large grid has 10,000 jobs where each run has its own, and fewer where seeds share them; both are planned. Nothing
is trained. Exit status 1 when the ratio is above 2 or the large grid takes 60 s or more either way.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rules", "workflow", "config", "envs", "profiles", "ff")
LIMIT_RATIO, LIMIT_S = 2.0, 60.0


def copy_project(folder: Path) -> None:
    """What Snakemake reads of this checkout, so that a call in `folder` leaves nothing in it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "Snakefile", folder)
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


class Cost(NamedTuple):
    """Seconds, those of the processor, and peak memory of a process."""

    seconds: float
    processor_s: float
    memory_mb: float


class Done(NamedTuple):
    """What a process cost, and what it printed."""

    cost: Cost
    text: str


def measured(command: list[str], folder: Path, given: str = "") -> Done:
    """Run `command` in `folder` with `given` as its input; what it prints ends this program where it fails."""
    with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+") as printed:
        source.write(given)
        source.seek(0)
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdin=source, stdout=printed, stderr=subprocess.STDOUT)
        # Not of RUSAGE_CHILDREN, which is about all children so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        printed.seek(0)
        text = printed.read()
    if status:
        raise SystemExit(text)
    return Done(Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10), text)


def plan(folder: Path, *arguments: str) -> Done:
    """A dry run in `folder`."""
    return measured([sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "1", *arguments], folder)


def count(text: str) -> int:
    """The number of jobs that a dry run plans."""
    return int(re.search(r"^total +(\d+)$", text, re.MULTILINE)[1])


def large_grid(jobs: int) -> dict:
    """A grid whose target `all` plans at least `jobs` jobs: each run has six."""
    runs = -(-jobs // 6)
    seeds = -(-runs // 40)
    layers = [f"784,{width},10" for width in range(100, 2100, 100)]
    return {"dataset": ["DIGITS"], "layers": layers, "recipe": ["ff", "bp"], "seed": list(range(seeds))}


def main() -> int:
    """Command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=10000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project, empty = Path(folder) / "project", Path(folder) / "empty"
        empty.mkdir()
        (empty / "Snakefile").write_text("rule all:\n    input: []\n")
        copy_project(project)
        (project / "large.yaml").write_text(yaml.safe_dump({"grid": large_grid(args.jobs)}))
        plan(project, "demo")
        plan(empty)
        pairs = [(plan(empty), plan(project, "demo")) for _ in range(args.repeats)]
        without, demo = (statistics.median(done.cost.seconds for done in side) for side in zip(*pairs, strict=True))
        ratio = demo / without
        print(f"empty Snakefile: {without:.2f} s")
        print(f"demo grid, {count(pairs[0][1].text)} jobs: {demo:.2f} s, {ratio:.2f} times as long")
        slowest = 0.0
        for group_seeds in ("false", "auto"):
            setting = f"group_seeds={group_seeds}"
            large = plan(project, "all", "--configfile", "large.yaml", "--config", setting)
            slowest = max(slowest, large.cost.seconds)
            cost = f"{large.cost.seconds:.1f} s, {large.cost.memory_mb:.0f} MB"
            print(f"large grid, {setting}, {count(large.text)} jobs: {cost}")
    return 0 if ratio <= LIMIT_RATIO and slowest < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
