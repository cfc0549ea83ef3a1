"""In which order recipes are shown, and which of them are the control: what they are held against.

A control is a recipe of a learning rule that is one (`ff.learn.rule`), such as backpropagation. Its name does not tell:
a configuration's own recipe may have `base: bp`. The runs say it themselves (column `method` of the table runs), so
whoever writes tables, draws figures or writes the report does it within `controls_of` that table; outside of it the
built-in recipes are known.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ff.learn.recipes import RECIPES
from ff.learn.rules import RULES
from ff.settings import RunConfig

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = frozenset(rule.NAME for rule in RULES.values() if rule.IS_CONTROL)
_BUILT_IN = frozenset(name for name, settings in RECIPES.items() if settings.method in CONTROLS)
_controls: ContextVar[frozenset[str]] = ContextVar("controls", default=_BUILT_IN)


@contextmanager
def controls_of(runs: "pd.DataFrame") -> Iterator[None]:
    """Within the block, the controls are those of the table `runs`, and the built-in ones that have no finished run."""
    known = runs.dropna(subset=["method"])
    found = set(known.loc[known["method"].isin(CONTROLS), "recipe"])
    token = _controls.set(frozenset(found | (_BUILT_IN - set(known["recipe"]))))
    try:
        yield
    finally:
        _controls.reset(token)


def is_control(recipe: str) -> bool:
    """Whether a recipe is a control."""
    return recipe in _controls.get()


def place(recipe: str) -> tuple[int, str]:
    """Sort key: the default recipe first, then recipes of a user's own, then the other built-in ones, controls last.

    So `a minus b` of two recipes reads "ff minus bp", and the first that is there is the one to show alone.
    """
    if is_control(recipe):
        return 3, recipe
    return (0 if recipe == RunConfig.recipe else 2 if recipe in RECIPES else 1), recipe
