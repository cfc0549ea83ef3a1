"""Training: two phases, closed-form gradients, every draw tied to (seed, purpose, epoch).

Phase 1 (`representation`) trains all FF layers in one pass over each mini-batch, each on the detached output of the
one below. Phase 2 (`softmax`) freezes them and trains one softmax head a layer on neutral inputs. The control
recipe has a single phase (`backprop`) of as many epochs. A group of seeds trains as one batched problem.

As no draw depends on what was drawn before its epoch, the state after an epoch is only the parameters and Adam's
moments: a run that was killed goes on from there and ends with the same bytes.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.data.images import Images
from ff.errors import FFError
from ff.learn.labels import hard_wrong_labels, label_offsets, uniform_wrong_labels
from ff.learn.network import Network, initial_network, matmul
from ff.learn.objectives import activation_gradient, cross_entropy, goodness_loss, normalisation_gradient
from ff.settings import CLASS_COUNT, RunConfig

# Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1, with the constants given there.
ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
# Above this the layers' outputs are computed again for each mini-batch of phase 2 instead of being kept.
FEATURE_CACHE_BYTES = 2 * 2**30


class Epoch(NamedTuple):
    """What one epoch showed, for each of S seeds (history.csv has a row for each)."""

    phase: str
    epoch: int  # from 1, within the phase
    loss: list[float]  # [S], mean over layers
    goodness_positive: list[list[float]]  # [S][L]; empty where no goodness was trained
    goodness_negative: list[list[float]]
    validation_accuracy: list[float | None]
    validation_readout: str
    learning_rate: float
    seconds: float  # of training alone
    validation_seconds: float


@dataclass
class TrainingState:
    """Everything that the next epoch starts from."""

    network: Network
    layers: "Adam"
    heads: "Adam"
    history: list[Epoch] = field(default_factory=list)


class Adam:
    """Adam on one flat parameter tensor [S, P] and a gradient of the same shape."""

    def __init__(self, parameters: Tensor):
        self.parameters = parameters
        self.gradient = torch.zeros_like(parameters)
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self.steps = 0

    def step(self, learning_rate: float) -> None:
        """One update by `gradient`."""
        self.steps += 1
        self.mean.lerp_(self.gradient, 1 - ADAM_BETA1)
        self.square.mul_(ADAM_BETA2).addcmul_(self.gradient, self.gradient, value=1 - ADAM_BETA2)
        correction = math.sqrt(1 - ADAM_BETA2**self.steps)
        denominator = self.square.sqrt().add_(ADAM_EPSILON * correction)
        self.parameters.addcdiv_(
            self.mean, denominator, value=-learning_rate * correction / (1 - ADAM_BETA1**self.steps)
        )


def flatten(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Copy [S, ...] tensors into one flat [S, P] tensor; gives it and a view of it for each of them."""
    flat = torch.cat([tensor.flatten(1) for tensor in tensors], 1)
    return flat, views(flat, [tensor.shape for tensor in tensors])


def views(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Views of a flat [S, P] tensor with the shapes [S, ...] given, one after the other."""
    sizes = [shape[1:].numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes, 1), shapes, strict=True)]


class Split(NamedTuple):
    """Row numbers of the official training set, for each seed: [S, n] and [S, n_val] (int64, CPU)."""

    train: Tensor
    val: Tensor


def draw_generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one purpose in one epoch of one seed, so that order and devices do not matter."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def effective_val_size(val_size: int, count: int) -> int:
    """The samples held out of `count`: `val_size`, or a fifth where the training set is not larger than that."""
    return val_size if val_size < count else count // 5


def split_rows(count: int, val_size: int, seeds: Sequence[int]) -> Split:
    """Draw validation samples from `count` training samples, for each seed; both parts in the set's order."""
    val_size = effective_val_size(val_size, count)
    orders = [torch.randperm(count, generator=draw_generator(seed, "split")) for seed in seeds]
    return Split(
        torch.stack([order[val_size:].sort().values for order in orders]),
        torch.stack([order[:val_size].sort().values for order in orders]),
    )


class Trainer:
    """One group of runs that differ in their seed only.

    `images` is the official training set on the device; `config` holds the settings (its own seed is not used).
    `phase(name)` is entered around each part of an epoch: the training, called as its phase is, and `validation`.
    """

    def __init__(
        self,
        config: RunConfig,
        seeds: Sequence[int],
        images: Images,
        phase: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
    ):
        self.config, self.seeds, self.images, self._phase = config, list(seeds), images, phase
        self.device = images.pixels.device
        self.split = split_rows(len(images.labels), config.val_size, seeds)
        network = initial_network(config, seeds, images.channels).to(self.device)
        layer_tensors = [t for pair in zip(network.weights, network.biases, strict=True) for t in pair]
        flat, parts = flatten(layer_tensors)
        network.weights, network.biases = parts[0::2], parts[1::2]
        layers = Adam(flat)
        gradients = views(layers.gradient, [t.shape for t in parts])
        self.weight_gradients, self.bias_gradients = gradients[0::2], gradients[1::2]
        flat, (network.heads, network.head_biases) = flatten([network.heads, network.head_biases])
        heads = Adam(flat)
        self.head_gradient, self.head_bias_gradient = views(
            heads.gradient, [network.heads.shape, network.head_biases.shape]
        )
        self.head_mask = network.head_mask()
        self.state = TrainingState(network, layers, heads)
        self._features: Tensor | None = None

    @property
    def schedule(self) -> list[tuple[str, int]]:
        """Phases and their epochs, in order."""
        config = self.config
        if config.settings.method == "backprop":
            return [("backprop", config.rep_epochs + config.softmax_epochs)]
        return [("representation", config.rep_epochs), ("softmax", config.softmax_epochs)]

    def epochs(self, phase: str) -> Iterator[Epoch]:
        """Train the epochs of `phase` that are still to do, and yield each as it ends."""
        step = {"representation": self._representation, "softmax": self._softmax, "backprop": self._backprop}[phase]
        total = dict(self.schedule)[phase]
        done = sum(epoch.phase == phase for epoch in self.state.history)
        self._features = None
        for epoch in range(done + 1, total + 1):
            start = time.perf_counter()
            with self._phase(phase):
                losses, goodness, learning_rate = step(epoch, total)
                # Reads the losses, so the device has finished when it returns.
                self._check_finite(losses, phase, epoch)
            trained = time.perf_counter()
            with self._phase("validation"):
                accuracy, readout = self._validate(phase)
            row = Epoch(
                phase,
                epoch,
                losses.mean(1).tolist(),
                goodness[0].tolist() if goodness is not None else [[] for _ in self.seeds],
                goodness[1].tolist() if goodness is not None else [[] for _ in self.seeds],
                accuracy,
                readout,
                learning_rate,
                trained - start,
                time.perf_counter() - trained,
            )
            self.state.history.append(row)
            yield row

    # -- mini-batches ----

    def _batches(self, phase: str, epoch: int, draw: Callable[[torch.Generator, int], Tensor] | None = None):
        """Row numbers [S, B] of each mini-batch of an epoch, with what `draw(generator, n)` [n, ...] gave for them."""
        count = self.split.train.shape[1]
        order = [torch.randperm(count, generator=draw_generator(seed, f"{phase}-order", epoch)) for seed in self.seeds]
        rows = torch.stack([rows[o] for rows, o in zip(self.split.train, order, strict=True)]).to(self.device)
        extra = None
        if draw is not None:
            generators = [draw_generator(seed, "negatives", epoch) for seed in self.seeds]
            extra = torch.stack([draw(generator, count) for generator in generators]).to(self.device)
        size = self.config.train_batch_size
        for start in range(0, count, size):
            batch = slice(start, start + size)
            yield rows[:, batch], None if extra is None else extra[:, batch]

    def _learning_rate(self, base: float, adam_steps_done: int, total_epochs: int) -> float:
        if self.config.settings.schedule == "constant":
            return base
        steps = total_epochs * math.ceil(self.split.train.shape[1] / self.config.train_batch_size)
        return base * (1 - adam_steps_done / steps)

    # -- phase 1 ----

    def _draw_negatives(self, generator: torch.Generator, count: int) -> Tensor:
        """What the choice of wrong labels needs for `count` samples: Gumbel noise [n, 10] or shifts [n]."""
        if self.config.settings.negatives == "uniform":
            return torch.randint(1, CLASS_COUNT, (count,), generator=generator)
        return torch.empty(count, CLASS_COUNT).exponential_(generator=generator).log_().neg_()

    def _representation(self, epoch: int, total: int) -> tuple[Tensor, Tensor, float]:
        """One epoch of all FF layers: losses [S, L], goodness of positives and negatives [2, S, L], learning rate."""
        state, settings = self.state, self.config.settings
        sums = torch.zeros(3, len(self.seeds), state.network.depth, device=self.device, dtype=state.layers.mean.dtype)
        batches = 0
        rate = settings.learning_rate
        for rows, draw in self._batches("representation", epoch, self._draw_negatives):
            rate = self._learning_rate(settings.learning_rate, state.layers.steps, total)
            sums += self.layer_gradients(rows, draw)
            state.layers.step(rate)
            batches += 1
        sums /= batches
        return sums[0], sums[1:], rate

    def layer_gradients(self, rows: Tensor, draw: Tensor) -> Tensor:
        """Fill the layers' gradients for the mini-batch `rows` [S, B]; gives loss, g+ and g- as [3, S, L]."""
        network, settings = self.state.network, self.config.settings
        pixels, square, labels = self.images.rows(rows)
        batch = rows.shape[1]
        scale = network.label_scale(square).unsqueeze(-1)
        strength = scale * settings.overlay_value
        activation = matmul(pixels, network.weights[0].mT, network.precision).mul_(scale)
        activation += network.biases[0].unsqueeze(1)
        positive, negative, wrong = self._first_layer(activation, strength, labels, draw)
        inputs, outputs = pixels, torch.cat([positive, negative], 1)
        measured = []
        for index in range(network.depth):
            if index > 0:
                outputs = network.forward_layer(index, inputs)
            goodness = network.goodness(outputs)
            loss = goodness_loss(goodness[:, :batch], goodness[:, batch:], settings)
            gradient = activation_gradient(outputs, torch.cat([loss.by_positive, loss.by_negative], 1))
            if index == 0:
                self._first_layer_gradient(gradient, pixels, scale, strength, labels, wrong)
            else:
                self.weight_gradients[index].copy_(matmul(gradient.mT, inputs, network.precision))
            torch.sum(gradient, 1, out=self.bias_gradients[index])
            inputs = network.normalise(outputs, goodness)
            measured += [loss.loss, goodness[:, :batch].mean(1), goodness[:, batch:].mean(1)]
        return torch.stack(measured, 1).unflatten(1, (network.depth, 3)).permute(2, 0, 1)

    def _first_layer(self, activation: Tensor, strength: Tensor, labels: Tensor, draw: Tensor):
        """Outputs [S, B, W_1] of the first layer for positives and negatives, and the wrong labels [S, B]."""
        network = self.state.network
        if self.config.settings.negatives == "hard":
            outputs = network.all_labels(activation, strength.squeeze(-1))
            wrong = hard_wrong_labels(network.goodness(outputs), labels, draw, self.config.settings.hardness)
            return _pick(outputs, labels), _pick(outputs, wrong), wrong
        wrong = uniform_wrong_labels(labels, draw)
        columns = network.label_columns()
        positive, negative = (
            torch.addcmul(activation, strength, torch.gather(columns, 1, chosen.unsqueeze(-1).expand_as(activation)))
            for chosen in (labels, wrong)
        )
        return positive.relu_(), negative.relu_(), wrong

    def _first_layer_gradient(
        self, gradient: Tensor, pixels: Tensor, scale: Tensor, strength: Tensor, labels: Tensor, wrong: Tensor
    ) -> None:
        """Positive and negative share their pixels, so one product serves both; label columns get their own share."""
        network, batch = self.state.network, labels.shape[1]
        shared = (gradient[:, :batch] + gradient[:, batch:]).mul_(scale)
        target = self.weight_gradients[0]
        target.copy_(matmul(shared.mT, pixels, network.precision))
        carried = torch.zeros(len(labels), 2 * batch, CLASS_COUNT, device=gradient.device, dtype=gradient.dtype)
        carried.scatter_(2, torch.cat([labels, wrong], 1).unsqueeze(-1), torch.cat([strength, strength], 1))
        columns = torch.bmm(gradient.mT, carried)
        for offset in label_offsets(network.input_size, network.channels):
            target[:, :, offset : offset + CLASS_COUNT] = columns

    # -- phase 2 ----

    def _softmax(self, epoch: int, total: int) -> tuple[Tensor, None, float]:
        """One epoch of all heads on the frozen layers' outputs: losses [S, L], None, learning rate."""
        state, settings = self.state, self.config.settings
        losses = torch.zeros(len(self.seeds), state.network.depth, device=self.device, dtype=state.heads.mean.dtype)
        rate, batches = settings.head_learning_rate, 0
        for rows, _ in self._batches("softmax", epoch):
            rate = self._learning_rate(settings.head_learning_rate, state.heads.steps, total)
            losses += self.head_gradients(self.features(rows), self.images.labels[rows])[0]
            state.heads.step(rate)
            batches += 1
        return losses / batches, None, rate

    def head_gradients(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the heads' gradients for features [S, B, sum], labels [S, B]: loss [S, L], dL/dlogits [S, B, L, 10]."""
        network = self.state.network
        loss, gradient = cross_entropy(network.all_head_logits(features), labels)
        product = matmul(gradient.flatten(2).mT, features, network.precision).view_as(self.head_gradient)
        torch.mul(product, self.head_mask, out=self.head_gradient)
        torch.sum(gradient, 1, out=self.head_bias_gradient)
        return loss, gradient

    def features(self, rows: Tensor) -> Tensor:
        """What the heads see of training samples `rows` [S, B]: [S, B, sum]. Kept once for all where memory allows."""
        network = self.state.network
        if self._features is None:
            count, width = len(self.images.labels), sum(network.widths)
            size = len(self.seeds) * count * width * self.images.pixels.element_size()
            if size > FEATURE_CACHE_BYTES:
                pixels, square, _ = self.images.rows(rows)
                return network.features(network.neutral_outputs(pixels, square))
            self._features = torch.cat(list(self._all_features()), 1)
        seeds = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        return self._features.flatten(0, 1)[rows + seeds * self._features.shape[1]]

    def _all_features(self) -> Iterator[Tensor]:
        """Features of the whole training set, in blocks [S, B, sum]."""
        network = self.state.network
        for start in range(0, len(self.images.labels), self.config.test_batch_size):
            block = self.images.block(slice(start, start + self.config.test_batch_size), len(self.seeds))
            yield network.features(network.neutral_outputs(block.pixels, block.square))

    # -- backprop ----

    def _backprop(self, epoch: int, total: int) -> tuple[Tensor, None, float]:
        """One epoch of the whole network by backpropagation from the last head: losses [S, L], None, learning rate."""
        state, settings = self.state, self.config.settings
        losses = torch.zeros(len(self.seeds), state.network.depth, device=self.device, dtype=state.heads.mean.dtype)
        rate, batches = settings.learning_rate, 0
        for rows, _ in self._batches("backprop", epoch):
            rate = self._learning_rate(settings.learning_rate, state.layers.steps, total)
            losses += self.network_gradients(rows)
            state.layers.step(rate)
            state.heads.step(self._learning_rate(settings.head_learning_rate, state.heads.steps, total))
            batches += 1
        return losses / batches, None, rate

    def network_gradients(self, rows: Tensor) -> Tensor:
        """Fill the gradients of layers and heads for the mini-batch `rows` [S, B]; gives the heads' losses [S, L].

        Only the last head's loss reaches the layers. The shallower heads learn beside it on the layers' outputs
        as they are, so that every depth has a readout.
        """
        network = self.state.network
        pixels, square, labels = self.images.rows(rows)
        outputs = network.neutral_outputs(pixels, square)
        scales = [network.scale(network.goodness(h), h.shape[-1]) for h in outputs]
        inputs = [h * scale.unsqueeze(-1) for h, scale in zip(outputs, scales, strict=True)]
        loss, by_logits = self.head_gradients(torch.cat(inputs, -1), labels)
        by_features = matmul(by_logits[:, :, -1], network.heads[:, -1], network.precision).split(network.widths, -1)
        from_above: Tensor | None = None
        for index in reversed(range(network.depth)):
            by_input = by_features[index] if from_above is None else by_features[index] + from_above
            by_output = normalisation_gradient(inputs[index], scales[index], by_input, network.normalisation)
            by_activation = by_output * (outputs[index] > 0)
            torch.sum(by_activation, 1, out=self.bias_gradients[index])
            if index > 0:
                product = matmul(by_activation.mT, inputs[index - 1], network.precision)
                from_above = matmul(by_activation, network.weights[index], network.precision)
            else:
                scaled = by_activation * network.neutral_scale(square).unsqueeze(-1)
                product = matmul(scaled.mT, pixels, network.precision)
                for offset in label_offsets(network.input_size, network.channels):
                    product[:, :, offset : offset + CLASS_COUNT] = (
                        scaled.sum(1).mul_(network.neutral_value).unsqueeze(-1)
                    )
            self.weight_gradients[index].copy_(product)
        return loss

    # -- after an epoch ----

    def _validate(self, phase: str) -> tuple[list[float | None], str]:
        """Validation accuracy [S] at full depth by the readout that the phase trains, and that readout's name."""
        readout = "goodness" if phase == "representation" else "head"
        if self.split.val.shape[1] == 0:
            return [None] * len(self.seeds), readout
        network = self.state.network
        rows = self.split.val.to(self.device)
        right = torch.zeros(len(self.seeds), device=self.device)
        for start in range(0, rows.shape[1], self.config.test_batch_size):
            batch = rows[:, start : start + self.config.test_batch_size]
            if readout == "goodness":
                pixels, square, labels = self.images.rows(batch)
                scores = network.goodness_by_label(pixels, square).sum(2)
            elif phase == "softmax":
                scores, labels = (
                    network.head_logits(self.features(batch), network.depth),
                    self.images.labels[batch],
                )
            else:
                pixels, square, labels = self.images.rows(batch)
                features = network.features(network.neutral_outputs(pixels, square))
                scores = network.head_logits(features, network.depth)
            right += (scores.argmax(-1) == labels).sum(1)
        return (right / rows.shape[1]).tolist(), readout

    def _check_finite(self, losses: Tensor, phase: str, epoch: int) -> None:
        """Raise FFError when a loss or a parameter is not finite any more."""
        adam = self.state.heads if phase == "softmax" else self.state.layers
        bad = (~torch.isfinite(losses)).nonzero().tolist()
        if not bad and bool(torch.isfinite(adam.parameters).all()):
            return
        seed, layer = (self.seeds[bad[0][0]], f"layer {bad[0][1] + 1}") if bad else (self.seeds[0], "its layers")
        setting = "head_learning_rate" if phase == "softmax" else "learning_rate"
        value = getattr(self.config.settings, setting)
        raise FFError(
            f"training diverged: the {phase} loss of {layer} is not finite in epoch {epoch} (seed {seed}); "
            f"most likely {setting} = {value:g} is too high for recipe {self.config.recipe}: lower it"
        )


def _pick(outputs: Tensor, labels: Tensor) -> Tensor:
    """The rows [S, B, W] of outputs [S, B, 10, W] that stand under labels [S, B]."""
    seeds, batch, classes, width = outputs.shape
    rows = torch.arange(seeds * batch, device=labels.device) * classes + labels.flatten()
    return outputs.view(-1, width).index_select(0, rows).view(seeds, batch, width)


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
            "learning_rate": epoch.learning_rate,
            "seconds": epoch.seconds,
            "validation_seconds": epoch.validation_seconds,
        }
        rows.append(row)
    return rows


def history_columns(depth: int) -> list[str]:
    """Columns of history.csv for a network of `depth` layers."""
    goodness = [f"goodness_{sign}_{layer}" for sign in ("positive", "negative") for layer in range(1, depth + 1)]
    after = ["validation_accuracy", "validation_readout", "learning_rate", "seconds", "validation_seconds"]
    return ["phase", "epoch", "loss", *goodness, *after]
