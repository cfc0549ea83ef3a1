"""The scoreboard: which recipe reaches what on a data set and network, and at what cost."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import pandas as pd

from ff import statistics
from ff.layout import RunKey
from ff.learn.rules import PHASES, READOUTS, RULES
from ff.summary.recipe_order import is_control, place
from ff.summary.tables.rows import KEYS, columns, typed
from ff.summary.tables.training import energy_over_seeds

SCOREBOARD = columns(
    "dataset layers recipe rule readout n_seeds n_images accuracy low high method total_low total_high total_method "
    "val_accuracy control n_pairs difference_points difference_low difference_high difference_method "
    "macs_train_epoch macs_inference seconds_train seconds_train_low seconds_train_high seconds_train_method "
    "peak_memory_mb peak_memory_device_mb n_energy energy_gross_mj energy_gross_low_mj energy_gross_high_mj "
    "energy_method energy_shared runs"
)
NETWORK = ["dataset", "layers"]
SEPARATOR = "; "
"""Between the names in the column `runs`."""


class _Cell(NamedTuple):
    """The runs of a recipe on a data set and network: its named readout at full depth, a row a seed, of each split."""

    key: tuple[str, str, str]
    rule: str | None
    readout: str
    test: pd.DataFrame
    val_accuracy: float | None

    @property
    def points(self) -> dict[Hashable, float | None]:
        return dict(zip(self.test["seed"], 100 * self.test["accuracy"], strict=True))


def scoreboard(runs: pd.DataFrame, accuracy: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """One row per data set, network and recipe, of the tables runs, accuracy and training.

    `readout` is the first of the learning rule's that the runs have: what they deploy, named by the rule and not chosen
    by results. Accuracies are on test at full depth, with the intervals of accuracy_summary. `difference_points` is
    the recipe minus the `control` of the same network, paired over seeds as in recipes; of several controls it is the
    one with the best mean `val_accuracy`. Costs are means over seeds: MACs of an epoch of the first phase (of a sample
    times the training images) and of one inference, seconds in which layers and heads learned, the highest use of
    memory of process and device, gross energy of the whole run. `runs` names the runs that all of it is of.
    """
    rows: list[tuple] = []
    last = accuracy[accuracy["is_last"] == 1]
    rules = runs.dropna(subset=["method"]).drop_duplicates(["dataset", "layers", "recipe"])
    rule_of = {tuple(row[:3]): row[3] for row in rules[[*NETWORK, "recipe", "method"]].itertuples(index=False)}
    trained = dict(iter(training.groupby([*NETWORK, "recipe"], sort=False)))
    for network, part in last.groupby(NETWORK, sort=False):
        cells = [
            cell
            for recipe, of_recipe in part.groupby("recipe", sort=False)
            if (cell := _cell((*network, recipe), of_recipe, rule_of.get((*network, recipe)))) is not None
        ]
        control = _control(cells)
        for cell in cells:
            costs = _costs(cell, part, trained.get(cell.key, training.iloc[:0]))
            rows.append((*_accuracies(cell), *_difference(cell, control), *costs, _names(cell)))
    return typed(pd.DataFrame(rows, columns=list(SCOREBOARD)))


def _cell(key: tuple[str, str, str], results: pd.DataFrame, rule: str | None) -> _Cell | None:
    named = [readout.name for readout in RULES[rule].READOUTS] if rule in RULES else READOUTS
    test = results[results["split"] == "test"]
    readout = next((name for name in named if name in set(test["readout"])), None)
    if readout is None:
        return None
    own = results[results["readout"] == readout]
    val = own[own["split"] == "val"]["accuracy"]
    test = own[own["split"] == "test"].dropna(subset=["accuracy"])
    return _Cell(key, rule, readout, test, float(val.mean()) if len(val) else None)


def _control(cells: Sequence[_Cell]) -> _Cell | None:
    """The control that is best on validation: one that was tuned less well than it could be would flatter the rest."""
    controls = sorted((cell for cell in cells if is_control(cell.key[2])), key=lambda cell: place(cell.key[2]))
    return max(controls, key=lambda cell: cell.val_accuracy or 0.0, default=None)


def _accuracies(cell: _Cell) -> tuple:
    shares, images = cell.test["accuracy"], cell.test["n"].min()
    seeds, total = statistics.share_interval(shares), statistics.share_total_interval(shares, images)
    about = (*cell.key, cell.rule, cell.readout, seeds.n, images)
    return (*about, *seeds[1:], *total[2:], cell.val_accuracy)


def _difference(cell: _Cell, control: _Cell | None) -> tuple:
    if control is None or is_control(cell.key[2]):
        return (None,) * 6
    return (control.key[2], *statistics.paired_difference(cell.points, control.points, at_most=100))


def _costs(cell: _Cell, results: pd.DataFrame, trained: pd.DataFrame) -> tuple:
    trained = trained[trained["seed"].isin(cell.test["seed"])]
    # Some readouts score a sample of the training split, the others all of it.
    images = results[(results["recipe"] == cell.key[2]) & (results["split"] == "train")].groupby("seed")["n"].max()
    epoch = (trained.set_index("seed")["macs_train_step"] * images).mean()
    learning = trained[[f"seconds_{phase}" for phase in PHASES]].sum(axis=1, min_count=1)
    seconds = statistics.mean_interval(learning, at_least=0)
    energy = energy_over_seeds(trained, "gross")
    memory = trained[["peak_memory_mb", "peak_memory_device_mb"]].mean()
    shared = trained["shared"].dropna()
    costs = (epoch, trained[f"macs_{cell.readout}_readout"].mean(), *seconds[1:], *memory)
    return (*costs, energy.n, *energy[1:], int((shared == 1).sum()) if len(shared) else None)


def _names(cell: _Cell) -> str:
    keys = cell.test[list(KEYS)].itertuples(index=False, name=None)
    return SEPARATOR.join(RunKey(*key).name for key in keys)
