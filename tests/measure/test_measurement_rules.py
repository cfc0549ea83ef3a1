"""The fourteen measurement rules, a test each: every one answers a fault found in published measurements.

Each test drives the code that writes the results and looks at what it did, not at what it says it does.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from made_devices import Device, EventDevice, Reading, ScalingDevice, Sensor, World, made_jetson
from made_networks import (
    labels_of_pixels,
    made_config,
    made_network,
    made_prepared,
    made_run,
    trained_on_digits,
)

from ff import statistics
from ff.assess import early_exit
from ff.assess.evaluation import evaluate_run
from ff.assess.readings import ask, splits_of
from ff.data.images import Part, standardise
from ff.files import read_csv, read_json, write_csv, write_json
from ff.layout import RunKey
from ff.learn.inference import Exits, Inference
from ff.learn.trainer import Trainer
from ff.measure import protocol, run
from ff.measure.devices import DeployedNetwork, machine_state
from ff.measure.power import PowerMeter, Window, energy_of
from ff.measure.protocol import Times, measure
from ff.measure.run import run_measurement
from ff.summary import tables
from ff.summary.tables.run_files import files_of


def times(repeats: int, single_samples: int, rounds: int = 2) -> Times:
    return Times(repeats, single_samples, rounds, queued_windows=2, warm_up_s=0.0)


@pytest.fixture
def short_windows(monkeypatch):
    """Queued windows of a test's length, for what is measured for real."""
    monkeypatch.setattr(protocol, "QUEUED_S", 0.002)


def latencies(log: list[tuple]) -> list[tuple[tuple, list[tuple]]]:
    """Of a device's log, for each latency: the untimed run before it, and what lies between its clock readings."""
    found = []
    for start, end in itertools.pairwise(i for i, entry in enumerate(log) if entry == ("clock",)):
        steps = [entry for entry in log[start + 1 : end] if entry[0] != "wait"]
        before = [entry for entry in log[:start] if entry[0] != "wait"]
        if len(steps) == 1 and steps[0][0] == "run" and before[-1][0] == "run" and before[-2][0] == "stage":
            found.append((before[-1], steps))
    return found


def test_rule_01_batch_size_under_test_goes_through_network(monkeypatch, short_windows):
    prepared, config = made_prepared(), made_config()
    deployed = DeployedNetwork("cpu", Inference(made_network(config), prepared.facts), prepared.test, 1)
    through: list[tuple[int, int]] = []
    original = deployed.inference.layer
    monkeypatch.setattr(
        deployed.inference, "layer", lambda index, x: through.append((index, len(x))) or original(index, x)
    )
    timed: list[tuple[int, list]] = []
    original_run = deployed.run

    def noting(path, inputs):
        through.clear()
        result = original_run(path, inputs)
        timed.append((len(inputs), list(through)))
        return result

    monkeypatch.setattr(deployed, "run", noting)
    measured = measure([deployed], (1, 3, 8), times(2, 2))
    assert len(timed) > 2 * 3 + 2 * len(measured.rows["cpu"])
    # Whatever ran - to look at memory, to warm up, timed alone or in a queue - went through each layer as one batch.
    for given, seen in timed:
        assert seen == [(layer, given) for layer in range(3)]
    # And the batch of a row is the one that its name says: the run before and the timed one.
    log: list[tuple[str, int]] = []
    monkeypatch.setattr(deployed, "run", lambda path, inputs: log.append((path, len(inputs))))
    monkeypatch.setattr(protocol, "time_once", lambda subject, path, inputs, clock: (log.append("timed") or 1.0, None))
    monkeypatch.setattr(protocol, "time_queued", lambda *_: 1.0)
    rows = measure([deployed], (1, 3, 8), times(2, 2)).rows["cpu"]
    before = [log[i - 1] for i, entry in enumerate(log) if entry == "timed"]
    assert before == [(row["path"], row["batch_size"]) for row in sorted(rows, key=lambda row: row["order"])]
    # Early exit: the first layer gets the whole batch that the column is named after.
    inference = Inference(made_network(config), prepared.facts)
    first: list[int] = []
    original = inference.layer
    monkeypatch.setattr(
        inference,
        "layer",
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
    measure([device], (1, 8), times(2, 3), clock=device.clock, power=meter, energy_windows=1, sleep=world.sleep)
    waited, readings = True, 0
    for entry in device.log:
        if entry[0] in ("run", "wait"):
            waited = entry[0] == "wait"
        elif entry == ("clock",):
            # Nothing was given to the device since it was last waited for.
            assert waited
            readings += 1
    assert readings > 2 * 2 * 5 + 2 * 2 * 2
    # And so the lagging device shows its true time.
    for row in measure([device], (1, 8), times(2, 3), clock=device.clock).rows["made"]:
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
    measured = measure([device], (1, 2, 32), times(5, 7), clock=device.clock)
    rows = sorted(measured.rows["made"], key=lambda row: row["order"])
    found = latencies(device.log)
    assert len(found) == len(rows) == 2 * (7 + 5 + 5)
    for row, (warm, [timed]) in zip(rows, found, strict=True):
        assert warm == timed == ("run", row["path"], row["batch_size"])


def test_rule_03_a_device_that_rested_works_until_its_clock_has_settled():
    """Frequency scaling: while one device is timed the others rest, and a single run does not wake them."""
    world = World()
    devices = [ScalingDevice(world, "cpu"), ScalingDevice(world, "cpu", threads=6), ScalingDevice(world, "cuda")]
    measured = measure(devices, (1, 32), Times(10, 10, 5, 5), clock=world.clock)
    for device in devices:
        assert device.cold in device.speeds
    for row in itertools.chain(*measured.rows.values()):
        assert row["latency_ms"] == pytest.approx(devices[0].true_ms(row["path"], row["batch_size"]))


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


def test_rule_04_order_is_shuffled_with_a_recorded_seed(tmp_path, monkeypatch, short_windows):
    def order(seed):
        world = World()
        devices = [Device(world, "cpu"), Device(world, "cpu", threads=4), Device(world, "cuda")]
        measured = measure(devices, (1, 2, 8), Times(12, 12, 4, 4, 0.0), seed=seed, clock=world.clock)
        done = [
            (row["order"], (row["device"], row["threads"]), (row["path"], row["batch_size"], row["repeat"]))
            for row in itertools.chain(*measured.rows.values())
        ]
        for name, batches in measured.batches.items():
            for batch in batches:
                for window in (batch["throughput_queued_per_s"] or {"windows": []})["windows"]:
                    done.append((window["order"], (name, batch["threads"]), ("queued", batch["batch_size"])))
        assert sorted(entry[0] for entry in done) == list(range(3 * (2 * 3 * 12 + 3 * 4)))
        return [entry[1:] for entry in sorted(done)]

    first = order(1)
    assert first == order(1) and first != order(2)
    assert sorted(map(str, first)) == sorted(map(str, order(2)))
    # The devices take turns in blocks, four rounds of them, in orders that differ.
    blocks = [(subject, [what for _, what in block]) for subject, block in itertools.groupby(first, lambda e: e[0])]
    turns = [subject for subject, _ in itertools.groupby(entry[0] for entry in first)]
    assert 3 * 4 - 3 <= len(turns) <= 3 * 4 and len(set(turns[:3])) == 3
    # In a block path, batch size and repeat change places, and so do the queued windows.
    for _, block in blocks:
        for position in (0, 1):
            values = [what[position] for what in block]
            assert sum(a != b for a, b in itertools.pairwise(values)) > len(values) / 4
        assert [what for what in block if what[0] != "queued"] != sorted(what for what in block if what[0] != "queued")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, ("cpu",), [1], (1, 2), times(3, 3), energy_windows=0, seed=77)
    assert read_json(tmp_path / "variance" / "cpu.json")["seed"] == 77
    orders = [int(row["order"]) for row in read_csv(tmp_path / "variance" / "cpu.csv")]
    assert len(set(orders)) == 12 and max(orders) < 12 + 2 * 2


@pytest.mark.parametrize(("period_s", "shortest_s"), [(0.5, 10.0), (0.05, 5.0)])
def test_rule_05_energy_windows_last_20_sensor_periods_and_5_s(period_s, shortest_s):
    world = World()
    device, sensor = Device(world, latency_s=lambda path, size: 0.013), Sensor(world, period_s)
    meter = PowerMeter(sensor, world.clock, world.every)
    measured = measure([device], (1, 8), times(1, 1), clock=world.clock, power=meter, sleep=world.sleep)
    for batch in measured.batches["made"][:2]:
        windows = batch["energy"]["windows"]
        assert len(windows) == 3
        for used in windows:
            assert used["window_s"] >= shortest_s
            # Sampled during the window, at least once a period of the sensor.
            assert used["readings"] >= shortest_s / period_s
            # The work goes on until the end of the window.
            assert used["inferences"] / batch["batch_size"] == pytest.approx(used["window_s"] / 0.01302, rel=0.01)
            assert used["net_mj_per_sample"] == pytest.approx(3000 * 0.013 / batch["batch_size"], rel=0.01)


def test_rule_05_power_is_integrated_by_trapezoid():
    sensor, readings = Sensor(World(), 1.0), iter([(0.0, 0.0), (1.0, 100.0), (2.0, 100.0), (3.0, 400.0)])
    now = [0.0]
    meter = PowerMeter(sensor, lambda: now[0])
    for now[0], value in readings:
        sensor.read = lambda value=value: Reading({"VDD_IN": value}, {})
        meter.take()
    used = energy_of(meter, [Window(0.5, 2.5, 1)], [])
    # 0.5..1: 75 x 0.5, 1..2: 100, 2..2.5: (100 + 250) / 2 x 0.5
    assert used["total"]["gross_mj_per_sample"]["mean"] == pytest.approx(37.5 + 100 + 87.5)


def test_rule_06_idle_has_windows_of_its_own_around_the_work_and_both_energies_have_an_interval():
    world = World(idle_mw=lambda t: 4000 + 10 * t)
    device, sensor = Device(world, latency_s=lambda path, size: 0.02), Sensor(world, 0.5)
    rests: list[tuple[float, int]] = []
    meter = PowerMeter(sensor, world.clock, world.every)

    def sleep(seconds):
        rests.append((world.now, sum(entry[0] == "run" for entry in device.log)))
        world.sleep(seconds)

    measured = measure([device], (1,), times(2, 2), clock=world.clock, power=meter, sleep=sleep)
    # A lead-in and a window before, between and after three rounds of repeated work.
    begins, done = [start for start, _ in rests[::2]], [runs for _, runs in rests[::2]]
    assert len(rests) == 2 * 4 and all(b - a > 400 for a, b in itertools.pairwise(done))
    assert done[-1] == sum(entry[0] == "run" for entry in device.log)
    for begin, level in zip(begins, measured.idle["windows_mw"], strict=True):
        middle = begin + meter.lead_in_s + meter.window_s / 2
        # What the sensor shows is up to two of its periods old.
        assert level == pytest.approx(world.idle_mw(middle), abs=10 * 2 * 0.5)
    idle = measured.idle["total"]
    assert idle["low"] < idle["mean"] < idle["high"] and idle["n"] == 4
    used = measured.batches["made"][0]["energy"]
    for (before, after), window in zip(itertools.pairwise(measured.idle["windows_mw"]), used["windows"], strict=True):
        assert before < window["idle_mw"] < after
        net = window["gross_mj_per_sample"] - window["idle_mw"] * window["window_s"] / window["inferences"]
        assert window["net_mj_per_sample"] == pytest.approx(net)
        assert window["gross_mj_per_sample"] > window["net_mj_per_sample"] > 0
    for name in ("gross_mj_per_sample", "net_mj_per_sample"):
        interval = statistics.mean_interval([window[name] for window in used["windows"]])
        found = used["total"][name]
        assert (found["mean"], found["low"], found["high"]) == interval[1:4] and found["low"] < found["high"]
        assert used["rails"]["VDD_IN"][name] == found


def test_rule_07_what_was_not_measured_is_missing_and_never_0(tmp_path, monkeypatch, short_windows):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(run, "power_source", lambda: (None, "none here"))
    monkeypatch.setattr(DeployedNetwork, "peak_memory_mb", lambda self: None)
    prepared = made_prepared(classes=4)
    network, config = made_run(tmp_path, prepared, val_size=0)
    run_measurement(tmp_path, prepared, threads=[1], batch_sizes=(1, 2), times=times(2, 2))
    early_exit.run_early_exit(tmp_path, prepared)
    rows = read_csv(tmp_path / "variance" / "cpu.csv")
    assert {row["device_ms"] for row in rows} == {""}
    for batch in read_json(tmp_path / "variance" / "cpu.json")["batches"]:
        assert batch["energy"] is None and batch["peak_memory_mb"] is None and batch["device_ms"] is None
        assert (batch["throughput_queued_per_s"] is None) == (batch["path"] == "end_to_end")
    conditions = read_json(tmp_path / "variance" / "cpu.json")["conditions"]
    assert conditions["power"]["idle_mw"] is conditions["power"]["period_s"] is None
    assert read_json(tmp_path / "variance" / "cuda.json")["batches"] == []
    assert read_json(tmp_path / "early_exit.json")["calibration"] is None
    document = evaluate_run(ask(network, prepared, config), config, "0" * 16).document
    absent = document["readouts"][0]["per_class"][7]
    assert absent["n"] == 0 and absent["recall"] is None
    # In the tables: empty, not 0.
    cell = config.key
    folder = cell.folder(tmp_path / "results")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path)
    table = tables.latency(files_of(tmp_path / "results", [cell]))
    assert len(table) == 4 and table["peak_memory_mb"].isna().all()
    assert table["throughput_queued_per_s"].isna().tolist() == (table["path"] == "end_to_end").tolist()
    assert tables.inference_energy(files_of(tmp_path / "results", [cell])).empty


def test_rule_08_devices_and_thread_counts_never_share_a_statistic(tmp_path):
    world = World()
    slow = Device(world, "cpu", lambda path, size: 0.1 * size)
    wide = Device(world, "cpu", lambda path, size: 0.02 * size, threads=6)
    fast = Device(world, "cuda", lambda path, size: 0.0001 * size)
    subjects = {("cpu", 1): slow, ("cpu", 6): wide, ("cuda", 1): fast}
    measured = measure(subjects.values(), (1, 8), times(5, 5), clock=world.clock)
    cells = 0
    for name, batches in measured.batches.items():
        assert {row["device"] for row in measured.rows[name]} == {name}
        for batch in batches:
            true = subjects[name, batch["threads"]].true_ms(batch["path"], batch["batch_size"])
            for part in ("median", "p5", "p95", "low", "high"):
                assert batch["latency_ms"][part] == pytest.approx(true)
            cells += 1
    assert cells == 3 * 2 * 2
    cell = RunKey("MNIST", "784-10", "ff", 0)
    for name, batches in measured.batches.items():
        facts = {"name": name, "kind": name, "available": True, "reason": None}
        path = cell.folder(tmp_path) / "variance" / name
        write_json(path.with_suffix(".json"), {"device": facts, "batches": batches})
        write_csv(path.with_suffix(".csv"), run.COLUMNS, measured.rows[name])
    table = tables.latency(files_of(tmp_path, [cell]))
    assert len(table) == cells
    for row in table.itertuples():
        assert row.median_ms == pytest.approx(subjects[row.device, row.threads].true_ms(row.path, row.batch_size))
    # A GPU is compared with each number of CPU threads, and the row says with which.
    speedup = tables.speedup(tmp_path, table)
    assert len(speedup) == 2 * 2 * 2
    for row in speedup.itertuples():
        cpu, gpu = subjects["cpu", row.cpu_threads], subjects["cuda", 1]
        ratio = cpu.true_ms(row.path, row.batch_size) / gpu.true_ms(row.path, row.batch_size)
        assert row.speedup == pytest.approx(ratio) and ratio > 100


def test_rule_09_raw_samples_are_kept(tmp_path, monkeypatch, short_windows):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, ("cpu",), [1], (1, 4), times(7, 11), energy_windows=0)
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
        queued = batch["throughput_queued_per_s"]
        if queued:
            values = [window["batches"] * batch["batch_size"] / window["seconds"] for window in queued["windows"]]
            assert len(values) == 2 and queued["median"] == pytest.approx(float(np.median(values)))


def test_rule_10_medians_percentiles_and_bootstrap_intervals_and_pairs_over_seeds(tmp_path):
    rng = np.random.default_rng(0)
    noise = itertools.cycle(rng.exponential(0.002, 10_000))
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.01 + float(next(noise)))
    measured = measure([device], (1, 8), Times(60, 100, queued_windows=1), clock=world.clock)
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
        # More time is less throughput: the ends of its interval change places.
        rate, size = batch["throughput_synchronised_per_s"], batch["batch_size"]
        ends = [1000 * size / summary[name] for name in ("high", "median", "low")]
        assert [rate["low"], rate["median"], rate["high"]] == pytest.approx(ends) and ends == sorted(ends)
    # Over seeds: recipes are compared seed by seed. What the seeds have in common does not widen the
    # interval.
    first = {seed: 90 + 3 * seed for seed in range(5)}
    second = {seed: value - 1 + 0.01 * seed for seed, value in first.items()}
    paired = statistics.paired_difference(first, second)
    apart = statistics.mean_interval(first.values())
    assert paired.n == 5 and paired.low < 0.98 < paired.high
    assert paired.high - paired.low < 0.1 < apart.high - apart.low


def test_rule_11_conditions_are_recorded_before_and_after(tmp_path, monkeypatch, short_windows):
    board, folder = tmp_path / "board", tmp_path / "run"
    made_jetson(board)
    temperature = board / "sys/class/thermal/thermal_zone0/temp"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(run, "machine_state", lambda: machine_state(board))
    original = run.measure

    def heating(*args, **kwargs):
        result = original(*args, **kwargs)
        temperature.write_text("61250")
        return result

    monkeypatch.setattr(run, "measure", heating)
    prepared = made_prepared()
    made_run(folder, prepared)
    run_measurement(folder, prepared, ("cpu", "cuda"), [1, 2], (1,), times(1, 1), energy_windows=0)
    for name in ("cpu", "cuda"):
        conditions = read_json(folder / "variance" / f"{name}.json")["conditions"]
        before, after = conditions["before"], conditions["after"]
        assert before["power_mode"] == after["power_mode"] == "15W"
        assert before["governor"]["cpu"] == "schedutil" and before["clocks_mhz"]["cpu"] == [1190.4]
        assert before["temperature_c"]["cpu-thermal"] == 48.5
        assert after["temperature_c"]["cpu-thermal"] == 61.25
        assert conditions["threads"] == ([1, 2] if name == "cpu" else []) and conditions["cores"] >= 1
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
    kept = ask(network, prepared, config)
    labels = kept.answers["val", "head"].labels
    assert torch.equal(labels, prepared.train.labels[splits_of(config, prepared)["val"][1][0]].long())
    expected = early_exit.calibrate(kept.said["val", "head"], labels)
    assert document["calibration"]["n"] == len(labels) == 300
    assert document["calibration"]["mu"] == pytest.approx(expected.mu)
    assert document["calibration"]["sigma"] == pytest.approx(expected.sigma)
    # The rule knows no label: the same images leave at the same layers whatever they are called.
    relabelled = prepared._replace(test=Part(prepared.test.images, (prepared.test.labels + 1) % 10))
    original = kept.said["test", "head"]
    renamed = ask(network, relabelled, config).said["test", "head"]
    for rule in early_exit.RULES:
        exits = early_exit.exits_at(rule, 1.0, expected, 10)
        layers = early_exit.exit_layers(original, exits)
        assert torch.equal(layers, early_exit.exit_layers(renamed, exits))
        # Work is skipped: a layer sees only the samples that are still there.
        inference = Inference(network, prepared.facts)
        sizes: list[int] = []
        step = inference.layer
        monkeypatch.setattr(
            inference,
            "layer",
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
    evaluations = [evaluate_run(ask(network, one, config), config, "0" * 16) for one in (prepared, other)]
    layers = [evaluation.document["layers"] for evaluation in evaluations]
    assert [layer["dead_units"] for layer in layers[0]] == [layer["dead_units"] for layer in layers[1]]


def test_rule_14_inputs_and_labels_come_from_one_index(monkeypatch):
    """Made images carry their label in their pixels, so that a wrong pair is seen."""
    prepared = made_prepared(train=200, test=90)
    config = dataclasses.replace(made_config(), val_size=50, seed=3)
    network = made_network(config)
    # Evaluation: every batch that enters the network.
    batches = []
    original = type(network).pixel_product
    monkeypatch.setattr(
        type(network),
        "pixel_product",
        lambda self, pixels: batches.append(pixels[0].clone()) or original(self, pixels),
    )
    kept = ask(network, prepared, config, 17)
    labels = [kept.answers[split, "head"].labels for split in ("train", "val", "test")]
    # In the training split goodness has a pass of its own, over a sample, here all of it.
    labels.insert(1, kept.answers["train", "goodness"].labels)
    assert torch.equal(labels_of_pixels(prepared, torch.cat(batches)), torch.cat(labels))
    # Training: mini-batches in any order.
    images = standardise(prepared.train, prepared.facts, "cpu")
    trainer = Trainer(config, [3, 4], images)
    for rows, *_ in trainer.batches(trainer.phases["representation"], 1):
        pixels, _, labels = images.rows(rows)
        for seed in range(2):
            assert torch.equal(labels_of_pixels(prepared, pixels[seed]), labels[seed])
    block = images.block(slice(10, 30), 2)
    assert torch.equal(labels_of_pixels(prepared, block.pixels[1]), block.labels[1])
    # Early exit: answers come back in the order of the images, whoever left first.
    inference = Inference(network, prepared.facts)
    pixels = inference.pixels(prepared.test.images)
    logits = kept.said["test", "head"]
    sure = logits[:, :2].amax(-1).quantile(0.5, dim=0)
    answers = inference.answer(pixels, Exits(tuple(sure.tolist())))
    expected = logits.argmax(-1).gather(1, answers.layers[:, None] - 1).squeeze(1)
    assert len(set(answers.layers.tolist())) == 3 and torch.equal(answers.classes, expected)
