"""How near training comes to what its products alone take: a step of each rule against the products of that step.

    python benchmarks/products.py [--recipes ff bp] [--repeats 5] [--steps 20] [--json FILE]

The products of one step are recorded with their shapes, and computed by themselves on tensors that lie ready, by the
same library and in the same number format, in turns with whole steps (the roofline). Networks: 784,200,200,10;
784,1000,1000,1000; 784,2000,2000,2000,2000; 3072,1000,1000. Aims: at width 1000 and above 75 % in float32 and 65 % in
bfloat16, at 200 45 %. Made images; nothing is learnt or read.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from alternate import arguments, begin, made_trainer, report, seconds

from ff.learn import products
from ff.learn.recipes import rule_of
from ff.learn.rule import LearningPhase
from ff.learn.rules import RULES
from ff.learn.step import Step, eager
from ff.learn.trainer import Trainer

NETWORKS = ("784,200,200,10", "784,1000,1000,1000", "784,2000,2000,2000,2000", "3072,1000,1000")
IMAGES = 50_000


def steps(
    trainer: Trainer, count: int, name: str | None = None, step_of: Callable[[LearningPhase], Step] = eager
) -> Callable[[], None]:
    """`count` training steps of phase `name`, by default the first."""
    phase = trainer.phases[name] if name else trainer.learner.phases[0]
    phase.begin(trainer.split.train.to(trainer.device))
    batches = [batch for batch, _ in zip(trainer.batches(phase, 1), range(count), strict=False)]
    step = step_of(phase)

    def run() -> None:
        for batch in batches:
            for optimiser in phase.optimisers.values():
                optimiser.begin_step(1e-4)
            step(batch)

    return run


def recorded(run: Callable[[], None]) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
    """Copies of the factors of all products of `run`, with their strides, and the precision of each."""
    found: list[tuple[torch.Tensor, torch.Tensor, str]] = []
    original = products._multiply

    def recording(a: torch.Tensor, b: torch.Tensor, precision: str, **options: Any) -> torch.Tensor:
        found.append((a.clone(), b.clone(), precision))
        return original(a, b, precision, **options)

    products._multiply = recording
    try:
        run()
    finally:
        products._multiply = original
    return found


def row(layers: str, recipe: str, precision: str, count: int, repeats: int, device: str = "cpu") -> dict[str, Any]:
    """The figures of a network."""
    trainer = made_trainer(device=device, layers=layers, recipe=recipe, precision=precision)
    factors = recorded(steps(trainer, 1))

    def alone() -> None:
        for _ in range(count):
            for a, b, kind in factors:
                products._multiply(a, b, kind)

    took = seconds({"step": steps(trainer, count), "products": alone}, repeats, device)
    macs = sum(a.numel() * b.shape[-1] for a, b, _ in factors)
    counted = rule_of(trainer.config).training_macs(trainer.config)
    batches = -(-IMAGES // trainer.config.train_batch_size)
    return {
        "layers": layers,
        "recipe": recipe,
        "precision": precision,
        "step_ms": 1000 * took["step"] / count,
        "products_ms": 1000 * took["products"] / count,
        "share": took["products"] / took["step"],
        "products_gflops": 2e-9 * macs * count / took["products"],
        "training_gflops": 2e-9 * counted * trainer.config.train_batch_size * count / took["step"],
        "epoch_s": batches * took["step"] / count,
    }


def main() -> int:
    """Command line; gives the exit status: 1 where an aim is missed."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="training steps of a turn (default: 20)")
    parser.add_argument("--only", nargs="*", default=NETWORKS, help="networks (default: all)")
    # A recipe of each rule: those of one multiply the same.
    recipes = [next(iter(rule.RECIPES)) for rule in RULES.values()]
    parser.add_argument("--recipes", nargs="*", default=recipes, help=f"(default: {' '.join(recipes)})")
    args = parser.parse_args()
    begin(args.threads)
    rows = [
        row(layers, recipe, precision, args.steps, args.repeats)
        for layers in args.only
        for recipe in args.recipes
        for precision in ("float32", "bfloat16")
    ]
    kinds = {"step_ms": ".2f", "products_ms": ".2f", "share": ".0%", "products_gflops": ".0f", "training_gflops": ".0f"}
    report(rows, vars(args) | {"json": None}, args.json, dict.fromkeys(rows[0], "") | kinds | {"epoch_s": ".2f"})
    missed = [found for found in rows if found["share"] < aim(found["layers"], found["precision"])]
    for found in missed:
        print(f"below the aim: {found['layers']} {found['recipe']} {found['precision']}")
    return 1 if missed else 0


def aim(layers: str, precision: str) -> float:
    """The share that a step should reach."""
    if "1000" not in layers and "2000" not in layers:
        return 0.45
    return 0.65 if precision == "bfloat16" else 0.75


if __name__ == "__main__":
    sys.exit(main())
