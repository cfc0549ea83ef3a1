"""The code behind a job as a hash for its params, so that changed code is rerun.

What a rule's script imports is found (`ff.provenance`); named here is only what is imported by a name that is known at
run time: the modules that draw figures, and the learning rules.
"""

import functools
from collections.abc import Sequence

from ff import provenance
from ff.learn.recipes import rule_of
from ff.learn.rules import RULES
from ff.settings import RunConfig
from ff.summary.figures import FIGURES

SOURCES = provenance.Sources()


@functools.cache
def code(*entries: str, without: Sequence[str] = ()) -> str:
    """Hash of the code that scripts and modules reach, but for what `without` alone reaches."""
    return SOURCES.hash(*entries, without=without)


def code_of_run(script: str, run: RunConfig) -> str:
    """Hash of a script's code with the learning rule of the run and no other."""
    return code(script, rule_of(run).__name__)


def training_code(run: RunConfig) -> str:
    """Hash of the code that a run's training depends on."""
    return code("workflow/scripts/train.py", rule_of(run).__name__, without=provenance.NOT_TRAINING)


def code_of_all_runs(script: str, figures: str | None = None) -> str:
    """Hash of a script's code with all learning rules, and with what draws the figures of a family."""
    drawing = {spec.function.partition(":")[0] for spec in FIGURES.values() if spec.family == figures}
    modules = [f"ff.summary.figures.{module}" for module in sorted(drawing)]
    return code(script, *(module.__name__ for module in RULES.values()), *modules)
