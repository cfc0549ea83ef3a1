"""How long a training takes as a whole process, against importing torch; and what accuracy it reaches.

    python benchmarks/train_speed.py [--data-dir ROOT] [--repeats 5] [--accuracy]

Times `ff train --dataset MNIST --layers 784,200,200,10 --rep-epochs 10 --softmax-epochs 10 --seed 0`, on a prepared
set, from start to exit, against `python -c "import torch"`; both in one run and in turns, so that a machine that
slows down slows both. The limit is 12 times the import, the aim 6 times. `--accuracy` adds the mean test accuracy of
the recipes ff and edgeff over seeds 0, 1 and 2 (limits: 97.8 %, and 91 to 95 %).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = ["--dataset", "MNIST", "--layers", "784,200,200,10", "--rep-epochs", "10", "--softmax-epochs", "10"]
FF = [sys.executable, "-c", "import sys; from ff.cli import main; sys.exit(main())"]
IMPORT = [sys.executable, "-c", "import torch"]
LIMIT, AIM = 12, 6
ACCURACY_LIMITS = {"ff": (0.978, 1.0), "edgeff": (0.91, 0.95)}
SEEDS = (0, 1, 2)


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from start to exit of a process; ends this one where that fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} ... failed:\n{done.stderr.strip()}")
    return seconds


def prepare(data_dir: str | None, prepared: Path, environment: dict[str, str]) -> None:
    """The prepared set, made outside the timing; says what to do where MNIST is missing."""
    where = ["--data-dir", data_dir] if data_dir else []
    done = subprocess.run(
        [*FF, "prepare", "MNIST", "--prepared-dir", str(prepared), *where],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(
            f"{done.stderr.strip().splitlines()[-1]}\n\nThis benchmark needs the official MNIST files. With a network, "
            "`ff prepare MNIST` fetches them; without one, copy them to ROOT/MNIST/raw and give --data-dir ROOT."
        )


def measure(train: list[str], run: Path, repeats: int, environment: dict[str, str]) -> None:
    """Time both processes in turns, print medians, ratio and where the seconds went."""
    timed(IMPORT, environment)  # Files into the page cache, for both.
    imports, trainings, phases = [], [], []
    for _ in range(repeats):
        imports.append(timed(IMPORT, environment))
        # A finished run would be left as it is, and nothing trained.
        trainings.append(timed([*train, "--seed", "0", "--overwrite"], environment))
        phases.append(json.loads((run / "metrics.json").read_text())["seconds"])
    shown("import torch", imports)
    shown("ff train", trainings)
    ratio = statistics.median(trainings) / statistics.median(imports)
    pairs = sorted(one / other for one, other in zip(trainings, imports, strict=True))
    verdict = "within the aim" if ratio <= AIM else "within the limit" if ratio <= LIMIT else "over the limit"
    print(f"\nratio of medians: {ratio:.2f} ({verdict}; aim {AIM}, limit {LIMIT})")
    print(f"ratios of neighbours: {pairs[0]:.2f} to {pairs[-1]:.2f}")
    print("\nseconds of a training by phase (medians):")
    for name in phases[0]:
        print(f"  {name:16} {statistics.median(p[name] for p in phases):7.3f}")
    outside = [whole - phase["total"] for whole, phase in zip(trainings, phases, strict=True)]
    print(f"  {'start, files, end':16} {statistics.median(outside):7.3f}")


def shown(name: str, seconds: list[float]) -> None:
    """One line of a timing."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"{name:14} median {middle:7.3f} s   (lowest {low:.3f}, highest {high:.3f}, n = {len(seconds)})")


def accuracy(train: list[str], out: Path, environment: dict[str, str]) -> None:
    """Mean test accuracy of the head over the seeds, for both recipes."""
    print("\ntest accuracy of the head:")
    for recipe, (low, high) in ACCURACY_LIMITS.items():
        found = []
        for seed in SEEDS:
            timed([*train, "--recipe", recipe, "--seed", str(seed)], environment)
            metrics = json.loads((out / f"MNIST/784-200-200-10/{recipe}/seed{seed}/metrics.json").read_text())
            found.append(metrics["final"]["test_accuracy"])
        mean = statistics.mean(found)
        verdict = "as it should be" if low <= mean <= high else f"NOT within {low:.1%} to {high:.1%}"
        seeds = ", ".join(f"{value:.2%}" for value in found)
        print(f"  {recipe:7} mean {mean:.2%} ({verdict}); seeds {', '.join(map(str, SEEDS))}: {seeds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="torchvision-style data root with MNIST [FF_DATA_DIR, else data]")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each process [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of both processes [%(default)s]")
    parser.add_argument("--accuracy", action="store_true", help="also train three seeds of ff and edgeff")
    chosen = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(chosen.threads),
        # What is timed is the training, not a server's answer.
        "WANDB_MODE": "disabled",
    }
    with tempfile.TemporaryDirectory() as folder:
        prepared, out = Path(folder, "prepared"), Path(folder, "results")
        prepare(chosen.data_dir, prepared, environment)
        train = [*FF, "train", *COMMAND, "--prepared-dir", str(prepared), "--out", str(out)]
        busy = os.getloadavg()[0]
        if busy > 0.5:
            print(f"note: {busy:.1f} processes ran beside this one in the last minute: a busy machine")
        print(f"{os.cpu_count()} CPUs, {chosen.threads} threads: {' '.join(['ff train', *COMMAND, '--seed 0'])}\n")
        measure(train, out / "MNIST/784-200-200-10/ff/seed0", chosen.repeats, environment)
        if chosen.accuracy:
            accuracy(train, out, environment)


if __name__ == "__main__":
    main()
