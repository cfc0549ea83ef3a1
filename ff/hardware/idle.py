"""Idle power: windows of their own, in which the process that measures has everything loaded and does nothing.

    with record(log):
        ... load data, build the network ...
        idle_window(phases, IDLE_BEFORE, 5.0)
        ... train, evaluate ...
        idle_window(phases, IDLE_AFTER, 5.0)

Nothing else is a baseline: not the readings of start-up, nor those between jobs. A window is a phase like any other, so
it is the same whether the samples come from a recorder in the process or from a sidecar beside it; a run that is
resumed marks new ones. `ff.hardware.attribution` subtracts the level from the energy of the other phases.
"""

import os
import time
from collections.abc import Callable

from ff.hardware.sources import open_power_source
from ff.phases import PhaseLog

# The sensor and the samples around the window's start still show what was before.
_SETTLE_PERIODS = 2
SETTLE_S = 1.0


def idle_window(
    phases: PhaseLog,
    name: str,
    seconds: float,
    root: str | os.PathLike = "/",
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Do nothing for `seconds` and mark them as the phase `name`; returns whether that was done.

    Only where power can be read and `seconds` is above 0. Before the window two periods of the sensor pass, and at
    least a second.
    """
    period_s = _period_s(root) if seconds > 0 else None
    if period_s is None:
        return False
    sleep(max(_SETTLE_PERIODS * period_s, SETTLE_S))
    with phases.phase(name):
        sleep(seconds)
    return True


def _period_s(root: str | os.PathLike) -> float | None:
    source = open_power_source(root)
    if source is None:
        return None
    with source:
        return source.period_s
