"""What is timed and in which order, on made clocks and devices of known truth."""

import gc
import itertools
from collections import Counter

import pytest
from made_devices import Device, EventDevice, ScalingDevice, World

from ff.errors import FFError
from ff.measure.protocol import (
    QUEUED_BATCHES,
    QUEUED_S,
    Times,
    measure,
    plan,
    time_once,
    time_queued,
)
from ff.settings import MeasureConfig

QUICK = Times(repeats=4, single_samples=10, rounds=2, queued_windows=5, warm_up_s=0.0)


def timed_runs(device: Device) -> list[list[tuple]]:
    """What the device was asked between each pair of clock readings that belongs to a latency."""
    marks = [i for i, entry in enumerate(device.log) if entry == ("clock",)]
    return [device.log[a + 1 : b] for a, b in itertools.pairwise(marks)]


# -- latency ----


@pytest.mark.parametrize("kind", [Device, EventDevice])
def test_a_device_that_answers_before_it_is_done_is_timed_to_its_end(kind):
    world = World()
    device = kind(world)
    measured = measure([device], (1, 8, 64), QUICK, clock=device.clock)
    assert len(measured.rows["made"]) == 2 * (10 + 4 + 4)
    for row in measured.rows["made"]:
        true = device.true_ms(row["path"], row["batch_size"])
        assert row["latency_ms"] == pytest.approx(true)
        own = 1000 * device.latency_s(row["path"], row["batch_size"])
        assert row["device_ms"] == (pytest.approx(own) if kind is EventDevice else None)


def test_a_device_that_is_not_waited_for_would_look_too_fast():
    """The test above can fail: without waiting only the launch is seen."""
    world = World()
    device = Device(world)
    device.synchronise = lambda: None
    latency, _ = time_once(device, "deploy", ("deploy", 8, []), world.clock)
    assert latency == pytest.approx(1000 * device.launch_s) and latency < 0.1 * device.true_ms("deploy", 8)


def test_work_that_was_given_before_is_not_timed():
    device = Device(World())
    for _ in range(20):
        device.run("deploy", ("deploy", 64, []))
    latency, _ = time_once(device, "deploy", ("deploy", 8, []), device.world.clock)
    assert latency == pytest.approx(device.true_ms("deploy", 8))
    device.run("deploy", ("deploy", 64, []))
    assert time_queued(device, [("deploy", 8, [])], 1, device.world.clock) == pytest.approx(latency / 1000)


def test_the_garbage_collector_stays_out_of_what_is_timed():
    collecting = []

    class Noting(Device):
        def run(self, path, inputs):
            collecting.append(gc.isenabled())
            super().run(path, inputs)

    assert gc.isenabled()
    device = Noting(World())
    measure([device], (1,), QUICK, clock=device.clock)
    # Only the look at memory, two runs, comes before.
    assert collecting[:2] == [True, True] and not any(collecting[2:]) and gc.isenabled()


# -- throughput ----


def test_synchronised_throughput_is_the_inverse_of_latency():
    device = Device(World())
    batches = measure([device], (1, 8), QUICK, clock=device.clock).batches["made"]
    assert [(b["path"], b["batch_size"], b["n_repeats"]) for b in batches] == [
        (path, size, n) for path in ("deploy", "end_to_end") for size, n in ((1, 10), (8, 4))
    ]
    for batch in batches:
        true = device.true_ms(batch["path"], batch["batch_size"])
        assert batch["latency_ms"]["median"] == pytest.approx(true)
        rate = batch["throughput_synchronised_per_s"]
        assert rate["median"] == pytest.approx(1000 * batch["batch_size"] / true)
        assert rate["low"] <= rate["median"] <= rate["high"]
        assert batch["energy"] is None and batch["peak_memory_mb"] is None


@pytest.mark.parametrize("launch_s", [20e-6, 1e-3, 4e-3])
def test_queued_throughput_is_that_of_the_slower_of_host_and_device(launch_s):
    """1 ms on the device: queued, the host launches the next batch meanwhile; synchronised, both times add up."""
    world = World()
    device = Device(world, latency_s=lambda path, size: 1e-3)
    device.launch_s = launch_s
    [one, _] = measure([device], (16,), QUICK, clock=device.clock).batches["made"]
    slower = max(launch_s, 1e-3)
    assert one["throughput_queued_per_s"]["median"] == pytest.approx(16 / slower, rel=0.1)
    assert one["throughput_synchronised_per_s"]["median"] == pytest.approx(16 / (1e-3 + launch_s))


def test_queued_windows_are_five_long_and_waited_for_once():
    device = Device(World(), latency_s=lambda path, size: 0.0004 * size)
    [one, large, *end_to_end] = measure([device], (1, 64), QUICK, clock=device.clock).batches["made"]
    for batch in (one, large):
        windows = batch["throughput_queued_per_s"]["windows"]
        assert len(windows) == 5 and len({window["batches"] for window in windows}) == 1
        for window in windows:
            assert window["seconds"] >= QUEUED_S and window["batches"] >= QUEUED_BATCHES
            assert window["samples_per_s"] == pytest.approx(window["batches"] * batch["batch_size"] / window["seconds"])
    # Nothing but launches between the clock readings, and one wait at the end.
    counts = [one["throughput_queued_per_s"]["windows"][0]["batches"], QUEUED_BATCHES]
    queued = [steps for steps in timed_runs(device) if sum(step[0] == "run" for step in steps) >= QUEUED_BATCHES]
    assert [sum(step[0] == "run" for step in steps) for steps in queued].count(counts[0]) >= 5
    for steps in queued:
        assert [step[0] for step in steps] == ["run"] * (len(steps) - 1) + ["wait"]
    # A batch that ends in host memory is waited for by its nature.
    assert [batch["throughput_queued_per_s"] for batch in end_to_end] == [None, None]


def test_a_queued_window_is_a_median_with_its_interval():
    latencies = itertools.cycle([0.001, 0.002, 0.003, 0.0045, 0.006])
    device = Device(World())
    rate = {}

    def latency_s(path, size):
        return rate.setdefault("now", 0.001)

    device.latency_s = latency_s
    original = device.prepare

    def prepare():
        rate["now"] = next(latencies)
        original()

    device.prepare = prepare
    other = Device(device.world, "other")
    times = Times(repeats=5, single_samples=5, rounds=5, queued_windows=5, warm_up_s=0.0)
    batches = measure([device, other], (8,), times, clock=device.world.clock).batches["made"]
    queued = batches[0]["throughput_queued_per_s"]
    values = sorted(window["samples_per_s"] for window in queued["windows"])
    assert queued["median"] == values[2] and values[0] <= queued["low"] < values[2] < queued["high"] <= values[4]
    assert "bootstrap" in queued["method"]


# -- images and memory ----


def test_memory_is_reset_before_each_shape_and_small_batches_come_first():
    device = EventDevice(World())
    measured = measure([device], (64, 1, 8), QUICK._replace(repeats=1, single_samples=1), clock=device.clock)
    assert all(batch["peak_memory_mb"] == 12.5 for batch in measured.batches["made"])
    assert device.log[0] == ("prepare",)
    start = device.log[1 : 1 + 6 * 4]
    assert [entry[0] for entry in start] == ["reset memory", "stage", "run", "wait"] * 6
    assert [entry[2] for entry in start if entry[0] == "run"] == [1, 1, 8, 8, 64, 64]


def test_repeats_answer_different_images_and_devices_the_same():
    world = World()
    devices = [Device(world, "a"), Device(world, "b")]
    seen: dict[str, dict] = {"a": {}, "b": {}}
    for device in devices:
        original = device.stage

        def stage(path, size, generator, device=device, original=original):
            inputs = original(path, size, generator)
            seen[device.name].setdefault((path, size), []).append(tuple(inputs[2]))
            return inputs

        device.stage = stage
    times = Times(repeats=20, single_samples=30, rounds=3, queued_windows=5, warm_up_s=0.0)
    measure(devices, (1, 4), times, clock=world.clock)
    for key, drawn in seen["a"].items():
        assert sorted(drawn) == sorted(seen["b"][key])
    assert len(set(seen["a"]["end_to_end", 4])) == 20
    # The five queued windows have four batches each, and no window those of another: every batch is drawn once more.
    drawn = Counter(seen["a"]["deploy", 4])
    assert len(drawn) == 20 and sorted(drawn.values())[:-1] == [2] * 19


def test_a_batch_that_does_not_fit_is_named():
    class Small(Device):
        def stage(self, path, size, generator):
            if size > 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().stage(path, size, generator)

    with pytest.raises(FFError, match="batch size 64 does not fit into the memory of made; take a smaller"):
        measure([Small(World())], (1, 64), QUICK, clock=World().clock)

    class Broken(Device):
        def run(self, path, inputs):
            raise RuntimeError("an illegal instruction")

    with pytest.raises(RuntimeError, match="illegal"):
        measure([Broken(World())], (1,), QUICK, clock=World().clock)


# -- order ----


def test_the_protocol_covers_the_batch_sizes_asked_for():
    assert MeasureConfig.batch_sizes == (1, 2, 8, 16, 32, 64, 128, 256, 512)
    assert (Times().repeats, Times().single_samples, Times().queued_windows) == (50, 100, 5)


def test_every_round_has_a_block_of_each_subject_in_an_order_of_its_own():
    world = World()
    subjects = [Device(world, "cpu"), Device(world, "cpu", threads=4), Device(world, "cuda")]
    blocks = list(plan(subjects, (1, 8), Times(repeats=20, single_samples=20, rounds=10), seed=1))
    assert len(blocks) == 3 * 10
    rounds = [blocks[i : i + 3] for i in range(0, 30, 3)]
    orders = [[subjects.index(subject) for subject, _ in one] for one in rounds]
    assert all(sorted(order) == [0, 1, 2] for order in orders) and len(set(map(tuple, orders))) > 2
    for one in rounds:
        # All subjects of a round do the same work, each in an order of its own.
        assert len({tuple(sorted(items)) for _, items in one}) == 1
        assert len({tuple(items) for _, items in one}) == 3
    whole = [(subject.threads, subject.name, item) for subject, items in blocks for item in items]
    assert len(whole) == len(set(whole)) == 3 * (2 * 2 * 20 + 2 * 5)
    assert blocks == list(plan(subjects, (1, 8), Times(repeats=20, single_samples=20, rounds=10), seed=1))


def test_one_subject_alone_has_one_block():
    assert len(list(plan([Device(World())], (1, 8), Times(rounds=5), seed=0))) == 1


def test_fewer_repeats_than_rounds_leave_no_empty_block():
    world = World()
    subjects = [Device(world, "a"), Device(world, "b")]
    times = Times(repeats=2, single_samples=2, rounds=5, queued_windows=1)
    assert len(list(plan(subjects, (8,), times, seed=0))) == 2 * 2


def test_a_device_that_rested_is_timed_after_its_clock_has_settled():
    """Both devices raise their clock within 0.3 s of work; each rests while the other works."""
    world = World()
    devices = [ScalingDevice(world, name) for name in ("cpu", "cuda")]
    times = Times(repeats=10, single_samples=10, rounds=5)
    measured = measure(devices, (1, 64), times, clock=world.clock)
    assert all(set(device.speeds) == {1.0, device.cold} for device in devices)
    for device in devices:
        for row in measured.rows[device.name]:
            assert row["latency_ms"] == pytest.approx(device.true_ms(row["path"], row["batch_size"]))
        for batch in measured.batches[device.name][:2]:
            for window in batch["throughput_queued_per_s"]["windows"]:
                assert window["samples_per_s"] == pytest.approx(
                    1000 * batch["batch_size"] / device.true_ms("deploy", batch["batch_size"]), rel=0.03
                )
    # Without that work a block begins cold.
    cold = [ScalingDevice(World(), "cpu")]
    cold.append(ScalingDevice(cold[0].world, "cuda"))
    rows = measure(cold, (1, 64), times._replace(warm_up_s=0.0), clock=cold[0].world.clock).rows["cuda"]
    assert max(row["latency_ms"] / cold[1].true_ms(row["path"], row["batch_size"]) for row in rows) > 2.5


def test_each_block_begins_with_half_a_second_of_untimed_work():
    world = World()
    devices = [Device(world, "a"), Device(world, "b")]
    measure(devices, (1, 8), Times(repeats=4, single_samples=4, rounds=4), clock=world.clock)
    for device in devices:
        starts = [i for i, entry in enumerate(device.log) if entry == ("prepare",)][1:]
        assert len(starts) == 4
        for start in starts:
            untimed = itertools.takewhile(lambda entry: entry[0] in ("run", "wait"), device.log[start + 2 :])
            runs = [entry for entry in untimed if entry[0] == "run"]
            # On the largest batch, which is the most work.
            assert set(runs) == {("run", "deploy", 8)} and len(runs) * device.true_ms("deploy", 8) >= 500


def test_the_machine_is_switched_between_blocks_and_never_in_a_timed_part():
    world = World()
    devices = [Device(world, "cpu"), Device(world, "cpu", threads=4)]
    log: list[tuple] = []
    for device in devices:
        device.log = log
    measure(devices, (1, 8), QUICK, clock=devices[0].clock)
    switches = [i for i, entry in enumerate(log) if entry == ("prepare",)]
    # Once for the look at memory and once for each of two rounds.
    assert len(switches) == 2 * 3
    # Inputs are staged next, which no timed part does: between its clock readings are runs and waits.
    assert {log[i + 1][0] for i in switches} == {"reset memory", "stage"}
    for steps in timed_runs(devices[0]):
        if steps and steps[0][0] == "run" and steps[-1] == ("wait",):
            assert {step[0] for step in steps} == {"run", "wait"}


def test_subjects_of_one_device_share_its_files_and_no_statistic():
    world = World()
    one = Device(world, "cpu", lambda path, size: 0.004)
    four = Device(world, "cpu", lambda path, size: 0.001, threads=4)
    measured = measure([one, four], (1, 8), QUICK, clock=world.clock)
    assert list(measured.rows) == list(measured.batches) == ["cpu"]
    by_threads = {1: one, 4: four}
    assert [batch["threads"] for batch in measured.batches["cpu"]] == [1] * 4 + [4] * 4
    for row in measured.rows["cpu"]:
        assert row["latency_ms"] == pytest.approx(by_threads[row["threads"]].true_ms(row["path"], 1))
    for batch in measured.batches["cpu"]:
        true = by_threads[batch["threads"]].true_ms(batch["path"], 1)
        assert batch["latency_ms"]["p5"] == pytest.approx(true) == batch["latency_ms"]["p95"]
