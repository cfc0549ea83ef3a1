"""Does early exit save time as it saves work, and more than a network of fewer layers?

Trains MNIST 784,1000,1000,1000,1000 and prints, for the network cut after each layer and for each threshold
of the logit rule at batch 512, multiply-accumulates and measured time saved against full depth, their ratio
(aim: 0.8), and both against the cheapest cut that is as accurate on validation (marked *).

    python benchmarks/early_exit_time.py [--data-dir FOLDER] [--threads 1] [--epochs 4]

Wants an otherwise idle machine. The network is kept in the folder given by --out, so a second call measures only.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

LAYERS = "784,1000,1000,1000,1000"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="torchvision-style data root (default: FF_DATA_DIR or data)")
    parser.add_argument("--threads", default="1", help="CPU threads of training and measuring")
    parser.add_argument("--epochs", default="4", help="epochs of each phase")
    parser.add_argument("--out", default="benchmarks/results", help="where the run folder goes")
    args = parser.parse_args()
    ff = [sys.executable, "-c", "import sys; from ff.cli import main; sys.exit(main())"]
    run = Path(args.out) / "MNIST" / LAYERS.replace(",", "-") / "ff" / "seed0"
    data = ["--data-dir", args.data_dir] if args.data_dir else []
    if not (run / "metrics.json").exists():
        epochs = ["--rep-epochs", args.epochs, "--softmax-epochs", args.epochs]
        train = ["train", "--layers", LAYERS, *epochs, "--threads", args.threads, "--out", args.out, "--no-wandb"]
        subprocess.run([*ff, *train, *data], check=True)
    subprocess.run([*ff, "evaluate", str(run), "--early-exit", "--threads", args.threads, *data], check=True)
    with open(run / "early_exit.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test" and row["rule"] != "probability"]
    print("        against                   full depth                the cut *")
    print("         test accuracy     MACs     time   ratio        MACs     time")
    for row in rows:
        name = (
            f"cut {row['depth']}{' *' * int(row['is_reference_cut'])}" if row["depth"] else f"k {float(row['k']):5.2f}"
        )
        saved = {base: float(row[f"macs_saved_share_vs_{base}"]) for base in ("full", "cut")}
        times = {base: float(row[f"time_saved_share_vs_{base}_batch_512"]) for base in ("full", "cut")}
        ratio = f"{times['full'] / saved['full']:5.2f}" if saved["full"] > 0.05 else "    -"
        print(
            f"{name:<10}{float(row['accuracy']):12.2%}  {saved['full']:8.1%} {times['full']:8.1%}   {ratio}"
            f"    {saved['cut']:8.1%} {times['cut']:8.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
