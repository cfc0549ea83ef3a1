"""What a learning rule is: the interface between the modules of `ff.learn.rules` and everything else.

A module of that package is a rule; it holds what `Rule` lists. Nothing else in ff knows a rule by its name, so a new
rule needs one file there, and its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ff.learn.network import Network
from ff.learn.readouts import Readout

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from ff.data.images import Images
    from ff.learn.optimiser import Adam
    from ff.settings import RunConfig


class LearningPhase(NamedTuple):
    """Epochs in which the same parameters learn in the same way. S seeds, mini-batches of B images, L layers."""

    name: str
    """As history.csv, phases.csv and metrics.json call it."""
    epochs: int
    gradients: Callable[[Tensor, Tensor | None], Tensor]
    """Fills the optimisers' gradients for training images `rows` [S, B] and what was drawn for them [S, B, ...];
    returns the loss [1, S, L], or with the mean goodness of positives and negatives [3, S, L]."""
    optimisers: Mapping[str, Adam]
    """What takes a step after each mini-batch, by the setting that holds its learning rate."""
    readout: Readout
    """What the phase trains; validation accuracy is that of this readout. What it says does not change in later phases
    that train another one."""
    draw: Callable[[Generator, int], Tensor] | None = None
    """Random numbers [n, ...] for the n training images of an epoch."""
    begin: Callable[[Tensor], None] = lambda rows: None
    """Called before the first epoch of the phase in this process, with all image `rows` [S, n] that it goes through."""
    said: Callable[[Tensor], Tensor] | None = None
    """What the readout says of training images `rows` [S, B] that the phase went through, [S, B, L, C], where the phase
    has kept something that makes it cheaper than from the images."""
    end: Callable[[], None] = lambda: None
    """Called when nothing is asked of the phase any more: what it has kept may go."""


class Learner(Protocol):
    """A rule at work on S networks of one configuration."""

    network: Network
    optimisers: Mapping[str, Adam]
    """All of them by name; with the network's other tensors fixed, they are the state that a run resumes from."""
    phases: Sequence[LearningPhase]


class Rule(Protocol):
    """What a module of `ff.learn.rules` holds. It must be readable without importing torch (`ff.learn.lazy`)."""

    __name__: str
    """The module's own."""
    NAME: str
    """The setting `method` of its recipes."""
    IS_CONTROL: bool
    """Whether it is a control, which other rules are held against: tables and figures show controls last."""
    Settings: type
    """A frozen dataclass of `ff.settings.setting` fields with defaults, `method` among them; fields that bear the name
    of a field of `Network` are handed to it."""
    RECIPES: Mapping[str, Any]
    """Named blocks of Settings."""
    PHASES: Sequence[str]
    """Names of all phases that its learner can have, in their order."""
    READOUTS: Sequence[Readout]
    """How its networks answer; the first is the one that early exit and deployment use."""
    Learner: Callable[[Network, Images, RunConfig], Learner]

    def training_macs(self, layers: Sequence[int]) -> int:
        """Multiply-accumulates of one training sample in the first phase (heads not counted)."""

    def remarks(self, config: RunConfig, given: Collection[str]) -> list[str]:
        """Warnings about settings that leave a readout untrained or, of those `given`, have no effect."""
