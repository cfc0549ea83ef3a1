"""The fourteen measurement rules, a test each: every one answers a fault found in published measurements.

Each test drives the code that writes the results and looks at what it did, not at what it says it does.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from made_devices import Device, EventDevice, Sensor, World
from made_networks import (
    labels_of_pixels,
    made_config,
    made_network,
    made_prepared,
    made_run,
    trained_on_digits,
)
from test_timing import made_jetson

import ff.timing
from ff import early_exit, statistics, tables
from ff.datasets import Part, standardise
from ff.evaluation import evaluate_run, read, split_of
from ff.files import read_csv, read_json, write_csv, write_json
from ff.inference import Exits, Inference
from ff.timing import DeployedNetwork, PowerMeter, machine_state, measure, run_measurement
from ff.trainer import Trainer


def fast_steps(log: list[tuple]) -> list[tuple]:
    """The part of a device's log that is timed: all that follows the look at memory."""
    return log[max(i for i, entry in enumerate(log) if entry[0] == "reset memory") + 4 :]


def test_rule_01_batch_size_under_test_goes_through_network(monkeypatch):
    prepared, config = made_prepared(), made_config()
    deployed = DeployedNetwork("cpu", made_network(config), prepared.test, prepared.facts)
    through: list[tuple[int, int]] = []
    original = deployed.inference._layer
    monkeypatch.setattr(
        deployed.inference, "_layer", lambda index, x: through.append((index, len(x))) or original(index, x)
    )
    timed: list[tuple[int, list]] = []
    original_run = deployed.run

    def run(path, inputs):
        through.clear()
        result = original_run(path, inputs)
        timed.append((len(inputs), list(through)))
        return result

    monkeypatch.setattr(deployed, "run", run)
    measured = measure([deployed], (1, 3, 8), repeats=2, single_samples=2)
    runs = iter(timed[2 * 3 :])
    for row in sorted(measured.rows["cpu"], key=lambda row: row["order"]):
        next(runs)  # untimed
        given, seen = next(runs)
        assert given == row["batch_size"]
        assert seen == [(layer, row["batch_size"]) for layer in range(3)]
    # Early exit: the first layer gets the whole batch that the column is named after.
    inference = Inference(made_network(config), prepared.facts)
    first: list[int] = []
    original = inference._layer
    monkeypatch.setattr(
        inference,
        "_layer",
        lambda index, x: (first.append(len(x)) if index == 0 else None) or original(index, x),
    )
    pixels = inference.pixels(prepared.test.images[:32])
    full_depth = early_exit.AnswerPath("static", None, None, None)
    early_exit.time_paths(inference, {32: [pixels], 1: list(pixels[:3].split(1))}, [full_depth], 1, 0)
    assert sorted(first) == [1] * 6 + [32] * 2


@pytest.mark.parametrize("kind", [Device, EventDevice])
def test_rule_02_device_is_synchronised_before_each_clock_reading(kind):
    world = World()
    device = kind(world)
    meter = PowerMeter(Sensor(world, 0.5), world.clock, world.every)
    measure([device], (1, 8), 2, 3, clock=device.clock, power=meter, sleep=world.sleep)
    waited, readings = True, 0
    for entry in device.log:
        if entry[0] in ("run", "wait"):
            waited = entry[0] == "wait"
        elif entry == ("clock",):
            # Nothing was given to the device since it was last waited for.
            assert waited
            readings += 1
    assert readings > 2 * 2 * 5
    # And so the lagging device shows its true time.
    for row in measure([device], (1, 8), 2, 3, clock=device.clock).rows["made"]:
        assert row["latency_ms"] == pytest.approx(device.true_ms(row["path"], row["batch_size"]))


def test_rule_02_holds_for_early_exit_times_too():
    world = World()
    device = Device(world)

    class Lagging:
        device = torch.device("cpu")

        def answer(self, pixels, exits, depth):
            device_.run("deploy", ("deploy", len(pixels), []))

    device_ = device
    paths = [early_exit.AnswerPath("static", None, None, 1), early_exit.AnswerPath("logit", 1.0, Exits(()), None)]
    early_exit.time_paths(Lagging(), {8: [torch.zeros(8, 1)] * 3}, paths, 2, 0, device.clock, device.synchronise)
    # Every answer of either path is timed alone: nothing is queued for one that is not for the other.
    kinds = [entry[0] for entry in device.log]
    assert kinds == ["wait", "clock", "run", "wait", "clock"] * (3 * len(paths) * 3)


def test_rule_03_warm_up_has_the_timed_shape():
    device = Device(World())
    measured = measure([device], (1, 2, 32), 5, 7, clock=device.clock)
    steps = [entry for entry in fast_steps(device.log) if entry[0] != "wait"]
    rows = sorted(measured.rows["made"], key=lambda row: row["order"])
    assert len(steps) == 5 * len(rows)
    for row, (stage, warm, start, timed, end) in zip(rows, zip(*[iter(steps)] * 5, strict=True), strict=True):
        shape = row["path"], row["batch_size"]
        assert stage[1:] == warm[1:] == timed[1:] == shape and warm[0] == timed[0] == "run"
        assert start == end == ("clock",)


def test_rule_03_early_exit_runs_every_path_once_untimed():
    prepared, config = made_prepared(), made_config()
    inference = Inference(made_network(config), prepared.facts)
    log: list = []
    answer = inference.answer

    def logged(pixels, exits, depth):
        log.append((len(pixels), exits, depth))
        return answer(pixels, exits, depth)

    inference.answer = logged
    clock = itertools.count()
    paths = [early_exit.AnswerPath("static", None, None, depth) for depth in (1, 3)]
    paths += [early_exit.AnswerPath("logit", k, Exits((k, k)), None) for k in (1.0, 2.0)]
    pixels = inference.pixels(prepared.test.images[:32])
    times = early_exit.time_paths(inference, {32: [pixels]}, paths, 4, 0, lambda: float(next(clock)))
    assert [len(values) for values in times[32]] == [4, 4, 4, 4]
    first, others = log[:4], log[4:]
    assert {entry[1:] for entry in first} == {(path.exits, path.depth) for path in paths}
    assert {entry[0] for entry in log} == {32} and len(others) == 16


def test_rule_04_holds_for_early_exit_times_too():
    """All paths and sizes in one order, drawn anew for each repeat."""

    def order(seed):
        log: list = []

        class Idle:
            device = torch.device("cpu")

            def answer(self, pixels, exits, depth):
                log.append((len(pixels), depth))

        paths = [early_exit.AnswerPath("static", None, None, depth) for depth in range(1, 7)]
        early_exit.time_paths(Idle(), {1: [torch.zeros(1, 1)], 8: [torch.zeros(8, 1)]}, paths, 3, seed)
        passes = [log[start : start + 12] for start in range(0, 48, 12)]
        assert {tuple(sorted(part)) for part in passes} == {tuple(sorted(passes[0]))}
        return passes

    first = order(1)
    assert first == order(1) and first != order(2)
    assert len(set(map(tuple, first))) == 4
    for position in (0, 1):
        values = [cell[position] for cell in first[0]]
        assert sum(a != b for a, b in itertools.pairwise(values)) > 3


def test_rule_04_order_is_shuffled_with_a_recorded_seed(tmp_path, monkeypatch):
    def order(seed):
        world = World()
        devices = [Device(world, "a"), Device(world, "b")]
        rows = measure(devices, (1, 2, 8), 6, 6, seed=seed, clock=world.clock).rows
        together = sorted(itertools.chain(*rows.values()), key=lambda row: row["order"])
        assert [row["order"] for row in together] == list(range(2 * 2 * 3 * 6))
        return [(row["device"], row["path"], row["batch_size"], row["repeat"]) for row in together]

    first = order(1)
    assert first == order(1) and first != order(2)
    assert sorted(first) == sorted(order(2))
    # Device, path, batch size and repeat all change places; none is done as a block.
    for position in range(4):
        values = [cell[position] for cell in first]
        changes = sum(a != b for a, b in itertools.pairwise(values))
        assert changes > len(values) / 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, ("cpu",), (1, 2), 3, 3, energy_batch_sizes=(), seed=77)
    assert read_json(tmp_path / "variance" / "cpu.json")["seed"] == 77
    orders = [int(row["order"]) for row in read_csv(tmp_path / "variance" / "cpu.csv")]
    assert sorted(orders) == list(range(12))


@pytest.mark.parametrize(("period_s", "shortest_s"), [(0.5, 10.0), (0.05, 5.0)])
def test_rule_05_energy_windows_last_20_sensor_periods_and_5_s(period_s, shortest_s):
    world = World()
    device, sensor = Device(world, latency_s=lambda path, size: 0.013), Sensor(world, period_s)
    meter = PowerMeter(sensor, world.clock, world.every)
    measured = measure([device], (1, 8), 1, 1, clock=world.clock, power=meter, sleep=world.sleep)
    for batch in measured.batches["made"][:2]:
        used = batch["energy"]
        assert used["window_s"] >= shortest_s
        # Sampled during the window, at least once a period of the sensor.
        assert used["samples"] >= shortest_s / period_s
        # The work goes on until the end of the window.
        assert used["inferences"] / batch["batch_size"] == pytest.approx(used["window_s"] / 0.01302, rel=0.01)
        assert used["net_mj_per_sample"] == pytest.approx(3000 * 0.013 / batch["batch_size"], rel=0.01)


def test_rule_05_power_is_integrated_by_trapezoid():
    meter = PowerMeter(type("Source", (), {"period_s": 1.0})())
    meter.times_s, meter.power_mw, meter.rail = [0.0, 1.0, 2.0, 3.0], [0.0, 100.0, 100.0, 400.0], "VDD_IN"
    used = ff.timing.energy_of(meter, ff.timing.Window(0.5, 2.5, 1), [])
    # 0.5..1: 75 x 0.5, 1..2: 100, 2..2.5: (100 + 250) / 2 x 0.5
    assert used["gross_mj_per_sample"] == pytest.approx(37.5 + 100 + 87.5)


def test_rule_06_idle_power_is_measured_before_and_after_and_net_is_gross_less_idle():
    world = World(idle_mw=lambda t: 4000 + 10 * t)
    device, sensor = Device(world, latency_s=lambda path, size: 0.02), Sensor(world, 0.5)
    rests: list[tuple[float, int]] = []
    meter = PowerMeter(sensor, world.clock, world.every)

    def sleep(seconds):
        rests.append((world.now, sum(entry[0] == "run" for entry in device.log)))
        world.sleep(seconds)

    measured = measure([device], (1,), 2, 2, clock=world.clock, power=meter, sleep=sleep)
    # A lead-in and a window on either side, and all timed and all repeated work between them.
    (before, done_before), _, (after, done_after), _ = rests
    assert done_before == 2 and done_after == sum(entry[0] == "run" for entry in device.log) > 500
    for name, begin in {"before": before, "after": after}.items():
        middle = begin + meter.lead_in_s + meter.window_s / 2
        # What the sensor shows is up to two of its periods old.
        assert measured.idle_mw[name] == pytest.approx(world.idle_mw(middle), abs=10 * 2 * 0.5)
    used = measured.batches["made"][0]["energy"]
    assert measured.idle_mw["before"] < used["idle_mw"] < measured.idle_mw["after"]
    net = used["gross_mj_per_sample"] - used["idle_mw"] * used["window_s"] / used["inferences"]
    assert used["net_mj_per_sample"] == pytest.approx(net)
    assert used["gross_mj_per_sample"] > used["net_mj_per_sample"] > 0


def test_rule_07_what_was_not_measured_is_missing_and_never_0(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ff.timing, "_power_source", lambda: (None, "none here"))
    monkeypatch.setattr(DeployedNetwork, "peak_memory_mb", lambda self: None)
    prepared = made_prepared(classes=4)
    network, config = made_run(tmp_path, prepared, val_size=0)
    run_measurement(tmp_path, prepared, batch_sizes=(1, 2), repeats=2, single_samples=2)
    early_exit.run_early_exit(tmp_path, prepared)
    rows = read_csv(tmp_path / "variance" / "cpu.csv")
    assert {row["device_ms"] for row in rows} == {""}
    for batch in read_json(tmp_path / "variance" / "cpu.json")["batches"]:
        assert batch["energy"] is None and batch["peak_memory_mb"] is None and batch["device_ms"] is None
    conditions = read_json(tmp_path / "variance" / "cpu.json")["conditions"]
    assert conditions["power"]["idle_before_mw"] is conditions["power"]["period_s"] is None
    assert read_json(tmp_path / "variance" / "cuda.json")["batches"] == []
    assert read_json(tmp_path / "early_exit.json")["calibration"] is None
    document = evaluate_run(network, prepared, config, "0" * 16).document
    absent = document["readouts"][0]["per_class"][7]
    assert absent["n"] == 0 and absent["recall"] is None
    # In the tables: empty, not 0.
    run = tables.Run("MNIST", config.layers_name, "ff", 0)
    folder = run.folder(tmp_path / "results")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path)
    table = tables.latency(tmp_path / "results", [run])
    assert len(table) == 4 and table["net_mj_per_sample"].isna().all() and table["peak_memory_mb"].isna().all()


def test_rule_08_devices_never_share_a_statistic(tmp_path):
    world = World()
    slow = Device(world, "cpu", lambda path, size: 0.1 * size)
    fast = Device(world, "cuda", lambda path, size: 0.0001 * size)
    measured = measure([slow, fast], (1, 8), 5, 5, clock=world.clock)
    for device in (slow, fast):
        assert {row["device"] for row in measured.rows[device.name]} == {device.name}
        for batch in measured.batches[device.name]:
            true = device.true_ms(batch["path"], batch["batch_size"])
            for name in ("median", "p5", "p95", "low", "high"):
                assert batch["latency_ms"][name] == pytest.approx(true)
    run = tables.Run("MNIST", "784-10", "ff", 0)
    for name, batches in measured.batches.items():
        facts = {"name": name, "kind": name, "available": True, "reason": None}
        path = run.folder(tmp_path) / "variance" / name
        write_json(path.with_suffix(".json"), {"device": facts, "batches": batches})
        write_csv(path.with_suffix(".csv"), ff.timing.COLUMNS, measured.rows[name])
    table = tables.latency(tmp_path, [run])
    assert len(table) == 2 * 2 * 2
    assert (table.groupby("device")["median_ms"].max() > 1).to_dict() == {"cpu": True, "cuda": False}


def test_rule_09_raw_samples_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, ("cpu",), (1, 4), 7, 11, energy_batch_sizes=())
    rows = read_csv(tmp_path / "variance" / "cpu.csv")
    for path in ("deploy", "end_to_end"):
        for size, n in ((1, 11), (4, 7)):
            cell = [row for row in rows if (row["path"], row["batch_size"]) == (path, str(size))]
            assert sorted(int(row["repeat"]) for row in cell) == list(range(n))
            assert len({row["latency_ms"] for row in cell}) > 1
    # The summary is made of them and of nothing else.
    for batch in read_json(tmp_path / "variance" / "cpu.json")["batches"]:
        cell = [
            float(row["latency_ms"])
            for row in rows
            if (row["path"], int(row["batch_size"])) == (batch["path"], batch["batch_size"])
        ]
        assert batch["n_repeats"] == len(cell)
        assert batch["latency_ms"]["median"] == pytest.approx(float(np.median(cell)))


def test_rule_10_medians_percentiles_and_bootstrap_intervals_and_pairs_over_seeds(tmp_path):
    rng = np.random.default_rng(0)
    noise = iter(rng.exponential(0.002, 10_000))
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.01 + float(next(noise)))
    measured = measure([device], (1, 8), 60, 100, clock=world.clock)
    for batch in measured.batches["made"]:
        values = [
            row["latency_ms"]
            for row in measured.rows["made"]
            if (row["path"], row["batch_size"]) == (batch["path"], batch["batch_size"])
        ]
        summary = batch["latency_ms"]
        assert summary["median"] == pytest.approx(np.median(values))
        assert [summary["p5"], summary["p95"]] == pytest.approx(list(np.percentile(values, [5, 95])))
        assert summary["p5"] < summary["low"] < summary["median"] < summary["high"] < summary["p95"]
        assert "bootstrap" in summary["method"]
    # Over seeds: recipes are compared seed by seed. What the seeds have in common does not widen the
    # interval.
    first = {seed: 90 + 3 * seed for seed in range(5)}
    second = {seed: value - 1 + 0.01 * seed for seed, value in first.items()}
    paired = statistics.paired_difference(first, second)
    apart = statistics.mean_interval(first.values())
    assert paired.n == 5 and paired.low < 0.98 < paired.high
    assert paired.high - paired.low < 0.1 < apart.high - apart.low


def test_rule_11_conditions_are_recorded_before_and_after(tmp_path, monkeypatch):
    board, folder = tmp_path / "board", tmp_path / "run"
    made_jetson(board)
    temperature = board / "sys/class/thermal/thermal_zone0/temp"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ff.timing, "machine_state", lambda: machine_state(board))
    original = ff.timing.measure

    def heating(*args, **kwargs):
        result = original(*args, **kwargs)
        temperature.write_text("61250")
        return result

    monkeypatch.setattr(ff.timing, "measure", heating)
    prepared = made_prepared()
    made_run(folder, prepared)
    run_measurement(folder, prepared, ("cpu", "cuda"), (1,), 1, 1, energy_batch_sizes=())
    for name in ("cpu", "cuda"):
        conditions = read_json(folder / "variance" / f"{name}.json")["conditions"]
        before, after = conditions["before"], conditions["after"]
        assert before["power_mode"] == after["power_mode"] == "15W"
        assert before["governor"]["cpu"] == "schedutil" and before["clocks_mhz"]["cpu"] == [1190.4]
        assert before["temperature_c"]["cpu-thermal"] == 48.5
        assert after["temperature_c"]["cpu-thermal"] == 61.25
        assert conditions["threads"] == torch.get_num_threads()
        assert conditions["versions"]["torch"] == torch.__version__
        assert {"python", "ff", "cuda"} <= set(conditions["versions"])


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    folder, prepared = tmp_path_factory.mktemp("trained"), digits
    network, config = trained_on_digits(folder, prepared)
    early_exit.run_early_exit(folder, prepared, repeats=1)
    return folder, prepared, network, config


def test_rule_12_early_exit_from_validation_without_labels_skips_work_and_gives_macs_and_time(trained, monkeypatch):
    folder, prepared, network, config = trained
    document, rows = read_json(folder / "early_exit.json"), read_csv(folder / "early_exit.csv")
    # Thresholds are those of the validation samples, of all of them and nothing else.
    part, chosen = split_of(config, prepared)["val"]
    seen = read(network, part, chosen, prepared.facts, goodness=False)
    expected = early_exit.calibrate(seen.logits, seen.labels)
    assert document["calibration"]["n"] == len(chosen) == 300
    assert document["calibration"]["mu"] == pytest.approx(expected.mu)
    assert document["calibration"]["sigma"] == pytest.approx(expected.sigma)
    # The rule knows no label: the same images leave at the same layers whatever they are called.
    relabelled = prepared._replace(test=Part(prepared.test.images, (prepared.test.labels + 1) % 10))
    original = read(network, prepared.test, torch.arange(360), prepared.facts, goodness=False)
    renamed = read(network, relabelled.test, torch.arange(360), prepared.facts, goodness=False)
    for rule in early_exit.RULES:
        exits = early_exit.exits_at(rule, 1.0, expected)
        layers = early_exit.exit_layers(original.logits, exits)
        assert torch.equal(layers, early_exit.exit_layers(renamed.logits, exits))
        # Work is skipped: a layer sees only the samples that are still there.
        inference = Inference(network, prepared.facts)
        sizes: list[int] = []
        step = inference._layer
        monkeypatch.setattr(
            inference,
            "_layer",
            lambda index, x, sizes=sizes, step=step: sizes.append(len(x)) or step(index, x),
        )
        inference.answer(inference.pixels(prepared.test.images), exits)
        assert sizes == [360, int((layers > 1).sum()), int((layers > 2).sum())]
        assert sizes[2] < sizes[1] < sizes[0]
    # Saving in MACs and in time, each.
    for row in rows:
        saved = 1 - float(row["macs_total"]) / document["macs"]["cuts"][-1]
        assert float(row["macs_saved_share_vs_full"]) == pytest.approx(saved)
        if row["split"] == "test":
            assert all(row[f"time_saved_share_vs_{base}_batch_{n}"] for base in ("cut", "full") for n in (1, 32, 512))
    # The network cut at each depth stands beside, timed as often as what is quoted; savings are against it too.
    cuts = [row for row in rows if row["rule"] == "static" and row["split"] == "test"]
    assert [int(row["depth"]) for row in cuts] == [1, 2, 3]
    base = next(row for row in cuts if row["is_reference_cut"] == "1")
    assert int(base["depth"]) == document["reference_cut"]["depth"]
    for row in rows:
        saved = 1 - float(row["macs_total"]) / float(base["macs_total"])
        assert float(row["macs_saved_share_vs_cut"]) == pytest.approx(saved)


def test_rule_13_nothing_is_chosen_on_the_test_set(trained, tmp_path):
    folder, prepared, network, config = trained
    # Another test set, images and labels: every choice stays the same.
    draw = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, prepared.test.images.shape, generator=draw, dtype=torch.uint8)
    other = prepared._replace(test=Part(noise, prepared.test.labels.flip(0)))
    again = tmp_path / "again"
    again.mkdir()
    (again / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    early_exit.run_early_exit(again, other, repeats=1)
    first, second = (read_json(where / "early_exit.json") for where in (folder, again))
    assert first["calibration"] == second["calibration"]
    for key in ("rule", "k", "thresholds", "val"):
        assert first["operating_point"][key] == second["operating_point"][key]
    assert first["reference_cut"] == second["reference_cut"]
    assert first["operating_point"]["test"] != second["operating_point"]["test"]
    # Training is given the official training set alone, and holds out its own validation rows.
    trainer = Trainer(config, [0], standardise(prepared.train, prepared.facts, "cpu"))
    rows = torch.cat([trainer.split.train[0], trainer.split.val[0]])
    assert sorted(rows.tolist()) == list(range(len(prepared.train.labels)))
    # Which units count as dead is no matter of the test set either.
    layers = [evaluate_run(network, one, config, "0" * 16).document["layers"] for one in (prepared, other)]
    assert [layer["dead_units"] for layer in layers[0]] == [layer["dead_units"] for layer in layers[1]]


def test_rule_14_inputs_and_labels_come_from_one_index(monkeypatch):
    """Made images carry their label in their pixels, so that a wrong pair is seen."""
    prepared = made_prepared(train=200, test=90)
    config = dataclasses.replace(made_config(), val_size=50, seed=3)
    network = made_network(config)
    # Evaluation: every batch that enters the network.
    batches = []
    original = type(network).neutral_outputs
    monkeypatch.setattr(
        type(network),
        "neutral_outputs",
        lambda self, pixels, square: batches.append(pixels[0].clone()) or original(self, pixels, square),
    )
    for part, rows in split_of(config, prepared).values():
        batches.clear()
        seen = read(network, part, rows, prepared.facts, 17, goodness=False)
        assert torch.equal(labels_of_pixels(prepared, torch.cat(batches)), seen.labels)
    # Training: mini-batches in any order.
    images = standardise(prepared.train, prepared.facts, "cpu")
    trainer = Trainer(config, [3, 4], images)
    for rows, _ in trainer._batches("representation", 1):
        pixels, _, labels = images.rows(rows)
        for seed in range(2):
            assert torch.equal(labels_of_pixels(prepared, pixels[seed]), labels[seed])
    block = images.block(slice(10, 30), 2)
    assert torch.equal(labels_of_pixels(prepared, block.pixels[1]), block.labels[1])
    # Early exit: answers come back in the order of the images, whoever left first.
    inference = Inference(network, prepared.facts)
    pixels = inference.pixels(prepared.test.images)
    logits = read(network, prepared.test, torch.arange(90), prepared.facts, goodness=False).logits
    sure = logits[:, :2].amax(-1).quantile(0.5, dim=0)
    answers = inference.answer(pixels, Exits(tuple(sure.tolist())))
    expected = logits.argmax(-1).gather(1, answers.layers[:, None] - 1).squeeze(1)
    assert len(set(answers.layers.tolist())) == 3 and torch.equal(answers.classes, expected)
