"""Training: the phases of a learning rule over epochs and mini-batches, with validation after each epoch.

What happens in a mini-batch is the rule's (`ff.learn.rules`); the order of the images, the learning rate, the steps and
the check for divergence are the same for all rules. A group of seeds trains as one batched problem.

As no draw depends on what was drawn before its epoch, the state after an epoch is only the parameters, Adam's moments
and a rule's running averages: a run that was killed goes on from there and ends with the same bytes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.data.images import Images
from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.learn.draws import draw_generator, shuffled, split_rows
from ff.learn.network import Network, initial_network
from ff.learn.noise import augment, draw_keys, is_random
from ff.learn.optimiser import Adam
from ff.learn.readings import Readings, read, spread
from ff.learn.recipes import rule_of
from ff.learn.rule import Batch, LearningPhase
from ff.learn.step import GraphedStep, Step, eager
from ff.settings import RunConfig

# An epoch is validated on this many images; the last of a phase, whose accuracy is reported, on all.
VALIDATION_SAMPLE = 500
# The schedule `step`: the learning rate is a quarter from each of these shares of the steps on (Nokland & Eidnes 2019,
# arXiv 1901.06656, appendix A).
MILESTONES, DECAY = (0.5, 0.75, 0.89, 0.94), 0.25


class Epoch(NamedTuple):
    """What one epoch showed, for each of S seeds (history.csv has a row for each)."""

    phase: str
    epoch: int  # from 1, within the phase
    loss: list[float]  # [S], mean over layers
    goodness_positive: list[list[float]]  # [S][L]; empty where no goodness was trained
    goodness_negative: list[list[float]]
    validation_accuracy: list[float | None]
    validation_readout: str
    validation_n: int  # images that the accuracy is of
    learning_rate: float
    seconds: float  # of training alone
    validation_seconds: float


@dataclass
class TrainingState:
    """Everything that the next epoch starts from; the parameters are the optimisers'."""

    network: Network
    optimisers: Mapping[str, Adam]
    history: list[Epoch] = field(default_factory=list)
    averages: Mapping[str, Tensor] = field(default_factory=dict)


class Trainer:
    """One group of runs that differ in their seed only.

    `images` is the official training set on the device; `config` holds the settings (its own seed is not used).
    `mark(name)` is entered around each part of an epoch: the training, called as its phase is, and `validation`.
    `cuda_graph`: whether steps are launched as CUDA graphs.
    """

    def __init__(
        self,
        config: RunConfig,
        seeds: Sequence[int],
        images: Images,
        mark: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
        cuda_graph: bool = False,
    ):
        self.config, self.seeds, self.images, self._mark = config, list(seeds), images, mark
        self._step_of: Callable[[LearningPhase], Step] = GraphedStep if cuda_graph else eager
        self.device = images.device
        self.split = split_rows(len(images.labels), config.val_size, seeds)
        network = initial_network(config, seeds, images.channels).to(self.device)
        moving = images._replace(augment=augment(config.settings, DATASETS[config.dataset].shape))
        self.learner = rule_of(config).Learner(network, moving, config, self.seeds)
        for optimiser in self.learner.optimisers.values():
            optimiser.weight_decay = config.settings.weight_decay
        self.phases = {phase.name: phase for phase in self.learner.phases}
        averages = {
            f"{phase.name}.{name}": tensor for phase in self.learner.phases for name, tensor in phase.averages.items()
        }
        self.state = TrainingState(network, self.learner.optimisers, averages=averages)
        self.validated: dict[str, Readings] = {}
        """What readouts say of the whole validation split at the end of the last phase that trains them."""

    @property
    def schedule(self) -> list[tuple[str, int]]:
        """Phases and their epochs, in order."""
        return [(phase.name, phase.epochs) for phase in self.phases.values()]

    def epochs(self, name: str) -> Iterator[Epoch]:
        """Train the epochs of phase `name` that are still to do, and yield each as it ends."""
        phase = self.phases[name]
        step = self._step_of(phase)
        done = sum(epoch.phase == name for epoch in self.state.history)
        # Of a run that resumes.
        phase.settle()
        for epoch in range(done + 1, phase.epochs + 1):
            start = time.perf_counter()
            with self._mark(name):
                if epoch == done + 1:
                    phase.begin(self.split.train.to(self.device))
                losses, goodness, learning_rate = self._train(phase, step, epoch)
                # Reads the losses, so the device has finished when it returns.
                self._check_finite(losses, phase, epoch)
                phase.settle()
            trained = time.perf_counter()
            with self._mark("validation"):
                accuracy, validation_n = self._validate(phase, whole=epoch == phase.epochs)
            positive, negative = goodness.tolist() or [[[] for _ in self.seeds]] * 2
            row = Epoch(
                name,
                epoch,
                losses.mean(1).tolist(),
                positive,
                negative,
                accuracy,
                phase.readout.name,
                validation_n,
                learning_rate,
                trained - start,
                time.perf_counter() - trained,
            )
            self.state.history.append(row)
            yield row

    def batches(self, phase: LearningPhase, epoch: int) -> Iterator[Batch]:
        """The mini-batches of an epoch."""
        rows = _sent(shuffled(self.split.train, phase.name, epoch, self.seeds), self.device)
        drawn = keys = None
        if phase.draw is not None:
            drawn = self._drawn(phase.draw, "negatives", epoch)
        if is_random(self.config.settings):
            keys = self._drawn(draw_keys, f"{phase.name}-keys", epoch)
        size = self.config.train_batch_size
        for start in range(0, rows.shape[1], size):
            part = slice(start, start + size)
            yield Batch._make(None if whole is None else whole[:, part] for whole in (rows, drawn, keys))

    def _drawn(self, draw: Callable[[torch.Generator, int], Tensor], purpose: str, epoch: int) -> Tensor:
        """What each seed draws for the n training images of an epoch, [S, n, ...]."""
        count = self.split.train.shape[1]
        drawn = [draw(draw_generator(seed, purpose, epoch), count) for seed in self.seeds]
        return _sent(torch.stack(drawn), self.device)

    def _train(self, phase: LearningPhase, step: Step, epoch: int) -> tuple[Tensor, Tensor, float]:
        """One epoch: losses [S, L], goodness of positives and negatives [2, S, L] or [0, S, L], learning rate.

        Nothing in it waits for the device, which may be many steps behind.
        """
        sums, batches, first_rate = None, 0, 0.0
        for batch in self.batches(phase, epoch):
            rates = [self._learning_rate(phase, setting) for setting in phase.optimisers]
            for optimiser, rate in zip(phase.optimisers.values(), rates, strict=True):
                optimiser.begin_step(rate)
            measured = step(batch)
            # A graph fills the same tensor in each step.
            sums = measured.clone() if sums is None else sums.add_(measured)
            batches, first_rate = batches + 1, rates[0]
        assert sums is not None
        means = sums / batches
        return means[0], means[1:], first_rate

    def _learning_rate(self, phase: LearningPhase, setting: str) -> float:
        """What `setting` says for the next step."""
        base = getattr(self.config.settings, setting)
        if self.config.settings.schedule == "constant":
            return base
        steps = phase.epochs * math.ceil(self.split.train.shape[1] / self.config.train_batch_size)
        done = phase.optimisers[setting].steps / steps
        if self.config.settings.schedule == "linear":
            return base * (1 - done)
        return base * DECAY ** sum(done >= milestone for milestone in MILESTONES)

    def _validate(self, phase: LearningPhase, whole: bool) -> tuple[list[float | None], int]:
        """Accuracy [S] at full depth by the readout that the phase trains, and of how many validation images."""
        readout, rows = phase.readout, self.split.val if whole else spread(self.split.val, VALIDATION_SAMPLE)
        if rows.shape[1] == 0:
            return [None] * len(self.seeds), 0
        seen = read(
            self.state.network,
            self.images,
            rows,
            (readout,),
            self.config.test_batch_size,
            layers=whole and not readout.sampled,
        )
        if whole:
            self.validated[readout.name] = seen
        right = readout.answers(seen.said[readout.name])[:, :, -1] == seen.labels
        return right.double().mean(1).tolist(), rows.shape[1]

    def kept_readings(self) -> dict[str, Readings]:
        """What readouts say of the training split, {readout: readings}, of those whose phase has kept features; these
        are dropped."""
        rows = self.split.train.to(self.device)
        found = {}
        for phase in self.phases.values():
            if phase.said is not None and phase.epochs:
                said = [phase.said(batch) for batch in rows.split(self.config.test_batch_size, 1)]
                name = phase.readout.name
                found[name] = Readings({name: torch.cat(said, 1).cpu()}, self.images.labels[rows].cpu())
                phase.end()
        return found

    def _check_finite(self, losses: Tensor, phase: LearningPhase, epoch: int) -> None:
        """Raise FFError when a loss or a parameter is not finite any more."""
        bad = (~torch.isfinite(losses)).nonzero().tolist()
        broken = [name for name, adam in phase.optimisers.items() if not torch.isfinite(adam.parameters).all()]
        if not bad and not broken:
            return
        seed, layer = (self.seeds[bad[0][0]], f"layer {bad[0][1] + 1}") if bad else (self.seeds[0], "its layers")
        setting = next(iter(broken or phase.optimisers))
        value = getattr(self.config.settings, setting)
        raise FFError(
            f"training diverged: the {phase.name} loss of {layer} is not finite in epoch {epoch} (seed {seed}); "
            f"most likely {setting} = {value:g} is too high for recipe {self.config.recipe}: lower it"
        )


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device. Memory that the system may page out would make a GPU wait for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def history_rows(history: Sequence[Epoch], seed_index: int) -> list[dict[str, Any]]:
    """Rows of history.csv for one seed of a group."""
    rows = []
    for epoch in history:
        row = {"phase": epoch.phase, "epoch": epoch.epoch, "loss": epoch.loss[seed_index]}
        for name in ("goodness_positive", "goodness_negative"):
            values = getattr(epoch, name)[seed_index]
            row |= {f"{name}_{layer + 1}": value for layer, value in enumerate(values)}
        row |= {
            "validation_accuracy": epoch.validation_accuracy[seed_index],
            "validation_readout": epoch.validation_readout,
            "validation_n": epoch.validation_n,
            "learning_rate": epoch.learning_rate,
            "seconds": epoch.seconds,
            "validation_seconds": epoch.validation_seconds,
        }
        rows.append(row)
    return rows


def history_columns(depth: int) -> list[str]:
    """Columns of history.csv for a network of `depth` layers."""
    goodness = [f"goodness_{sign}_{layer}" for sign in ("positive", "negative") for layer in range(1, depth + 1)]
    after = [
        "validation_accuracy",
        "validation_readout",
        "validation_n",
        "learning_rate",
        "seconds",
        "validation_seconds",
    ]
    return ["phase", "epoch", "loss", *goodness, *after]
