"""Training: gradients against autograd, Adam against torch's, and what epochs do on real digits."""

import itertools
import math

import pytest
import textbook
import torch
from test_network import made_part

from ff.data.images import Part, standardise
from ff.data.prepared import Prepared
from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.learn.draws import draw_generator, effective_val_size, split_rows
from ff.learn.optimiser import Adam
from ff.learn.recipes import RECIPES, make_run_config
from ff.learn.rule import Batch
from ff.learn.rules import forward_forward
from ff.learn.trainer import Trainer, history_columns, history_rows
from ff.settings import RunConfig

# 1 to 4 layers, grey and colour.
NETWORKS = [
    ("MNIST", "784,12"),
    ("MNIST", "784,12,10"),
    ("MNIST", "784,12,9,8"),
    ("MNIST", "784,12,9,8,10"),
    ("CIFAR10", "3072,10"),
    ("CIFAR10", "3072,12,9,8,7"),
]
COMBINATIONS = [
    {"normalisation": n, "loss": loss, "negatives": negatives}
    for n, loss, negatives in itertools.product(("rms", "unit"), ("symba", "threshold"), ("uniform", "hard"))
]
BATCH = 16
TOLERANCE = 1e-10


class Made:
    """A trainer in float64 on made images, with the same images as plain code sees them."""

    def __init__(self, dataset: str, layers: str, seeds: list[int], **values):
        self.config, _ = make_run_config(
            {"dataset": dataset, "layers": layers, "precision": "float64", "val_size": 4} | values
        )
        part = made_part(dataset, 40)
        self.channels = DATASETS[dataset].shape[0]
        self.trainer = Trainer(self.config, seeds, standardise(part, DATASETS[dataset], "cpu", torch.float64))
        self.plain, self.labels = textbook.standardised(part, dataset), part.labels.long()
        self.rows = self.trainer.split.train[:, :BATCH]
        self.network = self.trainer.state.network

    def batch(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.plain[self.rows[seed]], self.labels[self.rows[seed]]

    def wrong_labels(self, seed: int, draw: torch.Tensor) -> torch.Tensor:
        """What the settings say about negatives, with the numbers drawn for them."""
        images, labels = self.batch(seed)
        if self.config.settings.negatives == "uniform":
            return torch.tensor(
                [(label + shift) % 10 for label, shift in zip(labels.tolist(), draw.tolist(), strict=True)]
            )
        weights, biases, _, _ = textbook.parameters_of(self.network, seed)
        scores = []
        for label in range(10):
            x = textbook.with_label(
                images, torch.full_like(labels, label), self.channels, self.config.settings.overlay_value
            )
            h = textbook.layer(x, weights[0], biases[0], self.config.settings.normalisation)
            score = textbook.goodness(h) * self.config.settings.hardness + draw[:, label]
            scores.append(torch.where(labels == label, -math.inf, score))
        return torch.stack(scores, 1).argmax(1)


def given_heads(made: Made) -> None:
    """Heads that are not zero, where each may look."""
    network = made.network
    noise = torch.randn(network.heads.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    network.heads.copy_(noise * network.head_mask())


def check_layers(made: Made) -> None:
    trainer = made.trainer
    draw = torch.stack(
        [trainer.learner.negatives.draw(draw_generator(seed, "negatives", 1), BATCH) for seed in trainer.seeds]
    )
    measured = trainer.learner.gradients(Batch(made.rows, draw))
    for seed in range(len(trainer.seeds)):
        images, labels = made.batch(seed)
        wrong = made.wrong_labels(seed, draw[seed])
        losses, gradients = textbook.forward_forward_gradients(
            images, labels, wrong, made.channels, made.network, seed, made.config.settings
        )
        assert measured[0, seed].tolist() == pytest.approx(losses, rel=1e-9)
        found = [g[seed] for g in (*trainer.learner.layers.weight_gradients, *trainer.learner.layers.bias_gradients)]
        assert max(map(textbook.relative_difference, found, gradients)) < TOLERANCE


@pytest.mark.parametrize("seeds", [[3], [3, 4, 9]])
@pytest.mark.parametrize(("dataset", "layers"), NETWORKS)
@pytest.mark.parametrize("recipe", ["ff", "edgeff"])
def test_the_layers_gradients_equal_autograds(recipe, dataset, layers, seeds):
    check_layers(Made(dataset, layers, seeds, recipe=recipe))


@pytest.mark.parametrize("settings", COMBINATIONS, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize(("dataset", "layers"), [("MNIST", "784,12,9,8"), ("CIFAR10", "3072,12,9")])
def test_the_layers_gradients_equal_autograds_for_every_combination_of_settings(dataset, layers, settings):
    check_layers(Made(dataset, layers, [1, 2], **settings, overlay_value=4.0, alpha=3.0, threshold=1.0, hardness=2.0))


@pytest.mark.parametrize("seeds", [[3], [3, 4, 9]])
@pytest.mark.parametrize(("dataset", "layers"), NETWORKS)
@pytest.mark.parametrize("normalisation", ["rms", "unit"])
def test_the_heads_gradients_equal_autograds(normalisation, dataset, layers, seeds):
    made = Made(dataset, layers, seeds, normalisation=normalisation)
    given_heads(made)
    heads = made.trainer.learner.heads
    loss, _ = heads.gradients(heads.features(made.rows), made.trainer.images.labels[made.rows])
    for seed in range(len(seeds)):
        losses, gradients = textbook.head_gradients(
            *made.batch(seed), made.channels, made.network, seed, made.config.settings
        )
        assert loss[seed].tolist() == pytest.approx(losses, rel=1e-9)
        found = [heads.gradient[seed], heads.bias_gradient[seed]]
        assert max(map(textbook.relative_difference, found, gradients)) < TOLERANCE
        # A head never learns of layers above its own.
        assert not (heads.gradient[seed] * (1 - heads.mask)).any()


@pytest.mark.parametrize("seeds", [[3], [3, 4, 9]])
@pytest.mark.parametrize(("dataset", "layers"), NETWORKS)
@pytest.mark.parametrize("normalisation", ["rms", "unit"])
def test_the_gradients_of_backpropagation_equal_autograds(normalisation, dataset, layers, seeds):
    made = Made(dataset, layers, seeds, recipe="bp", normalisation=normalisation, neutral_value=0.4)
    given_heads(made)
    trainer = made.trainer
    losses = trainer.learner.gradients(Batch(made.rows))
    for seed in range(len(seeds)):
        loss, gradients = textbook.backprop_gradients(
            *made.batch(seed), made.channels, made.network, seed, made.config.settings
        )
        assert losses[seed, -1].item() == pytest.approx(loss, rel=1e-9)
        found = [
            *(g[seed] for g in (*trainer.learner.layers.weight_gradients, *trainer.learner.layers.bias_gradients)),
            trainer.learner.heads.gradient[seed, -1],
            trainer.learner.heads.bias_gradient[seed, -1],
        ]
        assert max(map(textbook.relative_difference, found, gradients)) < TOLERANCE


@pytest.mark.parametrize("seeds", [[3], [3, 4, 9]])
@pytest.mark.parametrize(("dataset", "layers"), NETWORKS)
@pytest.mark.parametrize("recipe", ["mono", "tinyfoa"])
def test_the_gradients_of_mono_forward_equal_autograds(recipe, dataset, layers, seeds):
    made = Made(dataset, layers, seeds, recipe=recipe)
    given_heads(made)
    learner = made.trainer.learner
    losses = learner.gradients(Batch(made.rows))
    for seed in range(len(seeds)):
        expected, gradients = textbook.mono_gradients(
            *made.batch(seed), made.channels, made.network, seed, made.config.settings
        )
        assert losses[seed].tolist() == pytest.approx(expected, rel=1e-9)
        found = [g[seed] for g in (*learner.layers.weight_gradients, *learner.layers.bias_gradients)]
        if recipe == "mono":
            found.append(learner.heads.gradient[seed])
        else:
            gradients.pop()
        assert max(map(textbook.relative_difference, found, gradients)) < TOLERANCE
    assert not learner.heads.bias_gradient.any()


def test_fixed_matrices_stay_as_they_were_drawn(digits):
    values = {"recipe": "tinyfoa", "layers": "784,400,300"}
    fresh = Trainer(small_config(**values), [0, 3], standardise(digits.train, digits.facts, "cpu"))
    drawn, spans = fresh.state.network.heads, fresh.state.network.head_spans()
    for layer, (span, width) in enumerate(zip(spans, (400, 300), strict=True)):
        # 4,000 and 3,000 normal numbers.
        assert drawn[:, layer, :, span].var().item() * width == pytest.approx(2, rel=0.1)
        assert abs(drawn[:, layer, :, span].mean().item()) < 0.1 / width**0.5
    assert not (drawn * (1 - fresh.state.network.head_mask())).any()
    assert not torch.equal(drawn[0], drawn[1])
    after = trained(digits, [3], rep_epochs=1, softmax_epochs=1, weight_decay=0.1, **values)
    assert torch.equal(after.state.network.heads[0], drawn[1])
    assert list(after.state.optimisers) == ["layers"]
    _, warnings = make_run_config({"recipe": "tinyfoa", "head_learning_rate": 0.1})
    assert warnings == ["head_learning_rate has no effect on recipe tinyfoa: its matrices stay as drawn"]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_is_torchs_adam(decay):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 30, dtype=torch.float64, generator=generator)
    ours, theirs = Adam(start.clone()), start.clone().requires_grad_()
    ours.weight_decay = decay
    reference = torch.optim.AdamW([theirs], lr=0.05, weight_decay=decay)
    for step in range(25):
        gradient = torch.randn(2, 30, dtype=torch.float64, generator=generator) * 10.0 ** (step % 5 - 4)
        ours.gradient.copy_(gradient)
        theirs.grad = gradient.clone()
        for group in reference.param_groups:
            group["lr"] = 0.05 * (1 - step / 25)
        ours.begin_step(0.05 * (1 - step / 25))
        ours.update()
        reference.step()
    assert textbook.relative_difference(ours.parameters, theirs.detach()) < 1e-13


# -- on real digits ----


def trained(prepared: Prepared, seeds: list[int], **values) -> Trainer:
    config = small_config(**values)
    trainer = Trainer(config, seeds, standardise(prepared.train, prepared.facts, "cpu"))
    for phase, _ in trainer.schedule:
        list(trainer.epochs(phase))
    return trainer


def small_config(**values) -> RunConfig:
    settings = {"dataset": "DIGITS", "layers": "784,30,20", "rep_epochs": 3, "softmax_epochs": 3, "val_size": 200}
    return make_run_config(settings | values)[0]


# The published settings learn slowly on so few images.
@pytest.mark.parametrize(("recipe", "epochs"), [("ff", 3), ("edgeff", 40)])
def test_training_lowers_the_loss_and_lifts_positives_above_negatives(digits, recipe, epochs):
    history = trained(digits, [0], recipe=recipe, rep_epochs=epochs, softmax_epochs=epochs).state.history
    by_phase = {phase: [e for e in history if e.phase == phase] for phase in ("representation", "softmax")}
    for rows in by_phase.values():
        assert [e.epoch for e in rows] == list(range(1, epochs + 1))
        assert rows[-1].loss[0] < rows[0].loss[0]
        assert rows[-1].validation_accuracy[0] > rows[0].validation_accuracy[0]
    last = by_phase["representation"][-1]
    assert sum(last.goodness_positive[0]) > sum(last.goodness_negative[0])
    assert {e.validation_readout for e in by_phase["representation"]} == {"goodness"}
    assert {e.validation_readout for e in by_phase["softmax"]} == {"head"}
    # Guessing gives 10 %.
    assert by_phase["softmax"][-1].validation_accuracy[0] > 0.5


@pytest.mark.parametrize(
    ("recipe", "phase", "least"), [("bp", "backprop", 0.7), ("mono", "mono", 0.65), ("predsim", "local", 0.6)]
)
def test_rules_of_one_phase_train_as_many_epochs_in_it(digits, recipe, phase, least):
    history = trained(digits, [0], recipe=recipe).state.history
    assert [(e.phase, e.epoch) for e in history] == [(phase, epoch) for epoch in range(1, 7)]
    assert history[-1].loss[0] < history[0].loss[0]
    assert history[-1].validation_accuracy[0] > least
    assert history[-1].goodness_positive == [[]]


def test_history_rows_are_those_of_one_seed(digits):
    history = trained(digits, [0, 1]).state.history
    rows = history_rows(history, 1)
    assert set(rows[0]) == set(history_columns(2))
    assert rows[2]["loss"] == history[2].loss[1]
    assert rows[2]["goodness_positive_2"] == history[2].goodness_positive[1][1]
    assert rows[2]["validation_accuracy"] == history[2].validation_accuracy[1]
    # Nothing that was not measured is in a row.
    assert "goodness_positive_1" not in rows[-1]


@pytest.mark.parametrize("schedule", ["linear", "constant", "step"])
def test_the_learning_rate_goes_down_to_nothing_or_stays(digits, schedule):
    rates = [e.learning_rate for e in trained(digits, [0], schedule=schedule, learning_rate=0.02).state.history[:3]]
    if schedule == "constant":
        assert rates == [0.02] * 3
        return
    if schedule == "step":
        # Of 15 steps the 5th, the 10th and the last have 4, 9 and 14 before them: 27, 60 and 93 %.
        assert rates == pytest.approx([0.02, 0.02 / 4, 0.02 / 64])
        return
    # 1,237 samples in batches of 256 are 5 steps an epoch; a row shows its last step's rate.
    assert rates == pytest.approx([0.02 * (1 - step / 15) for step in (4, 9, 14)])


@pytest.mark.parametrize("size", [1, 100, 256, 1237, 5000])
def test_the_batch_size_is_the_batch_that_is_trained(digits, size, monkeypatch):
    cut = Prepared("DIGITS", Part(digits.train.images[:120], digits.train.labels[:120]), digits.test, "", True, [])
    prepared, count = (cut, 100) if size == 1 else (digits, 1237)
    seen, original = [], forward_forward.Learner.gradients
    monkeypatch.setattr(
        forward_forward.Learner, "gradients", lambda self, batch: seen.append(batch.rows) or original(self, batch)
    )
    steps = []
    monkeypatch.setattr(Adam, "update", lambda self: steps.append(self.gradient.shape[1]))
    trainer = trained(
        prepared, [0], train_batch_size=size, rep_epochs=1, softmax_epochs=2, val_size=20 if size == 1 else 200
    )
    sizes = [rows.shape[1] for rows in seen]
    assert sizes == [size] * (count // size) + ([count % size] if count % size else [])
    # One update of the layers for each batch of one epoch, one of the heads for each batch of two.
    assert steps.count(trainer.state.optimisers["layers"].gradient.shape[1]) == len(sizes)
    assert steps.count(trainer.state.optimisers["heads"].gradient.shape[1]) == 2 * len(sizes)
    # Every training sample once an epoch, none of the validation set.
    assert torch.equal(torch.cat(seen, 1)[0].sort().values, trainer.split.train[0])


def test_the_order_of_the_data_differs_between_epochs_and_seeds(digits, monkeypatch):
    seen, original = [], forward_forward.Learner.gradients
    monkeypatch.setattr(
        forward_forward.Learner, "gradients", lambda self, batch: seen.append(batch.rows) or original(self, batch)
    )
    trained(digits, [0, 1], rep_epochs=2, softmax_epochs=0, train_batch_size=2000)
    first, second = seen
    assert not torch.equal(first, second)
    assert not torch.equal(first[0].sort().values, first[1].sort().values), "seeds draw their own validation set"


NOISY = {"shift": 1, "flip": True, "dropout": 0.2, "weight_decay": 0.01}


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["", "noisy"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_run_in_a_group_equals_the_run_alone(digits, recipe, noise, monkeypatch):
    orders: list[list[torch.Tensor]] = []
    original = Trainer.batches

    def recorded(self, phase, epoch):
        for batch in original(self, phase, epoch):
            orders[-1] += [part for part in batch if part is not None]
            yield batch

    monkeypatch.setattr(Trainer, "batches", recorded)
    orders.append([])
    group = trained(digits, [0, 5, 7], recipe=recipe, rep_epochs=1, softmax_epochs=1, **noise)
    for index, seed in enumerate((0, 5, 7)):
        orders.append([])
        alone = trained(digits, [seed], recipe=recipe, rep_epochs=1, softmax_epochs=1, **noise)
        # The same order and the same draws, exactly.
        assert all(torch.equal(a[index], b[0]) for a, b in zip(orders[0], orders[-1], strict=True))
        found, expected = group.state.network.of_seed(index), alone.state.network
        for one, other in zip(
            [*found.weights, *found.biases, found.heads],
            [*expected.weights, *expected.biases, expected.heads],
            strict=True,
        ):
            # Float32 rounding, grown over the steps; a swapped or missed sample gives differences of 1e-2 and more.
            assert textbook.relative_difference(one, other) < 1e-3
        for one, other in zip(group.state.history, alone.state.history, strict=True):
            assert one.loss[index] == pytest.approx(other.loss[0], rel=1e-4)


def test_in_float64_a_group_equals_its_runs_to_rounding(digits):
    def run(seeds):
        config = small_config(precision="float64", rep_epochs=1, softmax_epochs=1)
        trainer = Trainer(config, seeds, standardise(digits.train, digits.facts, "cpu", torch.float64))
        for phase, _ in trainer.schedule:
            list(trainer.epochs(phase))
        return trainer.state.network

    group = run([0, 1, 2])
    for seed in range(3):
        alone = run([seed])
        for one, other in zip(group.of_seed(seed).weights, alone.weights, strict=True):
            assert textbook.relative_difference(one, other) < 1e-11


def test_bfloat16_trains(digits):
    history = trained(digits, [0], precision="bfloat16", rep_epochs=6, softmax_epochs=6).state.history
    assert history[-1].validation_accuracy[0] > 0.7


@pytest.mark.parametrize("recipe", ["ff", "edgeff"])
def test_a_run_that_diverges_says_where_and_why(digits, recipe):
    with pytest.raises(FFError) as raised:
        trained(digits, [6], recipe=recipe, learning_rate=1e30)
    message = str(raised.value)
    for part in ("epoch 1", "layer 1", "learning_rate = 1e+30", "seed 6", f"recipe {recipe}"):
        assert part in message
    assert "head_learning_rate" not in message


def test_heads_that_diverge_are_blamed_on_their_own_learning_rate(digits):
    trainer = Trainer(small_config(), [0], standardise(digits.train, digits.facts, "cpu"))
    list(trainer.epochs("representation"))
    trainer.state.optimisers["heads"].parameters[0, 0] = math.inf
    with pytest.raises(FFError, match=r"softmax loss of layer 1 .* epoch 1 .*head_learning_rate = 0\.01"):
        list(trainer.epochs("softmax"))


def test_the_seed_of_a_group_that_diverges_is_named(digits):
    trainer = Trainer(small_config(), [2, 6, 9], standardise(digits.train, digits.facts, "cpu"))
    trainer.state.network.biases[1][1, 3] = math.inf
    with pytest.raises(FFError, match=r"the representation loss of layer 2 .* epoch 1 \(seed 6\)"):
        list(trainer.epochs("representation"))


def test_a_broken_parameter_is_found_even_where_the_loss_does_not_show_it(digits, monkeypatch):
    original = Adam.update

    def breaking(self):
        original(self)
        if self.steps == 5:
            # The last step of the first epoch: no loss is computed with it.
            self.parameters[0, 7] = math.nan

    monkeypatch.setattr(Adam, "update", breaking)
    trainer = Trainer(small_config(), [0], standardise(digits.train, digits.facts, "cpu"))
    with pytest.raises(FFError, match="the representation loss of its layers is not finite in epoch 1"):
        list(trainer.epochs("representation"))


def test_the_validation_split():
    split = split_rows(100, 30, [0, 1])
    for seed in range(2):
        both = torch.cat([split.train[seed], split.val[seed]])
        assert torch.equal(both.sort().values, torch.arange(100))
        assert len(split.val[seed]) == 30
    assert not torch.equal(split.val[0], split.val[1])
    again = split_rows(100, 30, [1])
    assert torch.equal(again.val[0], split.val[1])


@pytest.mark.parametrize(
    ("wanted", "count", "held_out"), [(0, 50, 0), (49, 50, 49), (50, 50, 10), (10_000, 50, 10), (5, 4, 0)]
)
def test_a_validation_set_that_would_leave_nothing_becomes_a_fifth(wanted, count, held_out):
    assert effective_val_size(wanted, count) == held_out
    assert split_rows(count, wanted, [0]).train.shape[1] == count - held_out


def test_without_a_validation_set_no_accuracy_is_given(digits):
    history = trained(digits, [0, 1], val_size=0, rep_epochs=1, softmax_epochs=1).state.history
    assert [e.validation_accuracy for e in history] == [[None, None], [None, None]]


def test_features_computed_for_each_batch_give_the_same_heads(digits, monkeypatch):
    kept = trained(digits, [0, 1], softmax_epochs=2)
    monkeypatch.setattr("ff.learn.heads.FEATURE_CACHE_BYTES", 0)
    again = trained(digits, [0, 1], softmax_epochs=2)
    assert again.learner.heads.kept is None
    assert kept.learner.heads.kept is not None
    assert textbook.relative_difference(again.state.network.heads, kept.state.network.heads) < 1e-4


def test_moved_images_are_never_kept_for_the_heads(digits):
    still, moved = (trained(digits, [0], rep_epochs=1, softmax_epochs=2, shift=shift) for shift in (0, 1))
    assert still.learner.heads.kept is not None
    assert moved.learner.heads.kept is None


def test_draws_depend_on_seed_purpose_and_epoch_and_on_nothing_else():
    def first(*key):
        return torch.rand(4, generator=draw_generator(*key)).tolist()

    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2)]
    assert len({tuple(first(*key)) for key in keys}) == 4
    assert first(0, "a", 1) == first(0, "a", 1)


def small_trainer(recipe: str, precision: str) -> Trainer:
    values = {"layers": "784,40,30", "precision": precision, "val_size": 4, "train_batch_size": 32}
    # Which negative is the hardest may differ between number formats.
    values |= {"negatives": "uniform"} if "negatives" in vars(RECIPES[recipe]) else {}
    dtype = torch.float64 if precision == "float64" else torch.float32
    images = standardise(made_part("MNIST", 60), DATASETS["MNIST"], "cpu", dtype)
    return Trainer(make_run_config({"recipe": recipe, **values})[0], [1, 2], images)


def first_gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The gradients [S, P] of the first mini-batch of each phase, by phase and learning rate."""
    found = {}
    for phase in trainer.learner.phases:
        phase.begin(trainer.split.train)
        phase.gradients(next(trainer.batches(phase, 1)))
        found |= {f"{phase.name} {name}": adam.gradient.double() for name, adam in phase.optimisers.items()}
        phase.end()
    return found


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_gradients_of_every_rule_are_those_of_float64_but_for_rounding(recipe, precision, within):
    exact, rounded = small_trainer(recipe, "float64"), small_trainer(recipe, precision)
    generator = torch.Generator().manual_seed(5)
    for one, other in zip(exact.learner.optimisers.values(), rounded.learner.optimisers.values(), strict=True):
        # Heads begin with zeros, whose gradients would say little.
        noise = torch.randn(one.parameters.shape, generator=generator, dtype=torch.float64)
        one.parameters.add_(noise.mul_(0.05 * (one.parameters == 0))).copy_(one.parameters.float())
        other.parameters.copy_(one.parameters)
    # Those of tinyfoa do not learn.
    rounded.state.network.heads.copy_(exact.state.network.heads)
    found = first_gradients(rounded)
    for name, gradient in first_gradients(exact).items():
        difference = float((found[name] - gradient).norm() / gradient.norm())
        # bfloat16 rounds indeed.
        assert (0 if precision == "float32" else 1e-4) < difference < within, name
