"""What a learning rule is: the interface between the modules of `ff.learn.rules` and everything else.

A module of that package is a rule; it holds what `Rule` lists. Nothing else in ff knows a rule by its name, so a new
rule needs one file there, and its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ff.learn.network import Network
from ff.learn.readouts import Readout
from ff.settings import setting

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from ff.data.images import Images
    from ff.learn.optimiser import Adam
    from ff.settings import RunConfig


@dataclass(frozen=True)
class SharedSettings:
    """What every rule can do; its `Settings` come on top. The defaults change nothing."""

    schedule: str = setting(
        "linear",
        "learning rate over each phase: down to 0 (linear), constant, or a quarter of it after 50, 75, 89 and 94 % of "
        "the steps each (step)",
        choices=("linear", "constant", "step"),
    )
    weight_decay: float = setting(
        0.0, "share of each parameter that a step takes away, times the learning rate (AdamW)", minimum=0, maximum=1e3
    )
    dropout: float = setting(
        0.0, "share of a layer's outputs that what is above does not see in training", minimum=0, maximum=0.9
    )
    shift: int = setting(0, "training images are moved by up to so many pixels each way", minimum=0, maximum=16)
    flip: bool = setting(False, "half of the training images are mirrored, left to right")


class Batch(NamedTuple):
    """A mini-batch of B images for S networks, and what was drawn for them."""

    rows: Tensor
    """Of the training images, [S, B]."""
    drawn: Tensor | None = None
    """By the phase's `draw`, [S, B, ...]."""
    keys: Tensor | None = None
    """Of each image, [S, B] (int32), where there are shifts, flips or dropout: these follow from it
    (`ff.learn.noise`)."""


class LearningPhase(NamedTuple):
    """Epochs in which the same parameters learn in the same way. S seeds, mini-batches of B images, L layers."""

    name: str
    """As history.csv, phases.csv and metrics.json call it."""
    epochs: int
    gradients: Callable[[Batch], Tensor]
    """Fills the optimisers' gradients for a mini-batch; returns the loss [1, S, L], or with the mean goodness of
    positives and negatives [3, S, L]."""
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
    averages: Mapping[str, Tensor] = MappingProxyType({})
    """Running averages [S, ...] that `gradients` carries on: with the optimisers' tensors what a run resumes from."""
    settle: Callable[[], None] = lambda: None
    """Called before the network is asked: gives it the parameters that follow from what has been learnt so far, where
    these are not the optimisers' own."""
    end: Callable[[], None] = lambda: None
    """Called when nothing is asked of the phase any more: what it has kept may go."""


class Learner(Protocol):
    """A rule at work on S networks of one configuration."""

    network: Network
    optimisers: Mapping[str, Adam]
    """All of them by name; they and the phases' averages are the state that a run resumes from: all else is fixed, or
    follows from it (`LearningPhase.settle`)."""
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
    """A frozen dataclass on top of `SharedSettings`, of `ff.settings.setting` fields with defaults, `method` among
    them; fields that bear the name of a field of `Network` are handed to it."""
    RECIPES: Mapping[str, Any]
    """Named blocks of Settings."""
    PHASES: Sequence[str]
    """Names of all phases that its learner can have, in their order."""
    READOUTS: Sequence[Readout]
    """How its networks answer; the first is the one that early exit and deployment use."""
    Learner: Callable[[Network, Images, RunConfig, Sequence[int]], Learner]
    """From networks, training set, configuration (its own seed is not used) and the S seeds."""

    def training_macs(self, config: RunConfig) -> int:
        """Multiply-accumulates of one training sample in the first phase (heads not counted)."""

    def numbers_held(self, config: RunConfig) -> tuple[int, int]:
        """For the estimate of memory: numbers that the training of one network holds beside it, its gradients and
        moments, and numbers that a step needs at once for its images, outputs and what follows from them."""

    def remarks(self, config: RunConfig, given: Collection[str]) -> list[str]:
        """Warnings about settings that leave a readout untrained or, of those `given`, have no effect."""
