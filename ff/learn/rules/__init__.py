"""The learning rules, one a file: source, formulas, settings, recipes, phases, gradients, readouts, costs.

The files are found by themselves: a module put here is a rule (`ff.learn.rule.Rule` says what it holds).
"""

import pkgutil
from importlib import import_module

from ff.learn.rule import Rule

_MODULES: list[Rule] = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]

RULES: dict[str, Rule] = {rule.NAME: rule for rule in sorted(_MODULES, key=lambda rule: (rule.IS_CONTROL, rule.NAME))}
"""Rules by name, controls last."""
PHASES: tuple[str, ...] = tuple(dict.fromkeys(phase for rule in RULES.values() for phase in rule.PHASES))
"""Names of all phases of all rules."""
READOUTS: tuple[str, ...] = tuple(dict.fromkeys(readout.name for rule in RULES.values() for readout in rule.READOUTS))
"""Names of all readouts of all rules."""
