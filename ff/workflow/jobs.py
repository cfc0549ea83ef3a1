"""Which runs a job is for: one, or several seeds of a cell.

What starts Python and torch for a second of work costs as much in starting as in working; so a job may have several
seeds of a cell (data set, layers, recipe). Every file stays a target of its own: such a job is for those runs alone
whose files are not there yet, so a finished run is not made again for the sake of one that is added, and a run that is
asked for by its path has jobs of its own.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from ff.layout import SEED, WILDCARDS, RunKey, job_log

SEVERAL = 4
"""Seeds of a job at most, unless the configuration says all of them: more gain nothing on a CPU
(benchmarks/seeds.py), and what a job loses when it fails, or holds back from another core, grows."""
LONGEST_NAME = 200
"""Of a rule, in characters: files are named after it."""
_GROUP = re.compile(rf"([a-z_]+?)_seeds((?:_(?:{SEED}))+)")


class Jobs(NamedTuple):
    """The jobs of one rule: each for one run (no `seeds`), or for these `seeds` of one of `cells` (none: of any)."""

    stage: str
    seeds: tuple[int, ...] = ()
    cells: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The rule's name: `train`, or `train_seeds_0_1`. A node of a cluster learns from it which seeds they are."""
        return "_".join([self.stage, "seeds", *map(str, self.seeds)]) if self.seeds else self.stage

    @property
    def size(self) -> int:
        """How many runs a job is for."""
        return len(self.seeds) or 1

    @property
    def names(self) -> list[str]:
        """Patterns of the names of a job's runs."""
        return [f"{{cell}}/seed{seed}" for seed in self.seeds] or [WILDCARDS.name]

    @property
    def title(self) -> str:
        """Pattern of a name for a job: that of its run, or `MNIST/784-200-10/ff/seed0,1`."""
        return f"{{cell}}/seed{','.join(map(str, self.seeds))}" if self.seeds else WILDCARDS.name

    @property
    def cell(self) -> str:
        """Regular expression of the wildcard `cell`."""
        return "|".join(map(re.escape, self.cells)) or ".+"

    @property
    def message(self) -> str:
        """What Snakemake says of a job, when it begins and in a dry run: `train MNIST/784-200-10/ff/seed0,1`."""
        return f"{self.stage} {self.title}".replace("{", "{wildcards.")

    def logs(self, results: str) -> list[str]:
        """Patterns of the logs of a job's runs."""
        return [job_log(results, self.stage).replace(WILDCARDS.name, name) for name in self.names]

    def paths(self, folder: str, files: Iterable[str]) -> list[str]:
        """Patterns of `files` of each of a job's runs, below `folder`."""
        files = list(files)
        return [f"{folder}/{name}/{file}" for name in self.names for file in files]


def run_of(wildcards: Iterable[tuple[str, str]], seed: int = 0) -> RunKey:
    """The run of a job; of several, the one with `seed`."""
    values = dict(wildcards)
    return RunKey.parse(f"{values['cell']}/seed{seed}") if "cell" in values else RunKey.of({"seed": seed, **values})


def named(words: Iterable[str], stage: str) -> list[Jobs]:
    """The rules for several seeds that words of a command line name: what a node of a cluster is started with."""
    found = [match for match in map(_GROUP.fullmatch, words) if match is not None and match[1] == stage]
    return [Jobs(stage, tuple(map(int, match[2].split("_")[1:]))) for match in found]


def together(
    stage: str, runs: Iterable[RunKey], pending: Callable[[RunKey], bool], most: int
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Seeds that share a job of `stage`, and their cell.

    Each cell's seeds are dealt to equal parts of at most `most`, whatever is finished: so the same call comes to the
    same parts after an interruption. Of a part, the runs that are `pending` share a job, if there are two.
    """
    cells: dict[str, list[RunKey]] = {}
    for run in sorted(dict.fromkeys(runs), key=lambda run: run.seed):
        cells.setdefault(run.cell, []).append(run)
    for cell, members in cells.items():
        for part in _parts(stage, [run.seed for run in members], most):
            seeds = tuple(run.seed for run in members if run.seed in part and pending(run))
            if len(seeds) > 1:
                yield seeds, cell


def _parts(stage: str, seeds: Sequence[int], most: int) -> list[Sequence[int]]:
    """`seeds` in their order in as few parts as can be, equal but for one seed, of rules with a name short enough."""
    for count in range(-(-len(seeds) // max(1, most)), len(seeds)):
        cuts = [len(seeds) * index // count for index in range(count + 1)]
        parts = [seeds[start:end] for start, end in pairwise(cuts)]
        if all(len(Jobs(stage, tuple(part)).rule) <= LONGEST_NAME for part in parts):
            return parts
    return [[seed] for seed in seeds]
