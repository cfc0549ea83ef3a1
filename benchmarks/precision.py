"""Does bfloat16 cost accuracy? Trains networks in float32 and in bfloat16 with the same seeds, and compares them.

    python benchmarks/precision.py --dataset MNIST --layers 784,200,200,10 --recipe ff [--seeds 5] [--data-dir ROOT]

The difference in validation accuracy, bfloat16 minus float32, by the rule's first readout, is paired by seed, with
Student's 95 % interval. A row for the network goes into ff/learn/precision.csv, in the place of an earlier one;
`--precision auto` chooses by it. The test split has no say.
"""

import argparse
import csv
import dataclasses
import sys
import tempfile

from ff.files import read_json, write_csv
from ff.learn.precision import EVIDENCE
from ff.learn.readouts import score_name
from ff.learn.recipes import make_run_config, rule_of
from ff.learn.run import train
from ff.settings import ExecutionConfig, RunConfig
from ff.statistics import mean_interval

COLUMNS = ("dataset", "layers", "recipe", "epochs", "seeds", "difference_points", "low_points", "high_points")


def accuracy(config: RunConfig, execution: ExecutionConfig) -> float:
    """Validation accuracy of a training."""
    [folder] = train(config, execution)
    name = score_name("accuracy", rule_of(config).READOUTS[0].name)
    return read_json(folder / "metrics.json")["final"][f"val_{name}"]


def main() -> int:
    """Command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="MNIST")
    parser.add_argument("--layers", default="784,200,200,10")
    parser.add_argument("--recipe", default="ff")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--prepared-dir", default="data/prepared")
    args = parser.parse_args()
    values = {name: getattr(args, name) for name in ("dataset", "layers", "recipe")}
    differences = []
    with tempfile.TemporaryDirectory() as out:
        execution = ExecutionConfig(
            threads=args.threads,
            data_dir=args.data_dir,
            prepared_dir=args.prepared_dir,
            verify=False,
            out=out,
            sidecar="off",
        )
        for seed in range(args.seeds):
            config = make_run_config(values | {"seed": seed})[0]
            found = [
                accuracy(
                    dataclasses.replace(config, precision=precision),
                    dataclasses.replace(execution, out=f"{out}/{precision}"),
                )
                for precision in ("float32", "bfloat16")
            ]
            differences.append(100 * (found[1] - found[0]))
            print(f"seed {seed}: float32 {found[0]:.2%}, bfloat16 {found[1]:.2%}", flush=True)
    interval = mean_interval(differences)
    row = {"dataset": config.dataset, "layers": config.layers_name, "recipe": config.recipe}
    row |= {"epochs": f"{config.rep_epochs} + {config.softmax_epochs}", "seeds": args.seeds}
    for name, value in zip(COLUMNS[5:], (interval.estimate, interval.low, interval.high), strict=True):
        row[name] = f"{value:.3f}"
    with open(EVIDENCE, newline="") as file:
        rows = [old for old in csv.DictReader(file) if [old[name] for name in COLUMNS[:3]] != list(row.values())[:3]]
    write_csv(EVIDENCE, COLUMNS, sorted([*rows, row], key=lambda row: [row[name] for name in COLUMNS[:3]]))
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
