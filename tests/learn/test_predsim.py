"""Local error signals against torch.nn's modules, autograd and torch's Adam, all in float64."""

import pytest
import textbook
import torch
from test_network import made_part
from torch.nn.functional import cross_entropy, one_hot

from ff.data.images import standardise
from ff.data.registry import DATASETS
from ff.learn.draws import draw_generator
from ff.learn.network import initial_network
from ff.learn.noise import Dropout
from ff.learn.readings import read
from ff.learn.recipes import make_run_config
from ff.learn.resume import load_state, save_state
from ff.learn.rule import Batch
from ff.learn.rules import predsim
from ff.learn.trainer import Trainer

SEEDS = [3, 8]
VARIANTS = {
    "predsim": {},
    "pred": {"recipe": "pred"},
    "sim": {"recipe": "sim"},
    "without projection": {"projection": False},
    "sim without projection": {"recipe": "sim", "projection": False},
    "half and half": {"similarity": 0.5},
    "dropout": {"dropout": 0.3},
}


class Block(torch.nn.Module):
    """One layer as the paper's code has it, and its local loss."""

    def __init__(self, weight: torch.Tensor, projection: torch.Tensor | None, share: float, classes: int):
        super().__init__()
        width, inputs = weight.shape
        self.encoder = torch.nn.Linear(inputs, width, bias=False)
        self.norm = torch.nn.BatchNorm1d(width)
        self.head = torch.nn.Linear(width, classes)
        self.share, self.classes, self.projection = share, classes, None
        if projection is not None:
            self.projection = torch.nn.Linear(width, width, bias=False)
        self.double()
        with torch.no_grad():
            self.encoder.weight.copy_(weight)
            self.head.weight.zero_()
            self.head.bias.zero_()
            if projection is not None:
                self.projection.weight.copy_(projection)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.leaky_relu(self.norm(self.encoder(x)), 0.01)

    def losses(self, h: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's, and that of its head."""
        u = h if self.projection is None else self.projection(h)
        sim = torch.nn.functional.mse_loss(cosines(u), cosines(one_hot(labels, self.classes).double(), 0.0))
        pred = cross_entropy(self.head(h), labels)
        return (1 - self.share) * pred + self.share * sim, cross_entropy(self.head(h.detach()), labels)

    def layer(self) -> list[torch.nn.Parameter]:
        """What the layer's loss trains."""
        parts = [self.encoder.weight, self.norm.weight, self.norm.bias]
        return parts if self.projection is None else [*parts, self.projection.weight]


def cosines(x: torch.Tensor, epsilon: float = 1e-8) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    rows = centred / (centred.norm(dim=1, keepdim=True) + epsilon)
    return (rows @ rows.T).clamp(-1, 1)


class Made:
    """A training, and the same by blocks."""

    def __init__(self, dataset: str = "MNIST", layers: str = "784,14,9,12", seeds=SEEDS, **values):
        values = {"recipe": "predsim", "precision": "float64", "val_size": 20, "train_batch_size": 16} | values
        self.config, _ = make_run_config({"dataset": dataset, "layers": layers} | values)
        part, self.seeds = made_part(dataset, 71), list(seeds)
        self.trainer = Trainer(self.config, self.seeds, standardise(part, DATASETS[dataset], "cpu", torch.float64))
        self.learner, self.network = self.trainer.learner, self.trainer.state.network
        channels = DATASETS[dataset].shape[0]
        images = textbook.neutral(textbook.standardised(part, dataset), channels, 0.0)
        self.images, self.labels = images, part.labels.long()
        self.first = initial_network(self.config, self.seeds, channels)

    def blocks(self, index: int) -> list[Block]:
        """The fresh layers of a seed."""
        share, generator = self.config.settings.similarity, draw_generator(self.seeds[index], "projection")
        found = []
        for weight in self.first.weights:
            width = weight.shape[1]
            projection = None
            if share and self.config.settings.projection:
                projection = (torch.rand(width, width, generator=generator, dtype=torch.float64) * 2 - 1) / width**0.5
            found.append(Block(weight[index], projection, share, self.config.classes))
        return found

    def all(self, h: torch.Tensor) -> torch.Tensor:
        """Something of the shape that outputs `h` [B, W] of one seed have for all."""
        return h.expand(len(self.seeds), -1, -1)

    def disturb(self) -> None:
        """Parameters in which nothing is 0 or 1."""
        for number, adam in enumerate(self.learner.optimisers.values()):
            noise = torch.randn(adam.parameters.shape, generator=torch.Generator().manual_seed(number))
            adam.parameters.add_(noise.double() * 0.3)
        self.network.heads.mul_(self.learner.heads.mask)


def given_parameters(made: Made, blocks: list[Block], index: int) -> None:
    """Blocks with the present parameters of a seed."""
    learner, network = made.learner, made.network
    with torch.no_grad():
        for layer, (block, span) in enumerate(zip(blocks, network.layer_spans(), strict=True)):
            block.encoder.weight.copy_(learner.weights[layer][index])
            block.norm.weight.copy_(learner.scales[layer][index])
            block.norm.bias.copy_(learner.shifts[layer][index])
            block.head.weight.copy_(network.heads[index, layer, :, span])
            block.head.bias.copy_(network.head_biases[index, layer])
            if block.projection is not None:
                block.projection.weight.copy_(learner.projections[layer][index])


@pytest.mark.parametrize("case", VARIANTS)
@pytest.mark.parametrize(
    ("dataset", "layers"), [("MNIST", "784,14,9,12"), ("MNIST", "784,7"), ("CIFAR10", "3072,12,15")]
)
def test_the_gradients_equal_autograds(dataset, layers, case):
    made = Made(dataset, layers, **VARIANTS[case])
    made.disturb()
    learner, rows = made.learner, made.trainer.split.train[:, :16]
    found = learner.gradients(Batch(rows))
    for index in range(len(SEEDS)):
        blocks = made.blocks(index)
        given_parameters(made, blocks, index)
        x, labels = made.images[rows[index]], made.labels[rows[index]]
        for layer, (block, span) in enumerate(zip(blocks, made.network.layer_spans(), strict=True)):
            h = block(x)
            loss, head_loss = block.losses(h, labels)
            assert found[index, layer].item() == pytest.approx(loss.item(), rel=1e-10)
            gradients = [learner.by_weight, learner.by_scale, learner.by_shift, learner.by_projection]
            ours = [kind[layer][index] for kind in gradients if kind]
            for one, other in zip(ours, torch.autograd.grad(loss, block.layer(), retain_graph=True), strict=True):
                assert textbook.relative_difference(one, other) < 1e-9
            by_head = torch.autograd.grad(head_loss, [block.head.weight, block.head.bias])
            heads = [learner.heads.gradient[index, layer, :, span], learner.heads.bias_gradient[index, layer]]
            for one, other in zip(heads, by_head, strict=True):
                assert textbook.relative_difference(one, other) < 1e-10
            x = h.detach()


@pytest.mark.parametrize("case", VARIANTS)
def test_a_training_is_what_the_papers_code_makes_of_the_same_mini_batches(case, monkeypatch):
    settings = {"learning_rate": 0.01, "head_learning_rate": 0.03, "rep_epochs": 2, "softmax_epochs": 1}
    made = Made(**settings, **VARIANTS[case])
    dropout = made.config.settings.dropout or None
    batches, original = [], Trainer.batches

    def watched(trainer, phase, epoch):
        for batch in original(trainer, phase, epoch):
            batches.append(batch)
            yield batch

    monkeypatch.setattr(Trainer, "batches", watched)
    history = list(made.trainer.epochs("local"))
    assert [len(batch.rows[0]) for batch in batches] == [16, 16, 16, 3] * 3
    seen = read(made.network, made.trainer.images, made.trainer.split.val, predsim.READOUTS)
    for index in range(len(SEEDS)):
        blocks = made.blocks(index)
        layers = torch.optim.Adam([tensor for block in blocks for tensor in block.layer()], lr=1)
        heads = torch.optim.Adam([tensor for block in blocks for tensor in block.head.parameters()], lr=1)
        losses = []
        for step, batch in enumerate(batches):
            x, labels = made.images[batch.rows[index]], made.labels[batch.rows[index]]
            for optimiser, rate in ((layers, 0.01), (heads, 0.03)):
                optimiser.zero_grad()
                optimiser.param_groups[0]["lr"] = rate * (1 - step / len(batches))
            losses.append(0.0)
            for layer, block in enumerate(blocks):
                h = block(x.detach())
                loss, head_loss = block.losses(h, labels)
                for parameters, part in ((block.layer(), loss), (list(block.head.parameters()), head_loss)):
                    for tensor, gradient in zip(
                        parameters, torch.autograd.grad(part, parameters, retain_graph=True), strict=True
                    ):
                        tensor.grad = gradient
                losses[-1] += loss.item() / len(blocks)
                # What is dropped is missing above, and not to the layer's own losses.
                x = h if dropout is None else h * Dropout(dropout, batch.keys).factors(layer, made.all(h))[index]
            layers.step()
            heads.step()
        for epoch, shown in enumerate(history):
            assert shown.loss[index] == pytest.approx(sum(losses[4 * epoch : 4 * epoch + 4]) / 4, rel=1e-8)
        # What is asked at the end, with the running averages: the same scores at each depth.
        x = made.images[made.trainer.split.val[index]]
        for block in blocks:
            block.eval()
        with torch.no_grad():
            for layer, block in enumerate(blocks):
                x = block(x)
                assert textbook.relative_difference(seen.said["head"][index, :, layer], block.head(x)) < 1e-7


def test_a_mini_batch_of_one_image_teaches_nothing_that_is_not_a_number():
    made = Made(train_batch_size=50)
    # Of 51 images the last mini-batch has one: it has no variance.
    [epoch] = list(made.trainer.epochs("local"))[:1]
    assert made.trainer.split.train.shape[1] == 51
    assert all(map(torch.isfinite, torch.tensor(epoch.loss)))
    assert torch.isfinite(made.learner.variances).all()
    assert torch.isfinite(torch.cat([tensor.flatten() for tensor in made.network.weights])).all()


def test_a_state_after_the_last_epoch_answers_as_the_run_that_wrote_it(tmp_path):
    whole, again = Made(rep_epochs=1, softmax_epochs=1), Made(rep_epochs=1, softmax_epochs=1)
    list(whole.trainer.epochs("local"))
    save_state(tmp_path, "key", whole.trainer.state, [])
    assert load_state(tmp_path, "key", again.trainer.state) == []
    assert list(again.trainer.epochs("local")) == []
    for one, other in zip(
        [*again.network.weights, *again.network.biases], [*whole.network.weights, *whole.network.biases], strict=True
    ):
        assert torch.equal(one, other)


def test_the_matrices_of_a_seed_do_not_depend_on_its_group():
    group, alone = Made(seeds=[3, 8]), Made(seeds=[8])
    for one, other in zip(group.learner.projections, alone.learner.projections, strict=True):
        assert torch.equal(one[1], other[0])
        assert not torch.equal(one[0], one[1])
        assert one.abs().max() <= one.shape[1] ** -0.5
        assert one.abs().max() > 0.9 * one.shape[1] ** -0.5


def test_multiplications_are_counted():
    values = {"layers": "784,200,100", "train_batch_size": 64}
    layers = 2 * (784 * 200 + 200 * 100)
    cosines, projections = 2 * 64 * 300, 3 * (200**2 + 100**2)
    for recipe, changes, expected in (
        ("predsim", {}, layers + cosines + projections),
        ("sim", {}, layers + cosines + projections),
        ("predsim", {"projection": False}, layers + cosines),
        ("pred", {}, layers),
    ):
        assert predsim.training_macs(make_run_config(values | changes | {"recipe": recipe})[0]) == expected


def test_settings_without_effect_are_remarked_upon():
    _, warnings = make_run_config({"recipe": "pred", "projection": False})
    assert warnings == ["projection has no effect on recipe pred: it has no similarity loss"]
    _, warnings = make_run_config({"recipe": "sim", "layers": "784,20", "dropout": 0.1})
    assert warnings == ["dropout has no effect on recipe sim with a single layer: its own losses see all outputs"]
    assert make_run_config({"recipe": "pred"})[1] == make_run_config({"projection": False, "recipe": "sim"})[1] == []
