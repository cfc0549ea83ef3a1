"""What tables, figures, report and planning take on a large grid: by default 200 networks x 50 seeds, 10,000 runs.

    python benchmarks/summary.py [--networks 200] [--seeds 50] [--recipes ff] [--folder FOLDER]

The run folders are made, not trained, by the means of the tests (`tests/made_runs.py`), with every file of a run. Each
job then runs as in the workflow, as a process of its own: the tables, each family of figures, the report. At last
`snakemake -n all` plans the grid with its run folders there. Printed are seconds and peak memory of each. Exit status 1
when tables, figures and report together take over 120 s, one of them 2 GB of memory or more, the page has 5 MB or more,
or planning takes 60 s or more. These limits are for the default size, in seconds of the processor: each job works on
one core, and a busy machine only makes it wait.

The folder (5 GB, 300,000 files) is temporary unless `--folder` names one; run folders that are there are taken as they
are, so that a second call starts measuring at once.
"""

import argparse
import json
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import planning  # noqa: E402
from made_runs import make_run, stamp  # noqa: E402
from planning import Cost  # noqa: E402

from ff import layout  # noqa: E402
from ff.files import write_tensors  # noqa: E402
from ff.layout import RunKey  # noqa: E402
from ff.summary.figures import FAMILIES, FIGURES  # noqa: E402

LIMIT_S, LIMIT_MB, LIMIT_PAGE_MB = 120.0, 2000.0, 5.0
# Runs a script of the workflow with what Snakemake hands to it.
JOB = """
import json, runpy, sys
from types import SimpleNamespace
given = json.loads(sys.stdin.read())
given["params"] = SimpleNamespace(**given["params"])
runpy.run_path(sys.argv[1], {"snakemake": SimpleNamespace(**given)})
"""


def layers_of(networks: int) -> list[str]:
    """Layers of that many networks of two to four layers, as a configuration has them."""
    hidden = cycle((1, 2, 3))
    return [f"784,{','.join([str(20 + 10 * (number // 3))] * next(hidden))},10" for number in range(networks)]


def make(results: Path, run: RunKey) -> None:
    """The folder of one run with every file that the workflow expects: without one it would train it or measure it."""
    folder = run.folder(results)
    if not (folder / "model.safetensors").is_file():
        make_run(results, run, spread=0.02)
        for name in ("phases.csv", "hardware.csv"):
            shutil.copy(folder / name, folder / layout.MEASURE_FOLDER / name)
        write_tensors(folder / "model.safetensors", {}, {"run": {"model": stamp(run)}})


def measure(script: str, given: dict, folder: Path) -> Cost:
    """Run a script of the workflow in a process of its own."""
    command = [sys.executable, "-c", JOB, script]
    return planning.measured(command, folder, json.dumps(given)).cost


def jobs(results: str, runs: list[RunKey]) -> list[tuple[str, str, dict]]:
    """Name, script and what Snakemake hands over of each job after the run folders."""
    config = {"results": results}
    params = {"runs": [run.name for run in runs]}
    found = [("tables", "tables", layout.tables(results))]
    for family in FAMILIES:
        names = [name for name, spec in FIGURES.items() if spec.family == family]
        pairs = [layout.figure(results, "", name, kind) for name in names for kind in ("png", "svg")]
        found.append((f"figures: {family}", "figures", pairs))
    found.append(("report", "report", [layout.report(results)]))
    return [
        (
            name,
            f"workflow/scripts/{script}.py",
            {"config": config, "params": params, "output": out, "log": [f"{name}.log"]},
        )
        for name, script, out in found
    ]


def say(name: str, cost: Cost) -> None:
    print(f"{name:<24}{cost.seconds:>8.1f} {cost.processor_s:>8.1f} {cost.memory_mb:>8.0f}", flush=True)


def main() -> int:
    """Command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--recipes", nargs="+", default=["ff"])
    parser.add_argument("--folder", type=Path, help="where to work, kept for the next call; default: temporary")
    args = parser.parse_args()
    grid = {"dataset": ["MNIST"], "layers": layers_of(args.networks), "recipe": args.recipes}
    grid["seed"] = list(range(args.seeds))
    runs = [
        RunKey.of({"dataset": "MNIST", "layers": layers, "recipe": recipe, "seed": seed})
        for layers in grid["layers"]
        for recipe in args.recipes
        for seed in grid["seed"]
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        planning.copy_project(folder)
        results = folder / "results"
        with ProcessPoolExecutor() as pool:
            list(pool.map(make, [results] * len(runs), runs, chunksize=20))
        print(f"{len(runs)} runs\n{'':<24}{'s':>8} {'CPU s':>8} {'peak MB':>8}")
        costs = []
        for name, script, given in jobs("results", runs):
            costs.append(measure(script, given, folder))
            say(name, costs[-1])
        seconds, processor_s, memory_mb = zip(*costs, strict=True)
        total = Cost(sum(seconds), sum(processor_s), max(memory_mb))
        say("together", total)
        page_mb = (results / "report.html").stat().st_size / 1e6
        print(f"the page has {page_mb:.2f} MB")
        (folder / "large.yaml").write_text(yaml.safe_dump({"grid": grid}))
        planned = planning.plan(folder, "all", "--configfile", "large.yaml")
        say("snakemake -n", planned.cost)
    small = total.processor_s <= LIMIT_S and total.memory_mb < LIMIT_MB and page_mb < LIMIT_PAGE_MB
    return 0 if small and planned.cost.processor_s < planning.LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
