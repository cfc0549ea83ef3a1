"""Early exit: calibration and rules against plain code, MACs by hand, and the real path against the curve."""

import itertools

import numpy as np
import pytest
import torch
from made_networks import made_prepared, made_run, schema_errors, trained_on_digits

from ff.early_exit import (
    CHOICE,
    KS,
    RULES,
    TIMED_BATCHES,
    calibrate,
    choose,
    curve_point,
    exit_layers,
    exits_at,
    full_macs,
    run_early_exit,
    temperatures,
    time_paths,
    timed_rows,
    tolerated_error,
)
from ff.evaluation import read, split_of
from ff.files import read_csv, read_json
from ff.inference import Exits, Inference

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
    assert exits_at("logit", 1.0, found).thresholds == (None, None)
    if n == 0:
        assert exits_at("probability", 1.0, found).thresholds == (None, None)
    some, _ = made_logits(20)
    assert (exit_layers(some, exits_at("logit", 4.0, found)) == 3).all()


def test_the_temperature_that_made_the_labels_is_found():
    """Labels drawn from softmax(z / T) have their smallest cross-entropy at T."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40_000, 3, 10, generator=generator, dtype=torch.float64) * 4
    for layer, temperature in enumerate((0.5, 1.0, 3.0)):
        drawn = torch.multinomial((z[:, layer] / temperature).softmax(-1), 1, generator=generator).squeeze(1)
        assert temperatures(z, drawn)[layer] == pytest.approx(temperature, rel=0.05)


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
        assert exits_at("logit", k, found).thresholds == tuple(map(pytest.approx, expected))
    exits = exits_at("probability", 4.0, found)
    assert exits.thresholds == (pytest.approx(0.5), pytest.approx(0.5))
    assert exits.temperatures == tuple(found.temperature[:2])
    assert [round(tolerated_error(k), 4) for k in (0, 2, 4, 40)] == [0.001, 0.0224, 0.5, 0.9]


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
    layers = [exit_layers(logits, exits_at(rule, k, found)) for k in KS]
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
    assert full_macs(LAYERS) == ff[2] + 10 * 60
    assert point["macs_saved_share"] == pytest.approx(1 - point["macs_total"] / (ff[2] + 600))
    assert [point[f"share_exit_{i}"] for i in (1, 2, 3)] == [0.5, 0.25, 0.25]
    assert point["mean_layers"] == 1.75 and point["accuracy"] == 0.75 and point["n"] == 4


def test_full_depth_pays_all_layers_and_one_head():
    logits, labels = made_logits(50)
    point = curve_point(logits, labels, Exits((None, None)), LAYERS)
    assert point["macs_saved_share"] == 0 and point["mean_layers"] == 3
    assert point["accuracy"] == pytest.approx(float((logits[:, 2].argmax(-1) == labels).double().mean()))


def test_asking_heads_in_vain_costs_more_than_full_depth():
    logits, labels = made_logits(50)
    point = curve_point(logits, labels, Exits((1e9, 1e9)), LAYERS)
    assert point["mean_layers"] == 3 and point["macs_saved_share"] < 0


# -- the operating point ----


def points(*pairs: tuple[float, float]) -> list[dict]:
    return [{"accuracy": a, "macs_saved_share": s, "k": i} for i, (a, s) in enumerate(pairs)]


def test_the_largest_saving_within_a_tenth_of_a_point_is_chosen():
    full = {"accuracy": 0.98}
    assert choose(points((0.981, 0.1), (0.979, 0.4), (0.9789, 0.6)), full)["k"] == 1
    assert choose(points((0.9795, 0.4), (0.9799, 0.4), (0.9799, 0.4)), full)["k"] == 1
    assert choose(points((0.97, 0.9), (0.98, -0.1), (0.98, 0.0)), full) is None
    assert choose([], full) is None


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

    def answer(self, pixels, exits):
        self.log.append(("run", len(pixels), exits))
        self.done = max(self.done, self.now) + self.per_sample[exits] * len(pixels)

    def synchronise(self):
        self.log.append(("wait",))
        self.now = max(self.now, self.done)

    def clock(self):
        self.log.append(("clock",))
        return self.now


def test_times_per_sample_of_a_device_of_known_speed():
    paths = [None, Exits((1.0,)), Exits((2.0,))]
    device = SlowDevice({None: 0.004, paths[1]: 0.002, paths[2]: 0.001})
    batches = {1: [torch.zeros(1, 4)] * 5, 32: [torch.zeros(32, 4)] * 2}
    times = time_paths(device, batches, paths, 3, 0, device.clock, device.synchronise)
    for size in batches:
        for path, expected in zip(times[size], (4.0, 2.0, 1.0), strict=True):
            assert path == [pytest.approx(expected)] * 3
    runs = [entry for entry in device.log if entry[0] == "run"]
    # Each of the 3 timed passes, and the untimed one, answers whole batches of the size it is named after.
    assert len(runs) == 4 * 3 * (5 + 2) and {size for _, size, _ in runs} == {1, 32}


# -- runs ----
# ----------


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A network trained on the digits, with its early exit evaluated."""
    folder, prepared = tmp_path_factory.mktemp("run"), digits
    network, config = trained_on_digits(folder, prepared)
    run_early_exit(folder, prepared, repeats=1)
    return folder, prepared, network, config


def test_files_of_a_trained_run(trained):
    folder, _, _, config = trained
    document, rows = read_json(folder / "early_exit.json"), read_csv(folder / "early_exit.csv")
    assert schema_errors(document, "early_exit") == []
    assert len(rows) == len(RULES) * len(KS) * 2
    assert {(row["rule"], float(row["k"]), row["split"]) for row in rows} == {
        (rule, k, split) for rule in RULES for k in KS for split in ("val", "test")
    }
    for row in rows:
        shares = [float(row[f"share_exit_{layer}"]) for layer in (1, 2, 3)]
        assert sum(shares) == pytest.approx(1)
        assert float(row["mean_layers"]) == pytest.approx(shares[0] + 2 * shares[1] + 3 * shares[2])
        assert (row["threshold"] == "") == (row["rule"] == "logit")
        for size in TIMED_BATCHES:
            # Validation is for choosing, not for timing; a time that was not measured is empty.
            timed = row[f"time_ms_batch_{size}"], row[f"time_saved_share_batch_{size}"]
            assert all(timed) if row["split"] == "test" else timed == ("", "")
    full = document["full_depth"]["test"]
    some = next(row for row in rows if row["split"] == "test")
    for size in TIMED_BATCHES:
        saved = 1 - float(some[f"time_ms_batch_{size}"]) / full[f"time_ms_batch_{size}"]
        assert float(some[f"time_saved_share_batch_{size}"]) == pytest.approx(saved)
    assert document["macs"]["full"] == full_macs(config.layers)
    assert document["calibration"]["n"] == 300


def test_the_operating_point_is_the_best_validation_row_with_its_test_row(trained):
    folder = trained[0]
    document, rows = read_json(folder / "early_exit.json"), read_csv(folder / "early_exit.csv")
    point, full = document["operating_point"], document["full_depth"]["val"]
    assert point["choice"] == CHOICE
    fit = [row for row in rows if row["split"] == "val" and float(row["accuracy"]) >= full["accuracy"] - 0.001 - 1e-9]
    assert point["val"]["macs_saved_share"] == pytest.approx(max(float(row["macs_saved_share"]) for row in fit))
    same = [r for r in rows if (r["rule"], float(r["k"])) == (point["rule"], point["k"])]
    by_split = {row["split"]: row for row in same}
    for split in ("val", "test"):
        assert point[split]["accuracy"] == pytest.approx(float(by_split[split]["accuracy"]))
        assert point[split]["macs_total"] == pytest.approx(float(by_split[split]["macs_total"]))
    assert len(point["thresholds"]) == 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [1, 32, 360])
def test_the_real_path_does_what_the_curve_says(rule, batch, trained):
    _, prepared, network, config = trained
    network = network.with_tensors(lambda tensor: tensor.double())
    seen = {split: read(network, *where, prepared.facts) for split, where in split_of(config, prepared).items()}
    found = calibrate(seen["val"].logits, seen["val"].labels)
    inference = Inference(network, prepared.facts)
    parts = inference.pixels(prepared.test.images).split(batch)
    left = set()
    for k in (-1.0, 0.0, 1.0, 3.0):
        exits = exits_at(rule, k, found)
        answers = [inference.answer(part, exits) for part in parts]
        layers = torch.cat([answer.layers for answer in answers])
        assert torch.equal(layers, exit_layers(seen["test"].logits, exits))
        chosen = seen["test"].logits.argmax(-1).gather(1, layers[:, None] - 1).squeeze(1)
        assert torch.equal(torch.cat([answer.classes for answer in answers]), chosen)
        left |= set(layers.tolist())
    assert left == {1, 2, 3}


CASES = {
    "one layer": {"layers": "784,25"},
    "two layers": {"layers": "784,25,10"},
    "backprop": {"recipe": "bp"},
    "tiny validation": {"val_size": 1},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_gets_its_files(case, tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared, **CASES[case])
    run_early_exit(tmp_path, prepared, repeats=1, ks=(0.0, 1.0))
    document = read_json(tmp_path / "early_exit.json")
    assert schema_errors(document, "early_exit") == []
    rows = read_csv(tmp_path / "early_exit.csv")
    assert len(rows) == 2 * 2 * 2
    if case == "one layer":
        assert document["operating_point"]["rule"] == "none" and document["operating_point"]["thresholds"] == []
        assert all(float(row["macs_saved_share"]) == 0 for row in rows)
    if case == "tiny validation":
        assert document["calibration"]["sigma"] == [None, None, None]


def test_without_validation_nothing_is_calibrated_and_the_file_says_why(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared, val_size=0)
    run_early_exit(tmp_path, prepared)
    document = read_json(tmp_path / "early_exit.json")
    assert schema_errors(document, "early_exit") == []
    assert document["available"] is False and "val_size 0" in document["reason"]
    assert document["operating_point"] is None
    assert read_csv(tmp_path / "early_exit.csv") == []
    header = (tmp_path / "early_exit.csv").read_text().strip().split(",")
    assert "share_exit_3" in header and "time_saved_share_batch_512" in header
