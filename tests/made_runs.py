"""Made run folders in the formats that training, evaluation and measuring write, with known values.

`make_run` writes one folder, `make_grid` many. The numbers follow simple laws, so that a test can say what a
table or a figure must hold:

- Accuracy of the head at full depth: `ACCURACY[recipe]` + 0.001 times (index of the seed - 1); edgeff has 0.0005 more
  at the third seed, so that paired differences vary. The goodness readout has 0.002 less, each layer less than full
  depth costs 0.02; val = test + 0.003, train = test + 0.01.
- Latency: CPU 0.05 ms + batch size * parameters * 1e-7 ms with one thread, half of that with four (`THREADS`); CUDA
  0.2 ms + a hundredth of the second term. Queued throughput is twice the synchronised one.
- Power: rail VDD_IN 5000 mW when idle, `BUSY_MW` in a phase; VDD_CPU 1000 mW + half of what is above idle.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ff.files import write_csv, write_json
from ff.layout import RunKey

ACCURACY = {"ff": 0.978, "edgeff": 0.925, "bp": 0.980}
BATCHES = (1, 2, 8, 16, 32, 64, 128, 256, 512)
THREADS = (1, 4)
SEEDS = (42, 123, 456)
KS = tuple(0.25 * step for step in range(17))
IDLE_MW, BUSY_MW = 5000.0, {"load": 6000.0, "representation": 9000.0, "softmax": 7500.0, "evaluation": 8000.0}


def phases(layers: Sequence[int]) -> tuple[tuple[str, float, float], ...]:
    """Name, start and end in seconds; `representation` lasts 20 s + 20 s per million parameters."""
    end = 20.5 + 20e-6 * parameters(layers)
    return (
        ("load", 0.0, 0.5),
        ("representation", 0.5, end),
        ("softmax", end, end + 5.0),
        ("evaluation", end + 5.0, end + 6.5),
    )


def parameters(layers: Sequence[int]) -> int:
    return sum(a * b + b for a, b in pairwise(layers))


def final_accuracy(run: RunKey) -> float:
    """Accuracy of the head at full depth on test."""
    index = SEEDS.index(run.seed) if run.seed in SEEDS else run.seed % 3
    drop = {"MNIST": 0.0, "FMNIST": 0.08, "SVHN": 0.12, "CIFAR10": 0.4, "DIGITS": 0.01}[run.dataset]
    wobble = 0.0005 * (index == 2) if run.recipe == "edgeff" else 0.0
    return ACCURACY.get(run.recipe, 0.95) - drop + 0.001 * (index - 1) + wobble


def latency_ms(device: str, batch_size: int, layers: Sequence[int], threads: int = 1) -> float:
    work = batch_size * parameters(layers) * 1e-7
    return (0.05 + work) / (1 if threads == 1 else 2) if device == "cpu" else 0.2 + work / 100


def make_run(
    results_root: Path,
    run: RunKey,
    *,
    epochs: int = 5,
    devices: Sequence[str] = ("cpu", "cuda"),
    power: bool = True,
    hardware: bool = True,
    evaluation: bool = True,
    early_exit: bool = True,
    variance: bool = True,
    repeats: int = 50,
    spread: float = 0.0,
) -> Path:
    """Write the folder of one run; the flags leave out files as a run that was not asked for them does.

    `spread`: relative standard deviation of latencies over seeds, which otherwise are all equal.
    """
    folder = run.folder(results_root)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(run.seed)
    sizes = [int(size) for size in run.layers.split("-")]
    _metrics(folder, run, sizes)
    _history(folder, run, len(sizes) - 1, epochs)
    if hardware:
        _hardware(folder, run, phases(sizes), power)
    if evaluation:
        _evaluation(folder, run, sizes)
    if early_exit:
        _early_exit(folder, run, sizes)
        _deployed(folder, run)
    if variance:
        _variance(folder, run, sizes, devices, repeats, power, rng, spread)
    return folder


def make_grid(
    results_root: Path,
    datasets: Iterable[str] = ("MNIST",),
    hidden: Iterable[Sequence[int]] = ((200, 200, 10),),
    recipes: Iterable[str] = ("ff", "edgeff", "bp"),
    seeds: Iterable[int] = SEEDS,
    **options,
) -> list[RunKey]:
    """Write a grid of runs; `hidden` are the layers without the input size. Returns the runs."""
    hidden, recipes, seeds = list(hidden), list(recipes), list(seeds)
    runs = []
    for dataset in datasets:
        size = 784 if dataset in ("MNIST", "FMNIST", "DIGITS") else 3072
        for layers in hidden:
            for recipe in recipes:
                for seed in seeds:
                    runs.append(RunKey(dataset, "-".join(map(str, (size, *layers))), recipe, seed))
                    make_run(results_root, runs[-1], **options)
    return runs


def _head(run: RunKey) -> dict:
    name = f"{run.dataset}-{run.layers}-{run.recipe}-{run.seed}"
    return {"name": name, **run._asdict(), "model": stamp(run)}


def stamp(run: RunKey) -> str:
    """The stamp of the run's model, which made runs have no weights of."""
    return hashlib.sha256(repr(tuple(run)).encode()).hexdigest()[:16]


def _readouts(run: RunKey) -> tuple[str, ...]:
    return ("head",) if run.recipe == "bp" else ("head", "goodness")


def _accuracy_at(run: RunKey, split: str, readout: str, depth: int) -> float:
    value = final_accuracy(run) - 0.02 * (run.depth - depth) + {"test": 0, "val": 0.003, "train": 0.01}[split]
    return round(min(value - (0.002 if readout == "goodness" else 0.0), 0.999), 6)


SPLITS = {"train": 50_000, "val": 10_000, "test": 10_000}


def _metrics(folder: Path, run: RunKey, sizes: Sequence[int]) -> None:
    results = []
    for split, n in SPLITS.items():
        for readout in _readouts(run):
            for depth in range(1, run.depth + 1):
                value = _accuracy_at(run, split, readout, depth)
                some = 2000 if (split, readout) == ("train", "goodness") else n
                row = {"split": split, "readout": readout, "depth": depth, "n": some, "accuracy": value}
                results.append({**row, "macro_f1": round(value - 0.001, 6), "error": round(1 - value, 6)})
    method = "backprop" if run.recipe == "bp" else "forward-forward"
    seconds = {name: end - start for name, start, end in phases(sizes)}
    macs = sum(a * b for a, b in pairwise(sizes))
    metrics = {
        "schema": 1,
        "config": {**run._asdict(), "rep_epochs": 10, "softmax_epochs": 10, "recipe_settings": {"method": method}},
        "run": _head(run),
        "provenance": {
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "git_dirty": False,
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            "python": "3.11.7",
            "machine": {"cpu": "Made Processor 9000", "gpu": "Made Accelerator", "ram_mb": 16000},
            "code_hash": "abc123",
            "float32_products": "onednn",
            "why_precision": "asked for",
            "started_at": "2026-01-02T03:04:05+00:00",
            "warnings": [],
        },
        "results": results,
        "final": {
            f"{split}_accuracy": _accuracy_at(run, split, "head", run.depth) for split in ("test", "val", "train")
        },
        "seconds": {**seconds, "total": phases(sizes)[-1][2]},
        "shared_by_seeds": 1,
        "samples_per_s": {"representation": 25_000.0, "softmax": 100_000.0},
        "peak_memory_mb": {"host": 812.5, "device": None},
        "parameters": parameters(sizes),
        "macs_per_sample": {"train_step": 3 * macs, "head_readout": macs, "goodness_readout": 10 * macs},
        "energy": None,
        "resumed_from_epoch": None,
    }
    write_json(folder / "metrics.json", metrics)


def _history(folder: Path, run: RunKey, depth: int, epochs: int) -> None:
    goodness = [f"goodness_{sign}_{d}" for sign in ("positive", "negative") for d in range(1, depth + 1)]
    columns = ["phase", "epoch", "loss", *goodness, "validation_accuracy", "validation_readout", "validation_n"]
    columns += ["learning_rate", "seconds", "validation_seconds"]
    rows = []
    top = _accuracy_at(run, "val", "head", run.depth)
    phases = [("backprop", 2 * epochs)] if run.recipe == "bp" else [("representation", epochs), ("softmax", epochs)]
    for phase, count in phases:
        for epoch in range(1, count + 1):
            share = 1 - 0.5**epoch
            row = {"phase": phase, "epoch": epoch, "loss": 0.7 * 0.5**epoch + 0.02, "learning_rate": 0.01}
            row |= {"seconds": 2.0, "validation_seconds": 0.5, "validation_accuracy": top - 0.1 * (1 - share)}
            row["validation_readout"] = "goodness" if phase == "representation" else "head"
            row["validation_n"] = SPLITS["val"] if epoch == count else 500
            if phase == "representation":
                for d in range(1, depth + 1):
                    row[f"goodness_positive_{d}"] = 1 + (1 + 0.2 * d) * share
                    row[f"goodness_negative_{d}"] = 1 - 0.5 * share
            rows.append(row)
    write_csv(folder / "history.csv", ["model", *columns], [{"model": stamp(run), **row} for row in rows])


def _hardware(folder: Path, run: RunKey, marks: Sequence, power: bool) -> None:
    from ff.phases import COLUMNS

    rows = [
        dict(zip(COLUMNS, (stamp(run), name, 100 + start, 100 + end, 1e9 + start, 1e9 + end, "boot"), strict=True))
        for name, start, end in marks
    ]
    write_csv(folder / "phases.csv", COLUMNS, rows)
    samples = []
    for time in np.arange(-2.0, marks[-1][2] + 2, 0.5):
        phase = next((name for name, start, end in marks if start <= time < end), None)
        total = BUSY_MW.get(phase, IDLE_MW)
        row = {
            "model": stamp(run),
            "monotonic_s": 100 + float(time),
            "unix_s": 1e9 + float(time),
            "source": "tegrastats",
        }
        row |= {"cpu_percent": 20 + (total - IDLE_MW) / 100, "ram_used_mb": 2000 + (300 if phase else 0)}
        row |= {"ram_total_mb": 7772, "gpu_percent": 60 if phase == "representation" else 0}
        row |= {"temperature_c.CPU": 45 + max(time, 0) * 0.3, "temperature_c.GPU": 43 + max(time, 0) * 0.2}
        if power:
            row |= {"power_mw.VDD_IN": total, "power_mw.VDD_CPU": 1000 + (total - IDLE_MW) / 2}
        samples.append(row)
    write_csv(folder / "hardware.csv", list(samples[0]), samples)
    energy, missing = None, []
    if power:
        energy = {name: _energy(end - start, BUSY_MW[name]) for name, start, end in marks}
    else:
        missing = [
            {"source": "nvml", "reason": "no NVIDIA driver"},
            {"source": "rapl", "reason": "/sys/class/powercap is not readable by this user"},
        ]
    document = {
        "schema": 1,
        "model": stamp(run),
        "machine": {"cpu": "Made Processor 9000"},
        "sources": {"used": ["tegrastats"] if power else ["psutil"], "power": [], "missing": missing},
        "attempts": [],
        "samples": len(samples),
        "duration_s": len(samples) * 0.5,
        "gaps": [],
        "interval_ms": 500,
        "idle": {
            "before": {"VDD_IN": IDLE_MW} if power else None,
            "after": {"VDD_IN": IDLE_MW} if power else None,
            "windows": 2 if power else 0,
            "rails": {},
            "total": None,
        },
        "energy": energy,
        "run_energy": _run_energy(energy) if energy else None,
        "notes": [],
    }
    write_json(folder / "hardware.json", document)


def _energy(seconds: float, power_mw: float) -> dict:
    """mW x s = mJ; the CPU rail takes 1000 mW and half of what is above idle, VDD_IN all; intervals reach 1 % up and
    down."""
    above = power_mw - IDLE_MW
    rails = {
        "VDD_IN": (power_mw * seconds, above * seconds),
        "VDD_CPU": ((1000 + above / 2) * seconds, above / 2 * seconds),
    }
    return _part(seconds, {rail: _numbers(gross, net, 0.01 * gross) for rail, (gross, net) in rails.items()})


def _run_energy(energy: dict[str, dict]) -> dict:
    """All phases together, with an interval as wide as that of the widest."""
    rails = {}
    for rail in ("VDD_IN", "VDD_CPU"):
        parts = [part["rails"][rail] for part in energy.values()]
        gross, net = (sum(part[name] for part in parts) for name in ("gross_mj", "net_mj"))
        rails[rail] = _numbers(gross, net, 0.01 * max(part["gross_mj"] for part in parts))
    return {"phases": list(energy), **_part(sum(part["seconds"] for part in energy.values()), rails)}


def _numbers(gross: float, net: float, reach: float) -> dict:
    numbers = {"gross_mj": gross, "gross_low_mj": gross - reach, "gross_high_mj": gross + reach}
    numbers |= {"net_mj": net, "net_low_mj": net - reach, "net_high_mj": net + reach}
    return {**numbers, "method": "Student t", "shared": False}


def _part(seconds: float, rails: dict[str, dict]) -> dict:
    total = {"rail": "VDD_IN", "rails": ["VDD_IN"], **rails["VDD_IN"]}
    about = {"seconds": seconds, "covered_s": seconds, "windows": 2}
    return {**about, "rails": rails, "total": total, "shared": False, "shared_with": []}


def _moments(mean: float, std: float) -> dict:
    return {"mean": mean, "std": std, "p5": mean - 1.64 * std, "p50": mean, "p95": mean + 1.64 * std}


def _evaluation(folder: Path, run: RunKey, sizes: Sequence[int]) -> None:
    readouts, layers, confidence = [], [], []
    for split, n in SPLITS.items():
        for readout in _readouts(run):
            for depth in range(1, run.depth + 1):
                value = _accuracy_at(run, split, readout, depth)
                each = n // 10
                right = round(each * value)
                confusion = [[0] * 10 for _ in range(10)]
                for true in range(10):
                    confusion[true][true] = right
                    confusion[true][(true + 1) % 10] = each - right
                some = 2000 if (split, readout) == ("train", "goodness") else n
                row = {"split": split, "readout": readout, "depth": depth, "n": some, "accuracy": value}
                row |= {"macro_f1": value - 0.001, "error": 1 - value, "confusion": confusion, "ece": 0.01}
                part = {"n": each, "precision": value, "recall": value, "f1": value}
                row["per_class"] = [{"class": str(c), **part} for c in range(10)]
                readouts.append(row)
    for depth, width in enumerate(sizes[1:], start=1):
        goodness = {"positive": _moments(2.0 + depth, 0.6), "negative": _moments(0.6, 0.3)}
        goodness["neutral"] = _moments(1.2, 0.4)
        if run.recipe == "bp":
            goodness = {}
        row = {"depth": depth, "width": width, "sparsity": 0.6 + 0.05 * depth, "dead_units": depth}
        layers.append({**row, "goodness": goodness, "separation_auc": None if run.recipe == "bp" else 0.98})
        for outcome, mean in (("right", 0.95), ("wrong", 0.6)):
            row = {
                "split": "test",
                "depth": depth,
                "outcome": outcome,
                "n": 9800 if outcome == "right" else 200,
            }
            confidence.append({**row, "logit": _moments(10 * mean, 2.0), "probability": _moments(mean, 0.1)})
    write_json(
        folder / "evaluation.json",
        {
            "schema": 1,
            "run": _head(run),
            "classes": [str(c) for c in range(10)],
            "readouts": readouts,
            "layers": layers,
            "confidence": confidence,
        },
    )
    rows = []
    for depth in range(1, run.depth + 1):
        if run.recipe != "bp":
            for group, mean, std in (
                ("positive", 2.0 + depth, 0.6),
                ("negative", 0.6, 0.3),
                ("neutral", 1.2, 0.4),
            ):
                rows += _histogram("goodness", depth, group, mean, std, np.linspace(0, 10, 61), 10_000)
        for group, mean, n in (("right", 9.5, 9_800), ("wrong", 6.0, 200)):
            rows += _histogram("confidence_logit", depth, group, mean, 2.0, np.linspace(0, 20, 61), n)
        for group, mean, n in (("right", 0.95, 9_800), ("wrong", 0.6, 200)):
            rows += _histogram("confidence_probability", depth, group, mean, 0.15, np.linspace(0, 1, 41), n)
    columns = ("model", "split", "kind", "depth", "group", "bin_low", "bin_high", "count")
    write_csv(folder / "distributions.csv", columns, [{"model": stamp(run), **row} for row in rows])


def _histogram(kind: str, depth: int, group: str, mean: float, std: float, edges: np.ndarray, n: int) -> list[dict]:
    middle = (edges[1:] + edges[:-1]) / 2
    weight = np.exp(-0.5 * ((middle - mean) / std) ** 2)
    counts = np.round(n * weight / weight.sum()).astype(int)
    base = {"split": "test", "kind": kind, "depth": depth, "group": group}
    ends = zip(edges[:-1], edges[1:], counts, strict=True)
    return [{**base, "bin_low": float(a), "bin_high": float(b), "count": int(c)} for a, b, c in ends]


def early_exit_rows(run: RunKey, sizes: Sequence[int], split: str) -> list[dict]:
    """Network cuts, then both exit rules at `KS`. A cut at depth L - 1, the reference, loses 0.0005, each layer
    less 0.02. Share leaving early: 0.9 (1 - exp(-k)); k = 4 costs 0.005 of accuracy. Half of the saving in MACs
    is saved in time at batch 1, 0.8 at batch 32, 0.9 at batch 512."""
    depth = run.depth
    macs = [sum(a * b for a, b in pairwise(sizes[: d + 1])) + 10 * sum(sizes[1 : d + 1]) for d in range(1, depth + 1)]
    accuracy = _accuracy_at(run, split, "head", depth)
    rows = []
    for d in range(1, depth + 1):
        lost = 0.0 if d == depth else 0.0005 + 0.02 * (depth - 1 - d)
        row = {"rule": "static", "k": None, "depth": d, "accuracy": accuracy - lost, "mean_layers": d}
        rows.append(
            {**row, "macs_total": macs[d - 1], **{f"share_exit_{i + 1}": float(i + 1 == d) for i in range(depth)}}
        )
    for rule in ("logit", "probability"):
        for k in KS:
            left = 0.9 * (1 - np.exp(-k)) * (1.0 if rule == "logit" else 0.9) if depth > 1 else 0.0
            row = {"rule": rule, "k": k, "depth": None, "accuracy": accuracy - 0.005 * (k / 4) ** 2}
            row |= {"mean_layers": left + (1 - left) * depth, "macs_total": left * macs[0] + (1 - left) * macs[-1]}
            row |= {f"share_exit_{d}": left if d == 1 and depth > 1 else 0.0 for d in range(1, depth + 1)}
            row[f"share_exit_{depth}"] += 1 - left
            rows.append(row)
    reference = max(depth - 1, 1)
    for row in rows:
        row |= {"is_reference_cut": int(row["depth"] == reference), "threshold": None, "split": split}
        row |= {"n": SPLITS[split], "macro_f1": row["accuracy"] - 0.001}
        row |= {"macs_ff": row["macs_total"] - 100, "macs_heads": 100}
        for batch, part, whole_ms in ((1, 0.5, 0.2), (32, 0.8, 0.02), (512, 0.9, 0.005)):
            saved = part * (1 - row["macs_total"] / macs[-1])
            row[f"time_ms_batch_{batch}"] = (1 - saved) * whole_ms if split == "test" else None
    for row in rows:
        for name, base in (("cut", rows[reference - 1]), ("full", rows[depth - 1])):
            for column in ("macs_total", *(f"time_ms_batch_{batch}" for batch in (1, 32, 512))):
                saved = None if row[column] is None else 1 - row[column] / base[column]
                what, _, rest = column.partition("_")
                rest = "" if what == "macs" else rest.removeprefix("ms")
                row[f"{what}_saved_share_vs_{name}{rest}"] = saved
    return rows


def _early_exit(folder: Path, run: RunKey, sizes: Sequence[int]) -> None:
    rows = {split: early_exit_rows(run, sizes, split) for split in ("val", "test")}
    lines = [{"model": stamp(run), **row} for row in rows["val"] + rows["test"]]
    write_csv(folder / "early_exit.csv", list(lines[-1]), lines)
    cuts = [{"depth": d + 1, **{split: part[d] for split, part in rows.items()}} for d in range(run.depth)]
    chosen = next(i for i, row in enumerate(rows["val"]) if (row["rule"], row["k"]) == ("logit", 1.0))
    document = {
        "schema": 2,
        "run": _head(run),
        "static_cuts": cuts,
        "reference_cut": {"depth": max(run.depth - 1, 1), "choice": "cheapest cut"},
        "operating_point": {
            "rule": "logit",
            "k": 1.0,
            "choice": "largest MACs saved on validation within 0.1 points of full depth",
            **{split: part[chosen] for split, part in rows.items()},
        },
        "calibration": {"mu": [9.5] * run.depth, "sigma": [2.0] * run.depth},
    }
    (folder / "early_exit.json").write_text(json.dumps(document, default=float))


def deployed_ms(runtime: str, depth: float, size: int) -> float:
    """0.1 ms a layer in torch, a half of it in ONNX Runtime, a quarter in int8; in batches a tenth."""
    return 0.1 * depth * {"torch": 1, "onnxruntime": 0.5, "onnxruntime-int8": 0.25}[runtime] / (1 if size == 1 else 10)


def _deployed(folder: Path, run: RunKey) -> None:
    """Early exit goes through 1.25 layers of an image on average; TensorRT is not there."""
    reference, ways = max(run.depth - 1, 1), []
    for runtime in ("torch", "onnxruntime", "onnxruntime-int8"):
        for size in (1, 32, 512):
            for depth in (*range(1, run.depth + 1), None):
                layers = depth or 1.25
                time = deployed_ms(runtime, layers, size)
                spread = {"median": time, "p5": time * 0.9, "p95": time * 1.2, "low": time * 0.98, "high": time * 1.02}
                accuracy = final_accuracy(run) - 0.02 * (run.depth - (depth or run.depth))
                way = {"device": "cpu", "runtime": runtime, "path": "cut" if depth else "exit", "depth": depth}
                way |= {"batch_size": size, "is_reference_cut": int(depth == reference), "mean_layers": layers}
                way |= {"val_accuracy": accuracy + 0.003, "test_accuracy": accuracy}
                way["time_ms"] = {**spread, "method": "bootstrap BCa"}
                for base, other in (("cut", reference), ("full", run.depth)):
                    ratio = layers / other
                    ends = {"low": ratio * 0.98, "high": ratio * 1.02, "method": "bootstrap BCa"}
                    way[f"time_vs_{base}"] = {"estimate": ratio, **ends}
                ways.append(way)
    names = [*dict.fromkeys(way["runtime"] for way in ways), "tensorrt"]
    why = {"tensorrt": "tensorrt computes on cuda only"}
    runtimes = [{"device": "cpu", "name": "Made Processor 9000", "runtime": name} for name in names]
    runtimes = [one | {"available": one["runtime"] not in why, "reason": why.get(one["runtime"])} for one in runtimes]
    state = {"clocks_mhz": {}, "governor": {}, "power_mode": None, "jetson_clocks": None, "temperature_c": {}}
    document = {"schema": 1, "run": _head(run), "bundle": "0" * 64, "split": "test", "n": 10_000, "threads": 1}
    document |= {"repeats": 20, "samples": {"1": 48, "32": 96, "512": 512}, "seed": run.seed, "before": state}
    document |= {"versions": {"python": "3.11.7", "torch": "2.13.0", "ff": "0.1.0"}, "after": state}
    (folder / "export").mkdir(exist_ok=True)
    write_json(folder / "export/deployed.json", document | {"runtimes": runtimes, "ways": ways})


def _runtimes(folder: Path, run: RunKey, sizes: Sequence[int], torch_on_cpu: dict) -> None:
    """ONNX Runtime takes half of torch's time, int8 a quarter; TensorRT is not there."""
    (folder / "variance/runtimes").mkdir(exist_ok=True)
    for runtime, share in (("onnxruntime", 0.5), ("onnxruntime-int8", 0.25), ("tensorrt", None)):
        batches = []
        for batch in torch_on_cpu["batches"]:
            if batch["path"] == "end_to_end" and share is not None:
                time = {k: v * share if isinstance(v, float) else v for k, v in batch["latency_ms"].items()}
                rate = {k: None if v is None else v / share for k, v in batch["throughput_synchronised_per_s"].items()}
                batches.append(batch | {"latency_ms": time, "throughput_synchronised_per_s": rate, "energy": None})
        facts = {"name": "Made Processor 9000", "kind": "cpu", "available": share is not None, "reason": None}
        if share is None:
            facts |= {"name": None, "reason": "tensorrt computes on cuda only"}
        document = torch_on_cpu | {"device": facts, "runtime": runtime, "batches": batches}
        document["file_bytes"] = parameters(sizes) * (1 if share == 0.25 else 4)
        write_json(folder / f"variance/runtimes/cpu_{runtime}.json", document)


def _variance(folder, run: RunKey, sizes, devices, repeats: int, power: bool, rng, spread: float) -> None:
    (folder / "variance").mkdir(exist_ok=True)
    for device in ("cpu", "cuda"):
        present = device in devices
        facts = {"name": f"Made {device}", "kind": device, "available": present}
        facts["reason"] = None if present else "no CUDA device on this machine"
        batches, rows = [], []
        threads = (THREADS if device == "cpu" else (1,)) if present else ()
        for count in threads:
            for path, extra in (("deploy", 0.0), ("end_to_end", 0.05)):
                for batch in BATCHES:
                    middle = latency_ms(device, batch, sizes, count) + extra
                    middle *= float(np.exp(spread * rng.normal())) if spread else 1.0
                    times = _times(middle, 120 if batch == 1 and path == "deploy" else repeats, rng)
                    cell = {"model": stamp(run), "device": device, "threads": count, "path": path, "batch_size": batch}
                    rows += [
                        {**cell, "repeat": i, "order": i, "latency_ms": float(value), "device_ms": None}
                        for i, value in enumerate(times)
                    ]
                    entry = _batch(cell, middle, len(times), 50 + 0.1 * batch + parameters(sizes) * 4e-6)
                    if power and path == "deploy":
                        entry["energy"] = inference_energy(9.0 * middle / batch, 4.0 * middle / batch)
                    batches.append(entry)
        idle = {"total": _around(IDLE_MW, 4), "rails": {"VDD_IN": _around(IDLE_MW, 4)}, "windows_mw": [IDLE_MW] * 4}
        conditions = {
            "threads": list(threads),
            "cores": max(THREADS),
            "matmul_precision": "highest",
            "float32_products": "onednn",
            "versions": {"python": "3.11.7", "torch": "2.13.0", "ff": "1"},
            "before": _state({"CPU": 40.0}),
            "after": _state({"CPU": 44.0}),
            "power": {
                "source": "tegrastats" if power else None,
                "period_s": 0.5 if power else None,
                "reason": None if power else "no power sensor can be read on this machine",
                "idle_mw": idle if power else None,
            },
        }
        document = {"schema": 3, "run": _head(run), "device": facts, "conditions": conditions, "seed": 1}
        document |= {"runtime": "torch", "file_bytes": 4 * parameters(sizes)}
        document["times"] = {
            "repeats": repeats,
            "single_samples": 120,
            "rounds": 5,
            "queued_windows": 5,
            "warm_up_s": 0.5,
        }
        document |= {"measured_together": list(devices), "peak_memory_source": "made", "batches": batches}
        write_json(folder / "variance" / f"{device}.json", document)
        if device == "cpu" and present:
            _runtimes(folder, run, sizes, document)
        columns = ("model", "device", "threads", "path", "batch_size", "repeat", "order", "latency_ms", "device_ms")
        write_csv(folder / "variance" / f"{device}.csv", columns, rows)
    both = "cuda" in devices
    agreement = {"schema": 1, "run": _head(run), "devices": ["cpu", "cuda"], "available": both}
    agreement |= {"reason": None if both else "no CUDA device on this machine", "n": 10_000 if both else None}
    agreement |= {
        "same_predictions_share": 0.9999 if both else None,
        "max_logit_difference": 1e-4 if both else None,
    }
    agreement["differing"] = [{"index": 7, "margin_cpu": 1e-5, "margin_cuda": 2e-5}] if both else []
    write_json(folder / "variance" / "agreement.json", agreement)
    if power:
        windows = {f"energy:cpu:1:{batch}": _energy(10.0, 9000.0) for batch in (1, 512)}
        document = {"schema": 1, "model": stamp(run), "sources": {}, "energy": windows}
        write_json(folder / "variance" / "hardware.json", {**document, "run_energy": _run_energy(windows)})


def _times(middle: float, count: int, rng) -> np.ndarray:
    """Pairs around the middle keep the median exactly there; exponential tails make it look real."""
    tail = rng.exponential(0.03 * middle, count // 2)
    return rng.permutation(np.concatenate([middle + tail, middle - tail / 3]))


def _batch(cell: dict, middle: float, count: int, memory_mb: float) -> dict:
    batch, low, high = cell["batch_size"], middle * 0.99, middle * 1.01
    rate = {"median": 1000 * batch / middle, "low": 1000 * batch / high, "high": 1000 * batch / low}
    queued = None
    if cell["path"] == "deploy":
        windows = [
            {
                "order": i,
                "batches": 10,
                "seconds": 10 * batch / (2 * rate["median"]),
                "samples_per_s": 2 * rate["median"],
            }
            for i in range(5)
        ]
        queued = {**{name: 2 * value for name, value in rate.items()}, "method": "bootstrap BCa", "windows": windows}
    times = {"median": middle, "p5": middle * 0.97, "p95": middle * 1.1, "low": low, "high": high}
    return {
        **{name: cell[name] for name in ("threads", "path", "batch_size")},
        "n_repeats": count,
        "latency_ms": {**times, "method": "bootstrap BCa"},
        "device_ms": None,
        "throughput_synchronised_per_s": rate,
        "throughput_queued_per_s": queued,
        "peak_memory_mb": memory_mb,
        "energy": None,
    }


def _around(mean: float, n: int) -> dict:
    return {"n": n, "mean": mean, "low": 0.9 * mean, "high": 1.1 * mean, "method": "Student t"}


def inference_energy(gross: float, net: float) -> dict:
    """VDD_IN is the total; VDD_CPU takes a third of it."""
    rails = {
        rail: {
            "rail": rail,
            "gross_mj_per_sample": _around(gross * share, 3),
            "net_mj_per_sample": _around(net * share, 3),
            "power_mw": _around(9000.0 * share, 3),
            "idle_mw": _around(IDLE_MW * share, 3),
        }
        for rail, share in (("VDD_IN", 1.0), ("VDD_CPU", 1 / 3))
    }
    window = {"window_s": 10.0, "inferences": 1000, "readings": 40, "power_mw": 9000.0, "idle_mw": IDLE_MW}
    window |= {"rail": "VDD_IN", "gross_mj_per_sample": gross, "net_mj_per_sample": net}
    windows = [{"order": order, **window} for order in range(3)]
    return {"total": rails["VDD_IN"], "rails": rails, "windows": windows, "shared": None}


def _state(temperature_c: dict) -> dict:
    facts = {"clocks_mhz": {}, "governor": {"cpu": "performance"}, "power_mode": None, "jetson_clocks": None}
    return {**facts, "temperature_c": temperature_c}
