"""What training seeds together costs for each, against training them alone.

    python benchmarks/group_seeds.py [--data-dir ROOT] [--networks DIGITS/784,100,100 MNIST/784,200,200,10 ...]
                               [--seeds 1 3 4 16] [--epochs 1] [--repeats 5] [--device cpu] [--json FILE]

For each network and each number of seeds S: seconds of `--epochs` epochs of each phase, validation included, for one
seed (the group's seconds divided by S), and its ratio to S = 1. Group sizes take turns in one process, so that a
machine that slows down slows all of them; the figures are medians over the repeats, and of ratios of neighbours. What
`group_seeds: auto` trains together (`ff.workflow.resources.gains_together`) follows from this table.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from ff.data.images import standardise
from ff.data.prepared import open_or_prepare
from ff.learn.recipes import make_run_config
from ff.learn.trainer import Trainer

NETWORKS = (
    *("DIGITS/784,100,100", "DIGITS/784,300,300", "MNIST/784,100,100", "MNIST/784,200,200,10"),
    *("MNIST/784,500,500,10", "MNIST/784,1000,1000,1000"),
)
DIGITS = {"train_batch_size": 32, "val_size": 287}


def seconds(config, seeds, images) -> float:
    """Seconds of a training of `seeds` together, validation included and the making of the networks not."""
    trainer = Trainer(config, range(seeds), images)
    start = time.perf_counter()
    for phase, _ in trainer.schedule:
        for _ in trainer.epochs(phase):
            pass
    return time.perf_counter() - start


def measured(network: str, arguments: argparse.Namespace, prepared_dir: str) -> list[dict]:
    """A row for each group size."""
    dataset, layers = network.split("/")
    values = {"dataset": dataset, "layers": layers} | (DIGITS if dataset == "DIGITS" else {})
    config = make_run_config(values | {"rep_epochs": arguments.epochs, "softmax_epochs": arguments.epochs}, {})[0]
    prepared = open_or_prepare(dataset, arguments.data_dir, prepared_dir, False)
    images = standardise(prepared.train, prepared.facts, torch.device(arguments.device), torch.float32)
    seconds(replace(config, rep_epochs=1, softmax_epochs=1), max(arguments.seeds), images)  # untimed
    each: dict[int, list[float]] = {count: [] for count in arguments.seeds}
    for _ in range(arguments.repeats):
        for count in arguments.seeds:
            each[count].append(seconds(config, count, images) / count)
    alone = each[arguments.seeds[0]]
    return [
        {
            "network": network,
            "seeds": count,
            "seconds_per_seed": statistics.median(times),
            "against_alone": statistics.median(one / other for one, other in zip(times, alone, strict=True)),
        }
        for count, times in each.items()
    ]


def main() -> None:
    """Measure, print the table, write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="DATASET/LAYERS")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 3, 4, 16], help="group sizes; the first is alone")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    print(f"{'network':28} {'S':>3} {'s per seed':>11} {'against S = ' + str(arguments.seeds[0]):>15}")
    with tempfile.TemporaryDirectory() as prepared_dir:
        for network in arguments.networks:
            for row in measured(network, arguments, prepared_dir):
                rows.append(row)
                print(
                    f"{network:28} {row['seeds']:3} {row['seconds_per_seed']:11.3f} {row['against_alone']:15.2f}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": arguments.threads, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
