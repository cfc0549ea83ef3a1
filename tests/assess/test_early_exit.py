"""Early exit: calibration and rules against plain code, MACs by hand, the real path against the curve, and
network cuts beside it."""

import dataclasses
import functools
import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_networks import made_prepared, made_run, schema_errors, trained_on_digits

from ff import stamps
from ff.assess.early_exit import (
    CHOICE,
    CUT_CHOICE,
    TIMED_BATCHES,
    AnswerPath,
    choose,
    curve_point,
    cut_macs,
    reference_cut,
    run_early_exit,
    time_paths,
    timed_rows,
)
from ff.assess.early_exit_text import verdict
from ff.assess.evaluation import run_evaluation
from ff.assess.exit_rules import KS, RULES, calibrate, exit_layers, exits_at, temperatures, tolerated_error
from ff.assess.readings import ask, splits_of
from ff.cli import main
from ff.data.images import Part
from ff.files import read_csv, read_json
from ff.learn import checkpoint
from ff.learn.inference import Exits, Inference

LAYERS = (784, 20, 30, 10)


def made_logits(n: int, depth: int = 3, seed: int = 0, sharpness: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [n, depth, 10] that favour the label, more so the deeper the head, and labels [n]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator)
    logits = torch.randn(n, depth, 10, generator=generator, dtype=torch.float64)
    logits[torch.arange(n), :, labels] += sharpness * torch.linspace(0.6, 1.2, depth, dtype=torch.float64)
    return logits, labels


# -- calibration ----


def test_mu_and_sigma_are_class_means_over_right_samples():
    """DESIGN section 7, sample by sample."""
    logits, labels = made_logits(300)
    found = calibrate(logits, labels)
    for layer in range(3):
        means, deviations = [], []
        for c in range(10):
            own = [float(z[layer, c]) for z, y in zip(logits, labels, strict=True) if y == c and z[layer].argmax() == c]
            assert len(own) > 2
            means.append(np.mean(own))
            deviations.append(np.std(own, ddof=1))
        assert found.mu[layer] == pytest.approx(np.mean(means))
        assert found.sigma[layer] == pytest.approx(np.mean(deviations))
    assert found.n == 300 and found.classes_used == [10, 10, 10]


def test_wrong_answers_do_not_enter_the_calibration():
    logits, labels = made_logits(300)
    wrong = logits.argmax(-1) != labels[:, None]
    changed = logits.clone()
    changed[wrong] *= 100
    assert (changed.argmax(-1) == logits.argmax(-1)).all()
    assert calibrate(changed, labels)[:3] == calibrate(logits, labels)[:3]


def test_classes_with_fewer_than_two_right_samples_are_left_out():
    logits = torch.zeros(5, 1, 10, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 2])
    # Class 0: 4, 6, 8 (mean 6, deviation 2); class 1: one right sample; class 2: none right.
    for row, (c, value) in enumerate([(0, 4), (0, 6), (0, 8), (1, 50), (3, 9)]):
        logits[row, 0, c] = value
    found = calibrate(logits, labels)
    assert found.mu == [pytest.approx(6)] and found.sigma == [pytest.approx(2)] and found.classes_used == [1]


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples_calibrate_nothing_and_nobody_leaves_by_logit(n):
    logits, labels = made_logits(n)
    found = calibrate(logits, labels)
    assert found.mu == found.sigma == [None, None, None]
    assert exits_at("logit", 1.0, found, 10).thresholds == (None, None)
    if n == 0:
        assert exits_at("probability", 1.0, found, 10).thresholds == (None, None)
    some, _ = made_logits(20)
    assert (exit_layers(some, exits_at("logit", 4.0, found, 10)) == 3).all()


def test_the_temperature_that_made_the_labels_is_found():
    """Labels drawn from softmax(z / T) have their smallest cross-entropy at T."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40_000, 3, 10, generator=generator, dtype=torch.float64) * 4
    for layer, temperature in enumerate((0.5, 1.0, 3.0)):
        drawn = torch.multinomial((z[:, layer] / temperature).softmax(-1), 1, generator=generator).squeeze(1)
        assert temperatures(z[:, layer : layer + 1], drawn) == [pytest.approx(temperature, rel=0.05)]


def test_temperatures_are_those_of_a_general_minimiser():
    from scipy.optimize import minimize_scalar

    logits, labels = made_logits(500)
    for layer, found in enumerate(temperatures(logits, labels)):

        def loss(log_t: float, layer: int = layer) -> float:
            z = logits[:, layer] / np.exp(log_t)
            return float(torch.nn.functional.cross_entropy(z, labels))

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
        assert found == pytest.approx(np.exp(best.x), rel=1e-5)


def test_temperatures_stay_within_their_limits():
    """Nothing but right answers asks for temperature 0, nothing but wrong ones for infinity."""
    right, labels = made_logits(50, sharpness=100)
    assert temperatures(right, labels) == [pytest.approx(0.02)] * 3
    assert temperatures(right, (labels + 1) % 10) == [pytest.approx(50)] * 3


# -- rules ----


def test_thresholds_of_both_rules():
    found = calibrate(*made_logits(300))
    for k in (-1.0, 0.0, 2.5):
        expected = [found.mu[i] - k * found.sigma[i] for i in (0, 1)]
        assert exits_at("logit", k, found, 10).thresholds == tuple(map(pytest.approx, expected))
    exits = exits_at("probability", 4.0, found, 10)
    assert exits.thresholds == (pytest.approx(0.5), pytest.approx(0.5))
    assert exits.temperatures == tuple(found.temperature[:2])
    assert [round(tolerated_error(k, 10), 4) for k in (0, 2, 4, 40)] == [0.001, 0.0224, 0.5, 0.9]


def test_a_sample_leaves_at_the_first_layer_that_is_sure():
    logits = torch.zeros(4, 3, 10)
    logits[:, :, 0] = torch.tensor([[5.0, 9, 9], [1, 5, 0], [1, 1, 9], [1, 1, 1]])
    assert exit_layers(logits, Exits((2.0, 3.0))).tolist() == [1, 2, 3, 3]
    assert exit_layers(logits, Exits((None, 0.5))).tolist() == [2, 2, 2, 2]
    assert exit_layers(logits, Exits((5.0, 5.0))).tolist() == [2, 3, 3, 3]


@pytest.mark.parametrize("rule", RULES)
def test_a_larger_k_never_holds_a_sample_longer(rule):
    logits, labels = made_logits(400)
    found = calibrate(logits, labels)
    layers = [exit_layers(logits, exits_at(rule, k, found, 10)) for k in KS]
    assert all((b <= a).all() for a, b in itertools.pairwise(layers))
    assert layers[0].double().mean() > 2.5 and layers[-1].double().mean() < 1.1


def test_the_sweep_holds_what_was_asked_for():
    assert {0.25 * step for step in range(17)} <= set(KS) and list(KS) == sorted(KS)


# -- the curve ----


def test_macs_by_hand():
    """Two of four samples leave at layer 1, one at 2, one at 3, in a network 784-20-30-10."""
    logits = torch.zeros(4, 3, 10)
    logits[:, :, 0] = torch.tensor([[5.0, 0, 0], [5, 0, 0], [1, 5, 0], [1, 1, 1]])
    labels = torch.tensor([0, 1, 0, 0])
    point = curve_point(logits, labels, Exits((2.0, 2.0)), LAYERS)
    ff = [784 * 20, 784 * 20 + 20 * 30, 784 * 20 + 20 * 30 + 30 * 10]
    heads = [10 * 20, 10 * (20 + 50), 10 * (20 + 50 + 60)]
    assert point["macs_ff"] == pytest.approx((2 * ff[0] + ff[1] + ff[2]) / 4)
    assert point["macs_heads"] == pytest.approx((2 * heads[0] + heads[1] + heads[2]) / 4)
    assert point["macs_total"] == pytest.approx(point["macs_ff"] + point["macs_heads"])
    assert [point[f"share_exit_{i}"] for i in (1, 2, 3)] == [0.5, 0.25, 0.25]
    assert point["mean_layers"] == 1.75 and point["accuracy"] == 0.75 and point["n"] == 4


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_cut_pays_its_layers_and_its_own_head_only(depth):
    logits, labels = made_logits(50)
    point = curve_point(logits, labels, None, LAYERS, depth)
    layers, heads = [784 * 20, 20 * 30, 30 * 10], [10 * 20, 10 * (20 + 30), 10 * (20 + 30 + 10)]
    assert point["macs_ff"] == sum(layers[:depth]) and point["macs_heads"] == heads[depth - 1]
    assert point["macs_total"] == cut_macs(LAYERS, 10)[depth - 1]
    assert [point[f"share_exit_{d}"] for d in (1, 2, 3)] == [float(d == depth) for d in (1, 2, 3)]
    assert point["mean_layers"] == depth
    assert point["accuracy"] == pytest.approx(float((logits[:, depth - 1].argmax(-1) == labels).double().mean()))


def test_asking_heads_in_vain_costs_more_than_full_depth():
    logits, labels = made_logits(50)
    point = curve_point(logits, labels, Exits((1e9, 1e9)), LAYERS)
    assert point["mean_layers"] == 3 and point["macs_total"] > cut_macs(LAYERS, 10)[-1]


# -- the operating point and the reference cut ----


def points(*pairs: tuple[float, float]) -> list[dict]:
    return [{"accuracy": accuracy, "macs_total": macs} for accuracy, macs in pairs]


def test_the_largest_saving_within_a_tenth_of_a_point_is_chosen():
    (full,) = points((0.98, 100))
    assert choose(points((0.981, 90), (0.979, 60), (0.9789, 40)), full) == 1
    assert choose(points((0.9795, 60), (0.9799, 60), (0.9799, 60)), full) == 1
    assert choose(points((0.97, 10), (0.98, 110), (0.98, 100)), full) is None
    assert choose([], full) is None


def test_the_reference_is_the_cheapest_cut_that_meets_the_tolerance_of_the_operating_point():
    assert reference_cut(points((0.979, 40), (0.99, 60), (0.98, 100))) == 0
    assert reference_cut(points((0.9789, 40), (0.979, 60), (0.98, 100))) == 1
    # A shallower network that is better than full depth does not raise what is asked for.
    assert reference_cut(points((0.9789, 40), (0.999, 60), (0.9799, 80), (0.98, 100))) == 1
    assert reference_cut(points((0.9, 40), (0.97, 60), (0.98, 100))) == 2
    assert reference_cut(points((0.98, 100))) == 0


# -- time ----


def test_timed_samples_stand_for_the_whole_split():
    logits, _ = made_logits(10_000)
    chosen = timed_rows(logits[:, 0], 100, seed=1)
    assert len(chosen.unique()) == 100
    sure = logits[:, 0].amax(-1)
    for level in (0.2, 0.5, 0.9):
        threshold = sure.quantile(level)
        assert float((sure[chosen] > threshold).double().mean()) == pytest.approx(1 - level, abs=0.011)
    assert torch.equal(chosen, timed_rows(logits[:, 0], 100, seed=1))
    assert not torch.equal(chosen, timed_rows(logits[:, 0], 100, seed=2))
    # No sample twice before every sample once.
    few = torch.bincount(timed_rows(logits[:30, 0], 64, seed=0), minlength=30)
    assert few.sum() == 64 and few.min() == 2 and few.max() == 3


class SlowDevice:
    """Stands in for `Inference` and its device: work ends `per_sample` later on a made clock, but only for
    those who wait."""

    device = torch.device("cpu")

    def __init__(self, per_sample: dict):
        self.per_sample, self.now, self.done, self.log = per_sample, 0.0, 0.0, []

    def answer(self, pixels, exits, depth):
        self.log.append(("run", len(pixels), exits, depth))
        self.done = max(self.done, self.now) + self.per_sample[exits, depth] * len(pixels)

    def synchronise(self):
        self.log.append(("wait",))
        self.now = max(self.now, self.done)

    def clock(self):
        self.log.append(("clock",))
        return self.now


PATHS = [
    AnswerPath("static", None, None, 1),
    AnswerPath("static", None, None, 2),
    AnswerPath("logit", 1.0, Exits((1.0,)), None),
]


def test_times_per_sample_of_a_device_of_known_speed():
    speed = {(path.exits, path.depth): 0.001 * (index + 1) for index, path in enumerate(PATHS)}
    device = SlowDevice(speed)
    batches = {1: [torch.zeros(1, 4)] * 5, 32: [torch.zeros(32, 4)] * 2}
    times = time_paths(device, batches, PATHS, 3, 0, device.clock, device.synchronise)
    for size in batches:
        for passes, expected in zip(times[size], (1.0, 2.0, 3.0), strict=True):
            assert passes == [[pytest.approx(expected)] * len(batches[size])] * 3
    runs = [entry for entry in device.log if entry[0] == "run"]
    # Each of the 3 timed passes, and the untimed one, answers whole batches of the size it is named after.
    assert len(runs) == 4 * 3 * (5 + 2) and {size for _, size, *_ in runs} == {1, 32}


def test_every_answer_is_timed_alone_whatever_its_path():
    """A device that works side by side on what is queued would flatter a path that never waits for it."""
    device = SlowDevice({(path.exits, path.depth): 1.0 for path in PATHS})
    time_paths(device, {1: [torch.zeros(1, 4)] * 4}, PATHS, 2, 0, device.clock, device.synchronise)
    steps = [entry[0] for entry in device.log]
    assert steps == ["wait", "clock", "run", "wait", "clock"] * (len(PATHS) * 4 * 3)


# -- runs ----
# ----------


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A network trained on the digits whose last head says what the second does, with its early exit evaluated.

    So the cut after layer 2 is as accurate as full depth and cheaper. In float64, so that the deployed path
    answers exactly as the curve says.
    """
    folder, prepared = tmp_path_factory.mktemp("run"), digits
    network, config = trained_on_digits(folder, prepared)
    network = network.with_tensors(lambda tensor: tensor.double())
    network.precision, config = "float64", dataclasses.replace(config, precision="float64")
    network.heads[:, 2], network.head_biases[:, 2] = network.heads[:, 1].clone(), network.head_biases[:, 1].clone()
    checkpoint.save(folder / "model.safetensors", network, 0, config)
    run_early_exit(folder, prepared, repeats=1)
    rows = read_csv(folder / "early_exit.csv")
    assert {row.pop("model") for row in rows} == {stamps.model_of(folder)}
    return SimpleNamespace(
        folder=folder,
        prepared=prepared,
        network=network,
        config=config,
        document=read_json(folder / "early_exit.json"),
        rows=rows,
    )


def as_text(row: dict) -> dict:
    """A row of early_exit.json as early_exit.csv writes it, but for the model."""
    return {name: "" if value is None else str(value) for name, value in row.items()}


def path_of(row: dict, calibration) -> tuple[Exits | None, int | None]:
    """Exits and depth of a row of early_exit.csv."""
    if row["rule"] == "static":
        return None, int(row["depth"])
    return exits_at(row["rule"], float(row["k"]), calibration, 10), None


def validation(trained) -> SimpleNamespace:
    """Calibration of a trained network on its validation split, and the logits of its test split."""
    kept = ask(trained.network, trained.prepared, trained.config)
    seen = {
        split: SimpleNamespace(logits=kept.said[split, "head"], labels=kept.answers[split, "head"].labels)
        for split in ("val", "test")
    }
    calibration = calibrate(seen["val"].logits, seen["val"].labels)
    parts = {"val": trained.prepared.train, "test": trained.prepared.test}
    splits = splits_of(trained.config, trained.prepared)
    return SimpleNamespace(
        calibration=calibration,
        test=seen["test"],
        splits={split: (part, splits[split][1][0]) for split, part in parts.items()},
    )


def test_files_of_a_trained_run(trained):
    document, rows = trained.document, trained.rows
    assert schema_errors(document, "early_exit") == []
    keys = Counter((row["rule"], row["k"], row["depth"], row["split"]) for row in rows)
    assert set(keys.values()) == {1}
    expected = {("static", "", str(depth)) for depth in (1, 2, 3)}
    expected |= {(rule, str(k), "") for rule in RULES for k in KS}
    assert set(keys) == {(*key, split) for key in expected for split in ("val", "test")}
    for row in rows:
        shares = [float(row[f"share_exit_{layer}"]) for layer in (1, 2, 3)]
        assert sum(shares) == pytest.approx(1)
        assert float(row["mean_layers"]) == pytest.approx(shares[0] + 2 * shares[1] + 3 * shares[2])
        assert (row["threshold"] == "") == (row["rule"] != "probability")
        for size in TIMED_BATCHES:
            # Validation is for choosing, not for timing; a time that was not measured is empty.
            timed = [row[f"time_ms_batch_{size}"]]
            timed += [row[f"time_saved_share_vs_{base}_batch_{size}"] for base in ("cut", "full")]
            assert all(timed) if row["split"] == "test" else timed == ["", "", ""]
    assert document["macs"]["cuts"] == cut_macs(trained.config.layers, 10)
    assert document["calibration"]["n"] == 300


def test_savings_are_against_the_reference_cut_and_against_full_depth(trained):
    assert trained.document["reference_cut"] == {"depth": 2, "choice": CUT_CHOICE}
    columns = {"macs_total": "macs_saved_share_vs_{}"}
    columns |= {f"time_ms_batch_{size}": f"time_saved_share_vs_{{}}_batch_{size}" for size in TIMED_BATCHES}
    for split in ("val", "test"):
        part = [row for row in trained.rows if row["split"] == split]
        cuts = {row["depth"]: row for row in part if row["rule"] == "static"}
        assert [row["depth"] for row in part if row["is_reference_cut"] == "1"] == ["2"]
        for row, base in itertools.product(part, ("cut", "full")):
            other = cuts[{"cut": "2", "full": "3"}[base]]
            for cost, saved in columns.items():
                if row[cost]:
                    expected = 1 - float(row[cost]) / float(other[cost])
                    assert float(row[saved.format(base)]) == pytest.approx(expected)
    # What is in both files is the same.
    for cut in trained.document["static_cuts"]:
        for split in ("val", "test"):
            (row,) = (r for r in trained.rows if r["depth"] == str(cut["depth"]) and r["split"] == split)
            assert as_text(cut[split]) == row


def test_the_reference_cut_is_chosen_on_validation(trained, tmp_path):
    """Images of which head 1 gets more right than the others would make it the cut, were they asked."""
    seen = validation(trained).test
    right = seen.logits.argmax(-1) == seen.labels[:, None]
    worse = (right[:, 0] & ~right[:, 2]).nonzero().squeeze(1)
    assert len(worse)
    test = trained.prepared.test
    other = trained.prepared._replace(test=Part(test.images[worse], test.labels[worse]))
    (tmp_path / "model.safetensors").write_bytes((trained.folder / "model.safetensors").read_bytes())
    run_early_exit(tmp_path, other, repeats=1, ks=(0.0,))
    document = read_json(tmp_path / "early_exit.json")
    assert reference_cut([cut["test"] for cut in document["static_cuts"]]) == 0
    assert document["reference_cut"]["depth"] == 2


def test_every_row_scores_what_the_deployed_network_answers(trained):
    from sklearn.metrics import f1_score

    seen = validation(trained)
    inference = Inference(trained.network, trained.prepared.facts)
    distinct = set()
    for split in ("val", "test"):
        part, chosen = seen.splits[split]
        pixels, labels = inference.pixels(part.images[chosen]), part.labels[chosen].long()
        for row in (row for row in trained.rows if row["split"] == split):
            answers = inference.answer(pixels, *path_of(row, seen.calibration))
            assert float(row["accuracy"]) == pytest.approx(float((answers.classes == labels).double().mean()))
            assert float(row["macro_f1"]) == pytest.approx(f1_score(labels, answers.classes, average="macro"))
            shares = torch.bincount(answers.layers - 1, minlength=3).double() / len(labels)
            assert [float(row[f"share_exit_{layer}"]) for layer in (1, 2, 3)] == pytest.approx(shares.tolist())
            distinct.add((split, row["rule"], row["accuracy"]))
    # The answers of the heads differ, so that a score of the wrong head would show.
    assert len(distinct) > 10


def test_cuts_score_what_the_evaluation_says_of_their_head(trained):
    run_evaluation(trained.folder, trained.prepared)
    heads = [row for row in read_json(trained.folder / "evaluation.json")["readouts"] if row["readout"] == "head"]
    by_cut = {(row["split"], row["depth"]): row for row in heads}
    for cut in trained.document["static_cuts"]:
        for split in ("val", "test"):
            for score in ("n", "accuracy", "macro_f1"):
                assert cut[split][score] == by_cut[split, cut["depth"]][score]


class CountedWork:
    """A clock on which a multiply-accumulate of `Inference` takes 1 ns.

    It stumbles by a second in the first pass of every path over the batches of one size, and in every pass at
    another one of the first three batches.
    """

    def __init__(self, monkeypatch):
        self.now, self.calls, self.pixels = 0.0, Counter(), {}
        layer, head, answer = Inference.layer, Inference.head, Inference.answer

        def counted_layer(inference, index, x):
            self.now += 1e-9 * len(x) * inference.weights[index].numel()
            return layer(inference, index, x)

        def counted_head(inference, features):
            self.now += 1e-9 * 10 * sum(feature.numel() for feature in features)
            return head(inference, features)

        def counted_answer(inference, pixels, exits, depth):
            key = (exits, depth, len(pixels))
            passes, batch = divmod(self.calls[key], TIMED_BATCHES[len(pixels)])
            if passes == 0:
                self.pixels.setdefault(key, []).append(pixels)
            self.now += 1.0 * (passes == 0 or batch == passes % 3)
            self.calls[key] += 1
            return answer(inference, pixels, exits, depth)

        monkeypatch.setattr(Inference, "layer", counted_layer)
        monkeypatch.setattr(Inference, "head", counted_head)
        monkeypatch.setattr(Inference, "answer", counted_answer)

    def clock(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def counted(trained, tmp_path_factory):
    """The test rows of a run on a device of known speed, and the device."""
    folder = tmp_path_factory.mktemp("counted")
    (folder / "model.safetensors").write_bytes((trained.folder / "model.safetensors").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        work = CountedWork(patch)
        run_early_exit(folder, trained.prepared, repeats=3, ks=(-1.0, 0.0, 0.5, 1.0, 2.0, 4.0), clock=work.clock)
    return [row for row in read_csv(folder / "early_exit.csv") if row["split"] == "test"], work


def test_each_row_has_the_time_of_its_own_path(trained, counted):
    """Median over repeats, without the stumbles, of what the timed images cost on this very path."""
    rows, _ = counted
    seen = validation(trained)
    layers = torch.tensor([60 * 784, 60 * 60, 10 * 60])
    heads = torch.tensor([10 * 60, 10 * 120, 10 * 130])
    for row in rows:
        exits, depth = path_of(row, seen.calibration)
        for size, count in TIMED_BATCHES.items():
            logits = seen.test.logits[timed_rows(seen.test.logits[:, 0], size * count, trained.config.seed)]
            if depth is None:
                left = exit_layers(logits, exits)
                asked = torch.tensor([exits.thresholds[0] is not None, exits.thresholds[1] is not None, True])
                macs = layers.cumsum(0)[left - 1] + (heads * asked).cumsum(0)[left - 1]
            else:
                macs = (layers[:depth].sum() + heads[depth - 1]).expand(len(logits))
            assert float(row[f"time_ms_batch_{size}"]) == pytest.approx(1e-6 * float(macs.double().mean()))
            # And the few images stand for the whole split.
            assert 1e6 * float(row[f"time_ms_batch_{size}"]) == pytest.approx(float(row["macs_total"]), rel=0.01)


def test_timed_images_are_of_the_test_split_and_spread_over_its_confidence(trained, counted):
    _, work = counted
    inference = Inference(trained.network, trained.prepared.facts)
    test = inference.pixels(trained.prepared.test.images)
    place = validation(trained).test.logits[:, 0].amax(-1).argsort().argsort()
    for size, count in TIMED_BATCHES.items():
        timed = [torch.cat(pixels) for key, pixels in work.pixels.items() if key[2] == size]
        # All paths answer the same images in the same order.
        assert all(torch.equal(pixels, timed[0]) for pixels in timed)
        distance = torch.cdist(timed[0], test, compute_mode="donot_use_mm_for_euclid_dist")
        assert len(distance) == size * count and (distance.amin(1) == 0).all()
        places = place[distance.argmin(1)]
        step = 360 / (size * count)
        spread = (torch.arange(size * count) + 0.5) * step
        assert (places.sort().values - spread).abs().max() <= max(step, 1)
        # In a random order, so that no batch holds the sure ones.
        assert not torch.equal(places, places.sort().values)


def test_the_operating_point_is_the_best_validation_row_with_its_test_row(trained):
    point, full = trained.document["operating_point"], trained.document["static_cuts"][-1]["val"]
    assert point["choice"] == CHOICE
    fit = [row for row in trained.rows if row["split"] == "val" and row["rule"] != "static"]
    fit = [row for row in fit if float(row["accuracy"]) >= full["accuracy"] - 0.001 - 1e-9]
    assert point["val"]["macs_total"] == pytest.approx(min(float(row["macs_total"]) for row in fit))
    same = [row for row in trained.rows if (row["rule"], row["k"]) == (point["rule"], str(point["k"]))]
    by_split = {row["split"]: row for row in same}
    for split in ("val", "test"):
        assert as_text(point[split]) == by_split[split]
    assert len(point["thresholds"]) == 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [1, 32, 360])
def test_the_real_path_does_what_the_curve_says(rule, batch, trained):
    seen = validation(trained)
    inference = Inference(trained.network, trained.prepared.facts)
    parts = inference.pixels(trained.prepared.test.images).split(batch)
    left = set()
    for k in (-1.0, 0.0, 1.0, 3.0):
        exits = exits_at(rule, k, seen.calibration, 10)
        answers = [inference.answer(part, exits) for part in parts]
        layers = torch.cat([answer.layers for answer in answers])
        assert torch.equal(layers, exit_layers(seen.test.logits, exits))
        chosen = seen.test.logits.argmax(-1).gather(1, layers[:, None] - 1).squeeze(1)
        assert torch.equal(torch.cat([answer.classes for answer in answers]), chosen)
        left |= set(layers.tolist())
    assert left == {1, 2, 3}


CASES = {
    "one layer": {"layers": "784,25"},
    "two layers": {"layers": "784,25,10"},
    "backprop": {"recipe": "bp"},
    "mono": {"recipe": "mono"},
    "local similarity": {"recipe": "predsim"},
    "tiny validation": {"val_size": 1},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_gets_its_files(case, tmp_path):
    prepared = made_prepared()
    network, _ = made_run(tmp_path, prepared, **CASES[case])
    run_early_exit(tmp_path, prepared, repeats=1, ks=(0.0, 1.0))
    document = read_json(tmp_path / "early_exit.json")
    assert schema_errors(document, "early_exit") == []
    rows = read_csv(tmp_path / "early_exit.csv")
    assert len(rows) == 2 * (network.depth + 2 * 2)
    if case == "one layer":
        # Full depth is the only cut, and no exit lies before it.
        assert document["operating_point"]["rule"] == "none" and document["operating_point"]["thresholds"] == []
        assert document["reference_cut"]["depth"] == 1
        for base in ("cut", "full"):
            assert all(float(row[f"macs_saved_share_vs_{base}"]) == 0 for row in rows)
    if case == "tiny validation":
        assert document["calibration"]["sigma"] == [None, None, None]


def test_without_validation_nothing_is_calibrated_and_the_file_says_why(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared, val_size=0)
    run_early_exit(tmp_path, prepared)
    document = read_json(tmp_path / "early_exit.json")
    assert schema_errors(document, "early_exit") == []
    assert document["available"] is False and "val_size 0" in document["reason"]
    assert document["operating_point"] is None and document["reference_cut"] is None
    assert read_csv(tmp_path / "early_exit.csv") == []
    header = (tmp_path / "early_exit.csv").read_text().strip().split(",")
    assert "share_exit_3" in header and "time_saved_share_vs_cut_batch_512" in header


# -- in words ----


def test_early_exit_that_wins_nothing_against_the_cut_is_said_to_save_nothing():
    cut = "a network cut after layer 1"
    less = f"{cut} is as accurate on validation and costs less: early exit saves nothing here"
    assert verdict(cut, -0.001, [-0.1, 0.0]) == less
    assert verdict(cut, 0.0, [-0.1, -0.2]) == less
    assert verdict(cut, 0.0, [0.0, 0.0]) == less.replace("less", "the same")
    # A shorter time, if only by chance, is not nothing.
    fewer = f"{cut} is as accurate on validation and takes fewer MACs: early exit saves no MACs here"
    assert verdict(cut, -0.001, [-0.1, 0.002]) == fewer
    assert verdict(cut, 0.0, [0.002]) == fewer.replace("fewer", "as many")
    assert verdict(cut, 0.001, [-0.1]) is None


def said(folder, prepared_dir, capsys, monkeypatch, ks=(0.0, 1.0, 2.0, 4.0, 6.0)) -> str:
    """What `ff evaluate --early-exit` says of early exit."""
    monkeypatch.setattr("ff.assess.early_exit.run_early_exit", functools.partial(run_early_exit, repeats=1, ks=ks))
    assert main(["evaluate", str(folder), "--early-exit", "--prepared-dir", str(prepared_dir), "--device", "cpu"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "early exit" in line)
    return line


def test_the_command_line_tells_savings_against_the_cut_first_then_against_full_depth(
    trained, prepared_dir, tmp_path, capsys, monkeypatch
):
    (tmp_path / "model.safetensors").write_bytes((trained.folder / "model.safetensors").read_bytes())
    line = said(tmp_path, prepared_dir, capsys, monkeypatch)
    document = read_json(tmp_path / "early_exit.json")
    test, cuts = document["operating_point"]["test"], document["static_cuts"]
    assert document["reference_cut"]["depth"] == 2
    head, against_cut = line.split("against the cheapest cut as accurate on validation, after layer 2 ")
    against_cut, against_full = against_cut.split("against full depth ")
    assert f"test accuracy {test['accuracy']:.2%}" in head
    for part, base, cut in ((against_cut, "cut", cuts[1]), (against_full, "full", cuts[2])):
        assert part.startswith(
            f"({cut['test']['accuracy']:.2%}): {0 - test[f'macs_saved_share_vs_{base}']:+.2%} MACs, "
        )
        times = [f"{0 - test[f'time_saved_share_vs_{base}_batch_{size}']:+.1%}" for size in (1, 32, 512)]
        assert f"{' / '.join(times)} time at batch 1 / 32 / 512" in part


def test_the_command_line_says_that_a_cut_network_does_as_well(trained, prepared_dir, tmp_path, capsys, monkeypatch):
    """All heads say what the first says: leaving early is then nothing but a network of one layer."""
    network = trained.network.with_tensors(torch.clone)
    for layer in (1, 2):
        network.heads[:, layer], network.head_biases[:, layer] = network.heads[:, 0], network.head_biases[:, 0]
    checkpoint.save(tmp_path / "model.safetensors", network, 0, trained.config)
    line = said(tmp_path, prepared_dir, capsys, monkeypatch)
    assert "a network cut after layer 1 is as accurate on validation and " in line
    assert "early exit saves nothing here; " in line or "early exit saves no MACs here; " in line


def test_the_command_line_says_where_no_threshold_helps(trained, prepared_dir, tmp_path, capsys, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes((trained.folder / "model.safetensors").read_bytes())
    line = said(tmp_path, prepared_dir, capsys, monkeypatch, ks=(-50.0,))
    cut, full = read_json(tmp_path / "early_exit.json")["static_cuts"][1:]
    assert read_json(tmp_path / "early_exit.json")["operating_point"]["rule"] == "none"
    assert f"but a network cut after layer 2 does, at {cut['test']['accuracy']:.2%} on test; against full depth" in line
    assert f"({full['test']['accuracy']:.2%}): {-cut['test']['macs_saved_share_vs_full']:+.2%} MACs" in line


def test_the_command_line_says_where_neither_threshold_nor_cut_helps(
    tmp_path, prepared_dir, digits, capsys, monkeypatch
):
    made_run(tmp_path, digits, layers="784,25")
    assert "nor does a network cut: nothing is saved" in said(tmp_path, prepared_dir, capsys, monkeypatch)
