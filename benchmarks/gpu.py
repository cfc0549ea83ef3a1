"""Every check and figure of a GPU, in less than 8 minutes, on a machine with torch and numpy and this repository.

    python benchmarks/gpu.py --json FILE [--device cuda] [--quick]

Made images. A part that fails is reported and the others go on; the file is written after each. Parts:

correctness   losses of some steps against the CPU's, in float64 and float32, seed by seed
determinism   two trainings with the same bytes; an epoch within which the host waits for nothing
memory        peak of the published sweep's largest network against the estimate of ff/workflow/resources.py
roofline      a step against its products alone, as benchmarks/products.py
seeds         milliseconds a step and seed of groups of 1, 16 and 64
run           784,2000,2000,2000,2000 for 60 epochs of each phase, its time by that of steps
grid          the 84 runs of config/published_full.yaml in groups of three seeds, their time by that of steps
graph         CUDA graphs against steps launched kernel by kernel: bytes and time

With --device cpu it tests itself: a call of the same function stands for a graph; --quick makes everything small.
Gives exit status 1 where a part failed or a check does not hold.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from alternate import arguments, begin, machine, made_images, made_trainer, report, seconds
from products import NETWORKS, row, steps
from torch import Tensor

from ff.data.images import Images
from ff.data.registry import DATASETS
from ff.learn import step as learn_step
from ff.learn.readings import read, spread
from ff.learn.recipes import make_run_config
from ff.learn.step import GraphedStep, eager
from ff.learn.trainer import Trainer
from ff.workflow.resources import device_memory_mb

RECIPES = ("ff", "edgeff", "bp")
# Largest relative difference of a loss from the CPU's: a CUDA device gets its learning rates as float32.
# In float32, one negative in ten thousand may be another where two labels are as likely.
TOLERANCE = {"float64": 1e-6, "float32": 5e-3}
MEMORY_TOLERANCE = 0.2
# config/published_full.yaml, which needs a YAML reader.
GRID_LAYERS = ("100,10", "500,10", "1000,10", "2000,10", "3000,10", "4000,10", "5000,10")
GRID_DATASETS = ("MNIST", "FMNIST", "SVHN", "CIFAR10")
GRID_SEEDS, GRID_EPOCHS, GRID_BATCH = (42, 123, 456), 20, 512
RUN_LAYERS, RUN_EPOCHS = "784,2000,2000,2000,2000", 60
VAL_SIZE = 10_000  # by default

Rows = list[dict[str, Any]]


class Bench:
    """The parts, each of which gives its rows; `holds` in a row says whether a check does."""

    def __init__(self, device: str, repeats: int, quick: bool):
        self.device, self.repeats, self.quick = device, repeats, quick
        self.cuda = device.startswith("cuda")
        self.steps = 3 if quick else 20
        self.images: dict[str, Images] = {}

    def correctness(self) -> Rows:
        """Losses and goodness of the first steps against those of the CPU, of each of two seeds."""
        layers, rows = "784,40,30" if self.quick else "784,200,200,10", []
        for recipe in RECIPES:
            for precision, tolerance in TOLERANCE.items():
                values = {"layers": layers, "recipe": recipe, "precision": precision}
                there, here = (self._first_steps(device, **values) for device in (self.device, "cpu"))
                difference = ((there - here).abs() / here.abs().clamp_min(1e-9)).max().item()
                rows.append({**values, "largest_difference": difference, "holds": difference <= tolerance})
        return rows

    def _first_steps(self, device: str, **values: Any) -> Tensor:
        trainer = made_trainer((0, 1), device, **values)
        found = []
        for phase in trainer.phases.values():
            phase.begin(trainer.split.train.to(device))
            step = eager(phase)
            for batch, _ in zip(trainer.batches(phase, 1), range(self.steps), strict=False):
                for optimiser in phase.optimisers.values():
                    optimiser.begin_step(0.001)
                found.append(step(batch).double().flatten().cpu())
        return torch.cat(found)

    def determinism(self) -> Rows:
        """Whether two trainings end with the same bytes, and whether the host waits within an epoch."""
        rows = []
        for recipe in RECIPES:
            values = {"layers": "784,40,30" if self.quick else "784,200,200,10", "recipe": recipe}
            one, other = (self._trained((0, 1), cuda_graph=False, **values) for _ in range(2))
            waits = self._why_it_waits(**values)
            rows.append({**values, "same_bytes": _same(one, other), "waits": waits})
            rows[-1]["holds"] = rows[-1]["same_bytes"] and waits is None
        return rows

    def _trained(self, seeds: Sequence[int], cuda_graph: bool, **values: Any) -> Trainer:
        config = make_run_config({"rep_epochs": 2, "softmax_epochs": 2, "val_size": 500, **values})[0]
        images = made_images(config, self.device, 2000 if self.quick else 20_100)
        trainer = Trainer(config, seeds, images, cuda_graph=cuda_graph)
        for phase, _ in trainer.schedule:
            list(trainer.epochs(phase))
        return trainer

    def _why_it_waits(self, **values: Any) -> str | None:
        """What torch says of a call that waits for the device in steps after the first."""
        if not self.cuda:
            return None
        trainer = made_trainer((0, 1), self.device, **values)
        runs = [steps(trainer, self.steps, name) for name in trainer.phases]
        for run in runs:
            run()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for run in runs:
                run()
            for phase in trainer.phases.values():
                next(trainer.batches(phase, 2))
        except RuntimeError as error:
            return str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return None

    def memory(self) -> Rows:
        """Peak of the device's tensors, and of what its allocator held, in MB."""
        layers = "784,60,10" if self.quick else "784,5000,10"
        config = make_run_config({"layers": layers, "train_batch_size": GRID_BATCH})[0]
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        count = 3000 if self.quick else DATASETS[config.dataset].train_images
        trainer = Trainer(config, [0], made_images(config, self.device, count))
        for phase in trainer.phases.values():
            steps(trainer, 2, phase.name)()
            rows = spread(trainer.split.val, 2 * config.test_batch_size)
            read(trainer.state.network, trainer.images, rows, [phase.readout], config.test_batch_size)
        trainer.kept_readings()
        estimate = device_memory_mb(config)
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.cuda else None
        reserved = torch.cuda.max_memory_reserved(self.device) / 2**20 if self.cuda else None
        holds = None if peak is None else abs(estimate - peak) <= MEMORY_TOLERANCE * peak
        return [{"layers": layers, "estimate_mb": estimate, "peak_mb": peak, "reserved_mb": reserved, "holds": holds}]

    def roofline(self) -> Rows:
        """A step of each rule against its products alone."""
        networks = ("784,40,30",) if self.quick else NETWORKS
        precisions = ("float32", *(("tf32",) if self.cuda else ()), "bfloat16")
        return [
            row(layers, recipe, precision, self.steps, self.repeats, self.device)
            for layers in networks
            for recipe in ("ff", "bp")
            for precision in precisions
        ]

    def seeds(self) -> Rows:
        """Milliseconds a step and seed, by group size."""
        return self._by_seeds({"eager": eager})

    def _by_seeds(self, kinds: dict[str, Callable]) -> Rows:
        rows = []
        for layers in ("784,40,30",) if self.quick else ("784,200,200,10", "784,1000,1000,1000"):
            for count in (1, 2) if self.quick else (1, 16, 64):
                trainer = made_trainer(range(count), self.device, layers=layers, recipe="ff")
                sides = {kind: steps(trainer, self.steps, None, step_of) for kind, step_of in kinds.items()}
                for kind, took in seconds(sides, self.repeats, self.device).items():
                    each = 1000 * took / self.steps / count
                    rows.append({"layers": layers, "seeds": count, "steps": kind, "step_ms_per_seed": each})
        return rows

    def run(self) -> Rows:
        """Seconds of a long run, in float32 and in what a GPU multiplies faster."""
        layers = "784,60,60" if self.quick else RUN_LAYERS
        precisions = ("float32", *(("tf32",) if self.cuda else ()), "bfloat16")
        found = []
        for precision in precisions:
            values = {"layers": layers, "recipe": "ff", "precision": precision}
            times = self._phases((0,), "MNIST", **values)
            found.append({**values, "epochs": RUN_EPOCHS, "run_s": sum(times.values()) * RUN_EPOCHS})
            found[-1] |= {f"{name}_epoch_s": took for name, took in times.items()}
        return found

    def grid(self) -> Rows:
        """Seconds of all runs of the published sweep, validation and scoring not counted, and of each cell."""
        rows = []
        for layers in GRID_LAYERS[:1] if self.quick else GRID_LAYERS:
            for dataset in GRID_DATASETS:
                size = DATASETS[dataset].input_size
                values = {"layers": f"{size},{layers}", "recipe": "ff", "train_batch_size": GRID_BATCH}
                times = self._phases(GRID_SEEDS, dataset, **values)
                rows.append({"dataset": dataset, "layers": values["layers"], "runs": len(GRID_SEEDS)})
                rows[-1] |= {f"{name}_epoch_s": took for name, took in times.items()}
                rows[-1]["cell_s"] = GRID_EPOCHS * sum(times.values())
        total = {"dataset": "all", "layers": "", "runs": sum(found["runs"] for found in rows)}
        total |= {name: None for name in rows[0] if name.endswith("epoch_s")}
        return [*rows, total | {"cell_s": sum(found["cell_s"] for found in rows)}]

    def _phases(self, seeds: Sequence[int], dataset: str, **values: Any) -> dict[str, float]:
        """Seconds of an epoch of each phase on the real number of images, by the time of steps."""
        facts = DATASETS[dataset]
        config = make_run_config({"dataset": dataset, **values})[0]
        if dataset not in self.images:
            count = VAL_SIZE + 1500 if self.quick else facts.train_images
            self.images[dataset] = made_images(config, self.device, count)
        trainer = Trainer(config, seeds, self.images[dataset])
        batches = -(-(facts.train_images - VAL_SIZE) // config.train_batch_size)
        # Of a small set there are not as many to time.
        timed = min(self.steps, -(-trainer.split.train.shape[1] // config.train_batch_size))
        found = {}
        for name in trainer.phases:
            took = seconds({name: steps(trainer, self.steps, name)}, min(self.repeats, 3), self.device)
            found[name] = batches * took[name] / timed
        return found

    def graph(self) -> Rows:
        """CUDA graphs against steps launched kernel by kernel."""
        rows = []
        with _stand_in(not self.cuda):
            for recipe in RECIPES:
                values = {"layers": "784,40,30" if self.quick else "784,200,200,10", "recipe": recipe}
                one, other = (self._trained((0, 1), cuda_graph, **values) for cuda_graph in (False, True))
                rows.append({**values, "seeds": 2, "same_bytes": _same(one, other)})
                rows[-1]["holds"] = rows[-1]["same_bytes"]
            rows += self._by_seeds({"eager": eager, "graph": GraphedStep})
        names = dict.fromkeys(name for found in rows for name in found)
        return [{name: found.get(name) for name in names} for found in rows]


def _same(one: Trainer, other: Trainer) -> bool:
    """Whether two trainings have the same bytes: parameters, moments and losses."""
    pairs = [
        (getattr(adam, part), getattr(other.state.optimisers[name], part))
        for name, adam in one.state.optimisers.items()
        for part in ("parameters", "mean", "square")
    ]
    losses = [[epoch.loss for epoch in trainer.state.history] for trainer in (one, other)]
    return losses[0] == losses[1] and all(torch.equal(a, b) for a, b in pairs)


@contextmanager
def _stand_in(wanted: bool) -> Iterator[None]:
    """Within it, where it is `wanted`, a call of the function stands for its graph."""
    original = learn_step.captured

    def called(function: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        filled = function().clone()
        return lambda: filled.copy_(function()), filled

    if wanted:
        learn_step.captured = called
    try:
        yield
    finally:
        learn_step.captured = original


# A graph that cannot be recorded may leave the device unusable for this process, so it comes last.
PARTS = ("correctness", "determinism", "memory", "roofline", "seeds", "run", "grid", "graph")
FORMATS = {"largest_difference": ".1e", "share": ".0%", "products_gflops": ".0f", "training_gflops": ".0f"}


def _format(name: str, rows: Rows) -> str:
    numbers = any(isinstance(found[name], float) for found in rows)
    return FORMATS.get(name, ".3f" if numbers else "")


def main() -> int:
    """Command line; gives the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--quick", action="store_true", help="small networks and few steps: a test of this file")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS, metavar="PART", help="default: all parts")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured (--device cpu --quick tests this file)")
        return 1
    begin(args.threads)
    bench = Bench(args.device, args.repeats, args.quick)
    about = {"device": args.device, "quick": args.quick, "machine": machine(), "seconds": {}}
    if bench.cuda:
        facts = torch.cuda.get_device_properties(args.device)
        about |= {"gpu": facts.name, "memory_mb": facts.total_memory // 2**20, "cuda": torch.version.cuda}
        about |= {"capability": f"{facts.major}.{facts.minor}", "multiprocessors": facts.multi_processor_count}
    parts: dict[str, Rows] = {}
    failed: dict[str, str] = {}
    for name in args.only:
        start = time.perf_counter()
        print(f"\n{name} on {about.get('gpu', args.device)}", flush=True)
        try:
            parts[name] = getattr(bench, name)()
            formats = {column: _format(column, parts[name]) for column in parts[name][0]}
            report(parts[name], {}, None, formats)
        except Exception as error:  # a device is lent for minutes: what else can be measured is
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"failed: {failed[name]}")
        about["seconds"][name] = time.perf_counter() - start
        _write(args.json, {"about": about, "parts": parts, "failed": failed})
    wrong = [name for name, rows in parts.items() if any(found.get("holds") is False for found in rows)]
    print(f"\n{sum(about['seconds'].values()):.0f} s; failed: {list(failed) or 'none'}; do not hold: {wrong or 'none'}")
    return 1 if failed or wrong else 0


def _write(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
