"""What an epoch of each rule costs against one of backpropagation, in time and in multiply-accumulates.

    python benchmarks/rules.py [--repeats 5] [--json FILE]

Whole epochs of the first phase, with their validation, on 20,000 made images, rules in turns, medians. Aim: no rule
takes more than 1.05 times what its multiply-accumulates say.
"""

import sys
from collections.abc import Callable

from alternate import arguments, begin, made_trainer, report, seconds

from ff.learn.recipes import RECIPES, rule_of
from ff.learn.trainer import Trainer

LIMIT = 1.05


def epoch(trainer: Trainer) -> Callable[[], object]:
    """The next epoch of the first phase."""
    epochs = trainer.epochs(trainer.schedule[0][0])
    return lambda: next(epochs)


def main() -> int:
    """Command line; gives the exit status: 1 where a rule takes longer than its share."""
    parser = arguments(__doc__)
    parser.add_argument("--layers", nargs="*", default=["784,200,200,10", "784,1000,1000,1000"])
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help="(default: all; bp is always among them)")
    args = parser.parse_args()
    recipes = dict.fromkeys([*args.recipes, "bp"])
    begin(args.threads)
    rows, missed = [], []
    for layers in args.layers:
        for precision in args.precisions:
            # One epoch more than is timed is warm-up; the last of a phase, which validates on all images, is left out.
            values = {"layers": layers, "precision": precision, "rep_epochs": args.repeats + 2}
            trainers = {name: made_trainer(recipe=name, **values) for name in recipes}
            took = seconds({name: epoch(trainer) for name, trainer in trainers.items()}, args.repeats)
            macs = {name: rule_of(t.config).training_macs(t.config) for name, t in trainers.items()}
            for name in trainers:
                row = {"layers": layers, "precision": precision, "recipe": name, "epoch_s": took[name]}
                row |= {"time_to_bp": took[name] / took["bp"], "macs_to_bp": macs[name] / macs["bp"]}
                row["time_to_macs"] = row["time_to_bp"] / row["macs_to_bp"]
                rows.append(row)
                if row["time_to_macs"] > LIMIT:
                    missed.append(f"above {LIMIT}: {layers} {precision} {name}")
    kinds = {"epoch_s": ".3f", "time_to_bp": ".2f", "macs_to_bp": ".2f", "time_to_macs": ".2f"}
    report(rows, {"images": 20_000}, args.json, dict.fromkeys(rows[0], "") | kinds)
    print(*missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
