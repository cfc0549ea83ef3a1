"""What a seed costs that is trained in a group: S networks in one batched problem, for S = 1, 3, 4, 16.

    python benchmarks/seeds.py [--layers 784,200,200,10] [--seeds 1 3 4 16] [--device cpu] [--json FILE]

Times training steps of the first phase of each rule, group sizes in turns, and gives milliseconds a step and seed, and
their ratio to S = 1: below 1 a group is faster than its seeds one after the other, start-up not counted. Made images.
What `group_seeds: auto` trains together (`ff.workflow.resources.gains_together`) follows from this table.
"""

import sys

import torch
from alternate import arguments, begin, made_trainer, report, seconds
from products import steps

NETWORKS = ("784,100,100", "784,200,200,10", "784,500,500,10", "784,1000,1000,1000")


def main() -> int:
    """Command line; gives the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--layers", nargs="*", default=list(NETWORKS))
    parser.add_argument("--recipes", nargs="*", default=["ff", "bp"])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 3, 4, 16], help="group sizes (default: 1 3 4 16)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    begin(args.threads)
    rows = []
    for layers in args.layers:
        for recipe in args.recipes:
            values = {"layers": layers, "recipe": recipe, "precision": args.precision}
            sides = {str(s): steps(made_trainer(range(s), args.device, **values), args.steps) for s in args.seeds}
            took = seconds(sides, args.repeats, args.device)
            each = {s: 1000 * took[str(s)] / args.steps / s for s in args.seeds}
            rows += [
                {**values, "seeds": s, "step_ms_per_seed": each[s], "ratio": each[s] / each[args.seeds[0]]}
                for s in args.seeds
            ]
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    kinds = {"step_ms_per_seed": ".3f", "ratio": ".2f"}
    report(rows, {"device": device, "steps": args.steps}, args.json, dict.fromkeys(rows[0], "") | kinds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
