"""Whole trainings against plain code, autograd and torch's Adam; and what is drawn for them."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
import textbook
import torch
from scipy.stats import chisquare
from test_network import made_part

from ff.data.images import Part, standardise
from ff.data.registry import DATASETS
from ff.learn.draws import split_rows
from ff.learn.negatives import Hard, Uniform
from ff.learn.network import initial_network
from ff.learn.recipes import make_run_config
from ff.learn.rule import LearningPhase
from ff.learn.trainer import Trainer

SEEDS = [3, 8]


class Watched:
    """A training of which every mini-batch and every choice of wrong labels is kept."""

    def __init__(self, part: Part, seeds: list[int], monkeypatch, **values):
        self.config = make_run_config({"precision": "float64", "train_batch_size": 16, "test_batch_size": 10} | values)[
            0
        ]
        facts = DATASETS[self.config.dataset]
        self.trainer = Trainer(self.config, seeds, standardise(part, facts, "cpu", torch.float64))
        # Rows [S, B] and, where there are any, wrong labels and keys [S, B] of each mini-batch.
        self.batches: dict[tuple[str, int], list[list[torch.Tensor | None]]] = defaultdict(list)
        self._watch(monkeypatch)

    def _watch(self, monkeypatch) -> None:
        batches, original = self.batches, Trainer.batches

        def watched(trainer: Trainer, phase: LearningPhase, epoch: int) -> Iterator:
            for batch in original(trainer, phase, epoch):
                batches[phase.name, epoch].append([batch.rows, None, batch.keys])
                yield batch

        monkeypatch.setattr(Trainer, "batches", watched)
        for kind in (Uniform, Hard):
            monkeypatch.setattr(kind, "choose", self._kept(kind.choose))

    def _kept(self, choose: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def chosen(*given: object) -> torch.Tensor:
            wrong = choose(*given)
            list(self.batches.values())[-1][-1][1] = wrong
            return wrong

        return chosen

    def train(self) -> "Watched":
        for phase, _ in self.trainer.schedule:
            for _ in self.trainer.epochs(phase):
                pass
        return self

    def of_seed(self, seed: int) -> dict[tuple[str, int], list[tuple[torch.Tensor | None, ...]]]:
        return {
            key: [tuple(None if part is None else part[seed] for part in batch) for batch in epoch]
            for key, epoch in self.batches.items()
        }


def cut(part: Part, count: int) -> Part:
    return Part(part.images[:count], part.labels[:count])


CASES = {
    "ff": {},
    "edgeff": {"recipe": "edgeff"},
    "mono": {"recipe": "mono", "learning_rate": 0.004, "head_learning_rate": 0.02},
    "mono-3": {"recipe": "mono", "layers": "784,12,9,11", "schedule": "constant"},
    "bp": {"recipe": "bp", "learning_rate": 0.004, "head_learning_rate": 0.02},
    "one layer": {"layers": "784,14"},
    "colour": {"dataset": "CIFAR10", "layers": "3072,12,9", "negatives": "uniform"},
    "the other way round": {"loss": "threshold", "threshold": 0.7, "schedule": "constant", "normalisation": "unit"},
    "moved": {"shift": 2, "negatives": "uniform"},
    "mirrored": {"flip": True, "recipe": "edgeff", "schedule": "step"},
    "colour-moved": {"dataset": "CIFAR10", "layers": "3072,12,9", "shift": 3, "flip": True},
    "dropout": {"dropout": 0.3, "weight_decay": 0.1},
    "bp-noisy": {
        "recipe": "bp",
        "dropout": 0.3,
        "shift": 1,
        "flip": True,
        "weight_decay": 0.2,
        "schedule": "step",
    },
    "mono-noisy": {"recipe": "mono", "layers": "784,12,9,11", "dropout": 0.3, "shift": 2, "weight_decay": 0.3},
    "settings of their own": {"alpha": 3.0, "hardness": 1.5, "overlay_value": 4.0, "neutral_value": 0.5},
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_is_what_plain_code_makes_of_the_same_mini_batches(case, digits, monkeypatch):
    values = {"dataset": "DIGITS", "layers": "784,12,9", "rep_epochs": 3, "softmax_epochs": 2, "val_size": 33}
    values |= {"learning_rate": 0.03, "head_learning_rate": 0.05} | CASES[case]
    dataset = values["dataset"]
    part = cut(digits.train, 100) if dataset == "DIGITS" else made_part(dataset, 100)
    watched = Watched(part, SEEDS, monkeypatch, **values).train()
    trainer, config = watched.trainer, watched.config
    first = initial_network(config, SEEDS, DATASETS[dataset].shape[0])
    plain, labels = textbook.standardised(part, dataset), part.labels.long()
    split = split_rows(100, 33, SEEDS)
    for index in range(len(SEEDS)):
        batches = watched.of_seed(index)
        for epoch in batches.values():
            # Full mini-batches and a last one of three, every training sample once.
            assert [len(rows) for rows, *_ in epoch] == [16, 16, 16, 16, 3]
            assert torch.equal(torch.cat([rows for rows, *_ in epoch]).sort().values, split.train[index])
        run = textbook.PlainTraining(config, first, index, plain, labels, split.val[index]).run(batches)
        assert len(run.history) == len(trainer.state.history) == 5
        for found, expected in zip(trainer.state.history, run.history, strict=True):
            assert (found.phase, found.epoch) == (expected["phase"], expected["epoch"])
            assert found.loss[index] == pytest.approx(expected["loss"], rel=1e-8)
            assert found.goodness_positive[index] == pytest.approx(expected["goodness_positive"], rel=1e-8)
            assert found.goodness_negative[index] == pytest.approx(expected["goodness_negative"], rel=1e-8)
            assert found.validation_accuracy[index] == pytest.approx(expected["validation_accuracy"])
            assert found.learning_rate == pytest.approx(expected["learning_rate"])
        network = trainer.state.network.of_seed(index)
        found = [*network.weights, *network.biases, network.heads, network.head_biases]
        for one, other in zip(found, [*run.weights, *run.biases, run.heads, run.head_biases], strict=True):
            assert textbook.relative_difference(one[0], other.detach()) < 1e-7


# -- what is drawn ----


def wrong_labels(watched: Watched, epoch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and wrong labels of one epoch, in the order in which they were trained."""
    rows, wrong, _ = zip(*watched.of_seed(seed)["representation", epoch], strict=True)
    return torch.cat(rows), torch.cat(wrong)


def watched_negatives(digits, monkeypatch, **values) -> Watched:
    """Five epochs in which the layers stay what they are, to rounding: what is drawn depends on nothing else."""
    settings = {"dataset": "DIGITS", "layers": "784,9", "rep_epochs": 5, "softmax_epochs": 0, "val_size": 200}
    settings |= {"learning_rate": 1e-20, "train_batch_size": 256, "test_batch_size": 512} | values
    return Watched(digits.train, SEEDS, monkeypatch, **settings).train()


@pytest.mark.parametrize("negatives", ["uniform", "hard"])
def test_wrong_labels_are_drawn_anew_for_each_epoch_mini_batch_and_seed(digits, monkeypatch, negatives):
    watched = watched_negatives(digits, monkeypatch, negatives=negatives, hardness=0.01)
    labels = digits.train.labels.long()
    by_row = torch.zeros(5, len(labels), dtype=torch.long)
    for epoch in range(1, 6):
        rows, wrong = wrong_labels(watched, epoch)
        assert (wrong != labels[rows]).all()
        by_row[epoch - 1, rows] = (wrong - labels[rows]) % 10
        shifts = (wrong - labels[rows]) % 10
        # Chance makes a ninth of two independent draws equal.
        assert (shifts[:256] == shifts[256:512]).double().mean() < 0.25, "two mini-batches"
        other_rows, other = wrong_labels(watched, epoch, seed=1)
        assert (shifts == (other - labels[other_rows]) % 10).double().mean() < 0.25, "two seeds"
    trained = by_row[0] > 0
    for epoch in range(1, 5):
        assert (by_row[0] == by_row[epoch])[trained].double().mean() < 0.25, "two epochs"


def test_uniform_negatives_are_all_wrong_labels_alike(digits, monkeypatch):
    watched = watched_negatives(digits, monkeypatch, negatives="uniform")
    shifts = []
    for epoch in range(1, 6):
        rows, wrong = wrong_labels(watched, epoch)
        shifts.append((wrong - digits.train.labels.long()[rows]) % 10)
    counts = torch.bincount(torch.cat(shifts), minlength=10).tolist()
    assert counts[0] == 0
    assert chisquare(counts[1:]).pvalue > 1e-3


def test_hard_negatives_follow_the_softmax_of_the_first_layers_goodness(digits, monkeypatch):
    hardness = 40.0
    watched = watched_negatives(digits, monkeypatch, hardness=hardness, rep_epochs=15)
    weights, biases, _, _ = textbook.parameters_of(watched.trainer.state.network, 0)
    plain, labels = textbook.standardised(digits.train, "DIGITS"), digits.train.labels.long()
    with torch.no_grad():
        good = torch.stack(
            [
                textbook.goodness(
                    textbook.layer(
                        textbook.with_label(plain, torch.full_like(labels, k), 1, 10.0), weights[0], biases[0], "rms"
                    )
                )
                for k in range(10)
            ],
            1,
        )
    share = (good * hardness).scatter(1, labels[:, None], -torch.inf).softmax(1)
    # How often the likeliest wrong label is drawn, the second likeliest, ...
    order = share.argsort(1, descending=True)
    counts, expected = torch.zeros(10), torch.zeros(10, dtype=torch.float64)
    for epoch in range(1, 16):
        rows, wrong = wrong_labels(watched, epoch)
        rank = (order[rows] == wrong[:, None]).nonzero()[:, 1]
        counts += torch.bincount(rank, minlength=10)
        expected += share[rows].sort(1, descending=True).values.sum(0)
    assert counts[9] == 0
    # Neither even nor always the same: the draw is told from others.
    assert 0.2 < expected[0] / expected.sum() < 0.8
    assert chisquare(counts[:9].tolist(), (expected[:9] / expected[:9].sum() * counts.sum()).tolist()).pvalue > 1e-3


def test_each_phase_has_an_order_of_its_own(digits, monkeypatch):
    watched = Watched(
        cut(digits.train, 100),
        SEEDS,
        monkeypatch,
        dataset="DIGITS",
        layers="784,9",
        rep_epochs=2,
        softmax_epochs=2,
        val_size=20,
    ).train()
    orders = {
        (*key, seed): tuple(torch.cat([rows for rows, *_ in epoch]).tolist())
        for seed in range(len(SEEDS))
        for key, epoch in watched.of_seed(seed).items()
    }
    assert len(set(orders.values())) == len(orders) == 8


def test_validation_samples_are_drawn_from_the_whole_training_set():
    split = split_rows(1000, 300, [0, 1, 2])
    for seed in range(3):
        # Mean and deviation of 300 of the numbers 0..999 drawn without return.
        assert split.val[seed].double().mean().item() == pytest.approx(499.5, abs=4 * 288.7 / 300**0.5)
        gaps = split.val[seed].diff()
        # Of neighbours in the set, three in ten are drawn together.
        assert (gaps == 1).double().mean().item() == pytest.approx(0.3, abs=0.11)
