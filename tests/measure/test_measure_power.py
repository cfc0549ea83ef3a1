"""Energy windows on made sensors of known truth: power that lags, exact counters, idle levels that drift, failures."""

import itertools
import threading

import numpy as np
import pytest
from made_devices import Counter, Device, Reading, Sensor, World
from scipy import stats

from ff.measure import power
from ff.measure.power import (
    Idle,
    PowerMeter,
    Window,
    energy_of,
    idle_summary,
    in_thread,
    interval_of,
)
from ff.measure.protocol import Times, measure
from ff.phases import PhaseLog, read_phases

QUICK = Times(repeats=2, single_samples=2, rounds=1, queued_windows=1, warm_up_s=0.0)


def measure_energy(world: World, devices, sensor: Sensor, sizes=(1, 64), phases=None, windows=2, seed=0):
    devices = devices if isinstance(devices, list) else [devices]
    meter = PowerMeter(sensor, world.clock, world.every)
    measured = measure(
        devices,
        sizes,
        QUICK,
        seed,
        clock=world.clock,
        power=meter,
        energy_windows=windows,
        phases=phases,
        sleep=world.sleep,
    )
    return measured, meter


class Two:
    """A source of two rails that a test sets."""

    name, period_s = "two rails", 0.5

    def __init__(self, **power_mw: float):
        self.power_mw, self.energy_mj = power_mw, {}

    def read(self) -> Reading:
        return Reading(dict(self.power_mw), dict(self.energy_mj))


# -- energy per sample ----


def test_energy_of_a_sensor_that_updates_every_500_ms():
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.01 + 0.001 * size)
    measured, _ = measure_energy(world, device, Sensor(world, 0.5))
    for batch in measured.batches["made"]:
        if batch["path"] == "end_to_end":
            assert batch["energy"] is None
            continue
        size, used = batch["batch_size"], batch["energy"]
        busy_s = device.latency_s("deploy", size)
        net = 3000 * busy_s / size
        gross = net + 5000 * (busy_s + device.launch_s) / size
        total = used["total"]
        assert total["net_mj_per_sample"]["mean"] == pytest.approx(net, rel=0.01)
        assert total["gross_mj_per_sample"]["mean"] == pytest.approx(gross, rel=0.01)
        assert total["idle_mw"]["mean"] == pytest.approx(5000) and total["rail"] == "VDD_IN"
        assert used["rails"] == {"VDD_IN": total}
        for window in used["windows"]:
            # 20 periods of 500 ms are longer than 5 s.
            assert window["window_s"] >= 10 and window["readings"] >= 20
            assert window["inferences"] == pytest.approx(
                window["window_s"] / (busy_s + device.launch_s) * size, rel=0.01
            )


def test_a_fast_sensor_still_gets_five_seconds():
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.05)
    measured, _ = measure_energy(world, device, Sensor(world, 0.01), (1,))
    assert all(window["window_s"] >= 5 for window in measured.batches["made"][0]["energy"]["windows"])


def test_a_counter_is_believed_before_a_power_that_lags():
    """Light and heavy work by turns: the mean of the last second shows in a window what was before it."""
    world = World()
    device = Device(world, latency_s=lambda path, size: 0.02)
    sensor = Counter(world, 0.1)
    meter = PowerMeter(sensor, world.clock, world.every)
    with meter.sampling():
        world.sleep(3)  # idle, and no lead-in at all
        start = world.now
        for _ in range(400):
            device.run("deploy", ("deploy", 1, []))
            device.synchronise()
        end = world.now
    true = world.mean_mw(start, end) * (end - start)
    # The counter is interpolated at both ends over one reading's interval, 50 ms of 8 s.
    assert meter.rails_mj(start, end)["gpu0"] == pytest.approx(true, rel=0.01)

    only_power = PowerMeter(sensor, world.clock, world.every)
    sensor.read = lambda read=sensor.read: Reading(read().power_mw, {})
    with only_power.sampling():
        world.sleep(3)
        start = world.now
        for _ in range(400):
            device.run("deploy", ("deploy", 1, []))
            device.synchronise()
        end = world.now
    lagging = only_power.rails_mj(start, end)["gpu0"]
    assert lagging < 0.98 * true


def test_a_counter_gives_the_energy_of_inference_and_of_idle():
    world = World(idle_mw=lambda t: 4000.0)
    device = Device(world, latency_s=lambda path, size: 0.02)
    measured, _ = measure_energy(world, device, Counter(world, 0.1), (4,))
    total = measured.batches["made"][0]["energy"]["total"]
    assert total["net_mj_per_sample"]["mean"] == pytest.approx(3000 * 0.02 / 4, rel=0.005)
    assert total["idle_mw"]["mean"] == pytest.approx(4000)
    assert total["rail"] == "sum of rails"


def test_a_counter_that_fails_in_a_window_is_not_bridged():
    world = World()
    sensor = Counter(world, 0.1)
    meter = PowerMeter(sensor, world.clock, world.every)
    with meter.sampling():
        world.advance(10)
    silent = world.now
    world.advance(10, busy=True)
    with meter.sampling():
        world.advance(10)
    assert meter.rails_mj(1, silent - 1) and meter.rails_mj(silent + 11, world.now - 1)
    assert meter.rails_mj(silent + 1, silent + 9) == {}


def test_power_is_integrated_by_trapezoid():
    source = type("Source", (Two,), {"period_s": 1.0})()
    clock = iter([0.0, 1.0, 2.0, 3.0])
    meter = PowerMeter(source, clock.__next__)
    for value in (0.0, 100.0, 100.0, 400.0):
        source.power_mw = {"VDD_IN": value}
        meter.take()
    # 0.5..1: 75 x 0.5, 1..2: 100, 2..2.5: (100 + 250) / 2 x 0.5
    assert meter.rails_mj(0.5, 2.5) == {"VDD_IN": pytest.approx(37.5 + 100 + 87.5)}


# -- windows and intervals ----


def test_the_interval_is_that_of_student_over_the_windows():
    windows = [Window(10 * i, 10 * i + 10, 100, i) for i in range(3)]
    values = [6000.0, 6600.0, 7500.0]
    source = Two()
    now = [0.0]
    meter = PowerMeter(source, lambda: now[0])
    for i, value in enumerate(values):
        source.power_mw = {"VDD_IN": value}
        for step in range(1, 40):
            now[0] = 10 * i + 0.25 * step
            meter.take()
    used = energy_of(meter, windows, [Idle(15.0, {"VDD_IN": 5000.0})])
    rows = [window["gross_mj_per_sample"] for window in used["windows"]]
    assert rows == pytest.approx([value * 10 / 100 for value in values], rel=0.01)
    found = used["total"]["gross_mj_per_sample"]
    mean, half = np.mean(rows), stats.t.ppf(0.975, 2) * np.std(rows, ddof=1) / np.sqrt(3)
    assert [found["n"], found["mean"], found["low"], found["high"]] == pytest.approx(
        [3, mean, mean - half, mean + half]
    )
    net = used["total"]["net_mj_per_sample"]
    assert net["mean"] == pytest.approx(mean - 500) and net["high"] - net["low"] == pytest.approx(2 * half)
    assert found["method"] == "Student t"


def test_windows_that_differ_widely_do_not_make_less_than_no_energy():
    source, now = Two(), [0.0]
    meter = PowerMeter(source, lambda: now[0])
    for step in range(81):
        now[0] = 0.25 * step
        source.power_mw = {"VDD_IN": 500.0 if now[0] < 10 else 9000.0}
        meter.take()
    windows = [Window(0.0, 9.0, 1, 0), Window(11.0, 20.0, 1, 1)]
    total = energy_of(meter, windows, [Idle(5.0, {"VDD_IN": 400.0})])["total"]
    assert total["gross_mj_per_sample"]["low"] == 0 and "cut" in total["gross_mj_per_sample"]["method"]
    # What is left of it above idle may well be less than nothing.
    assert total["net_mj_per_sample"]["low"] < 0


def test_one_window_has_no_interval_and_no_windows_no_energy():
    assert interval_of([3.0]) == {
        "n": 1,
        "mean": 3.0,
        "low": None,
        "high": None,
        "method": "single value, no interval",
    }
    assert interval_of([None]) is None
    world = World()
    measured, _ = measure_energy(world, Device(world), Sensor(world), windows=0)
    assert measured.idle is None and all(batch["energy"] is None for batch in measured.batches["made"])


def test_every_rail_has_its_own_energy_and_the_board_its_total():
    """A board rail and one that is part of it; on a machine without a board rail the parts are added."""

    def used(rails, idle):
        source, now = Two(**rails), [0.0]
        meter = PowerMeter(source, lambda: now[0])
        for step in range(41):
            now[0] = 0.25 * step
            meter.take()
        return energy_of(meter, [Window(0.0, 10.0, 50)], [Idle(5.0, idle)])

    board = used({"VDD_IN": 8000.0, "VDD_CPU": 3000.0}, {"VDD_IN": 5000.0, "VDD_CPU": 1000.0})
    assert board["total"]["rail"] == "VDD_IN"
    assert board["total"]["gross_mj_per_sample"]["mean"] == pytest.approx(8000 * 10 / 50)
    assert board["rails"]["VDD_CPU"]["net_mj_per_sample"]["mean"] == pytest.approx(2000 * 10 / 50)
    server = used({"package-0": 9000.0, "gpu0": 30000.0}, {"package-0": 4000.0, "gpu0": 20000.0})
    assert server["total"]["rail"] == "sum of rails"
    assert server["total"]["gross_mj_per_sample"]["mean"] == pytest.approx(39000 * 10 / 50)
    assert server["total"]["net_mj_per_sample"]["mean"] == pytest.approx(15000 * 10 / 50)
    assert server["rails"]["gpu0"]["power_mw"]["mean"] == pytest.approx(30000)


def test_a_total_without_one_of_its_rails_is_missing_and_not_smaller():
    source, now = Two(package=9000.0, gpu0=30000.0), [0.0]
    meter = PowerMeter(source, lambda: now[0])
    for step in range(81):
        if step == 41:
            del source.power_mw["gpu0"]
        now[0] = 0.25 * step
        meter.take()
    used = energy_of(meter, [Window(0.0, 9.0, 50, 0), Window(11.0, 19.0, 50, 1)], [])
    assert used["total"]["gross_mj_per_sample"]["n"] == 1 and len(used["windows"]) == 1
    assert used["rails"]["package"]["gross_mj_per_sample"]["n"] == 2
    assert energy_of(meter, [Window(11.0, 19.0, 50)], [])["total"] is None


def test_windows_are_shuffled_in_rounds_with_idle_windows_between_them(tmp_path):
    def order(seed):
        world = World()
        path = tmp_path / f"{seed}-{next(number)}.csv"
        devices = [Device(world, "cpu"), Device(world, "cpu", threads=4), Device(world, "cuda")]
        measured, _ = measure_energy(world, devices, Sensor(world, 0.05), (1, 8, 64), PhaseLog(path), 3, seed)
        return [phase.name for phase in read_phases(path)], measured

    number = itertools.count()
    names, measured = order(1)
    cells = [f"energy:{device}:{size}" for device in ("cpu:1", "cpu:4", "cuda:1") for size in (1, 8, 64)]
    assert [names[0], names[1], names[11], names[21], names[31]] == [
        *("measure", "idle_before", "idle_between", "idle_between", "idle_after")
    ]
    rounds = [names[2:11], names[12:21], names[22:31]]
    assert all(sorted(one) == sorted(cells) and one != cells for one in rounds) and len(set(map(tuple, rounds))) == 3
    assert order(1)[0] == names and order(2)[0] != names
    # Each cell has a window of every round, and knows its place.
    for batch in measured.batches["cuda"][:3]:
        places = [window["order"] for window in batch["energy"]["windows"]]
        assert [place // 9 for place in places] == [0, 1, 2]
        name = f"energy:cuda:1:{batch['batch_size']}"
        assert [one.index(name) for one in rounds] == [place % 9 for place in places]


def test_the_sensor_is_left_alone_while_time_is_measured():
    world = World()
    sensor = Sensor(world, 0.5)
    reads = {}

    class Noting(PhaseLog):
        def mark(self, name, start_monotonic_s):
            reads[name] = sensor.reads
            super().mark(name, start_monotonic_s)

    measured, _ = measure_energy(world, Device(world, latency_s=lambda path, size: 0.3), sensor, phases=Noting())
    assert len(measured.rows["made"]) == 8 and world.now > 20
    assert reads.pop("measure") == 0 and min(reads.values()) > 20


# -- idle ----


@pytest.mark.parametrize("kind", [Sensor, Counter])
def test_net_energy_is_right_while_the_idle_level_drifts(kind):
    """Idle power climbs by 15 mW a second, which is half of the load over the whole measurement."""
    world = World(idle_mw=lambda t: 4000 + 15 * t)
    device = Device(world, latency_s=lambda path, size: 0.02)
    measured, _ = measure_energy(world, device, kind(world, 0.5), (1, 2, 8))
    levels = []
    for batch in measured.batches["made"][:3]:
        for window in batch["energy"]["windows"]:
            assert window["net_mj_per_sample"] == pytest.approx(3000 * 0.02 / batch["batch_size"], rel=0.02)
            levels.append(window["idle_mw"])
    assert max(levels) - min(levels) > 300
    # The level before alone would have been wrong by more than 10 % in the last window.
    idle = measured.idle["windows_mw"]
    assert idle == sorted(idle) and len(idle) == 3
    assert max(levels) - idle[0] > 0.1 * 3000 and idle[0] < min(levels) < max(levels) < idle[-1]


def test_idle_power_has_an_interval_over_its_windows():
    source, now = Two(VDD_IN=1.0, NC=1.0), [0.0]
    meter = PowerMeter(source, lambda: now[0])
    meter.take()
    found = idle_summary(meter, [Idle(0.0, {"VDD_IN": v}) for v in (4900.0, 5000.0, 5150.0)] + [None])
    assert found["windows_mw"] == [4900.0, 5000.0, 5150.0, None]
    half = stats.t.ppf(0.975, 2) * np.std([4900, 5000, 5150], ddof=1) / np.sqrt(3)
    assert found["total"]["mean"] == pytest.approx(np.mean([4900, 5000, 5150]))
    assert found["total"]["high"] - found["total"]["mean"] == pytest.approx(half)
    assert found["rails"]["VDD_IN"] == found["total"] and found["rails"]["NC"] is None


def test_a_sensor_that_fails_in_a_window_gives_no_energy_and_not_zero():
    world = World()
    meter = PowerMeter(Sensor(world, 0.5), world.clock, world.every)
    with meter.sampling():
        world.advance(20)
    silent = world.now
    world.advance(20)
    assert energy_of(meter, [Window(0.5, silent, 10)], []) is not None
    assert energy_of(meter, [Window(silent, world.now, 10)], []) is None
    # Half a window is not the window either.
    assert energy_of(meter, [Window(silent - 10, silent + 10, 10)], []) is None


def test_without_an_idle_level_net_energy_is_missing():
    world = World()
    meter = PowerMeter(Sensor(world, 0.5), world.clock, world.every)
    with meter.sampling():
        world.advance(20)
    total = energy_of(meter, [Window(2, 18, 100)], [None, None])["total"]
    assert total["net_mj_per_sample"] is None and total["idle_mw"] is None
    assert total["gross_mj_per_sample"]["mean"] == pytest.approx(5000 * 16 / 100)


def test_what_the_sensor_says_of_others_in_the_windows_is_passed_on():
    source, now = Two(gpu0=100.0), [0.0]
    plain = source.read
    said = {"names": None}
    source.read = lambda: type("Told", (), {**plain()._asdict(), "shared": said["names"]})()
    meter = PowerMeter(source, lambda: now[0])
    for step in range(121):
        now[0] = 0.25 * step
        said["names"] = None if now[0] <= 10 else ["job 7"] if 14 < now[0] < 15 else []
        meter.take()
    assert energy_of(meter, [Window(0.0, 10.0, 1)], [])["shared"] is None
    assert energy_of(meter, [Window(11.0, 20.0, 1), Window(20.0, 30.0, 1)], [])["shared"] == ["job 7"]
    assert energy_of(meter, [Window(20.0, 30.0, 1)], [])["shared"] == []


def test_a_window_without_a_reading_of_its_own_says_nothing_though_readings_around_it_span_it():
    now, source = [0.0], Two(VDD_IN=400.0)
    meter = PowerMeter(source, lambda: now[0])
    for now[0] in (0.0, 0.3, 0.6, 0.9):
        meter.take()
    assert meter.rails_mj(0.35, 0.55) and meter.readings(0.35, 0.55) == 0
    assert energy_of(meter, [Window(0.35, 0.55, 50)], []) is None
    used = energy_of(meter, [Window(0.35, 0.55, 50, 0), Window(0.2, 0.8, 50, 1)], [])
    assert [window["order"] for window in used["windows"]] == [1]


def test_the_thread_samples_until_the_block_ends():
    count, enough = [], threading.Event()

    def take():
        count.append(1)
        if len(count) == 5:
            enough.set()

    with in_thread(0.001, take):
        assert enough.wait(20)
    assert not any(thread.name == "ff-power" for thread in threading.enumerate())


def test_the_sensor_is_read_twice_a_period_and_the_lead_in_is_two_of_them():
    meter = PowerMeter(type("Slow", (Two,), {"period_s": 2.0})(), every=lambda interval, take: interval)
    assert meter.sampling() == 1.0 and meter.lead_in_s == 4.0 and meter.window_s == 40.0
    assert (power.SENSOR_PERIODS, power.WINDOW_S, power.LEAD_IN_S) == (20, 5.0, 0.5)
