import math

import pytest
from fake_boards import curve_mj, curve_mw
from hypothesis import given
from hypothesis import strategies as st

from ff.hardware.energy import SUM, count, idle_level, integrate, sampling_interval_s, total_power, total_rails


def test_constant_power_on_irregular_samples():
    times = [0.0, 0.1, 0.15, 0.4, 0.5, 1.0]
    integral = integrate(times, [2000.0] * 6, 0.05, 0.95, 0.5)
    assert integral.energy_mj == pytest.approx(1800)
    assert integral.covered_s == pytest.approx(0.9)
    assert integral.gaps == []


def test_a_ramp_is_exact_also_between_samples():
    times = [0.0, 1.0, 2.0]
    integral = integrate(times, [0.0, 1000.0, 2000.0], 0.25, 0.75, 1.0)
    assert integral.energy_mj == pytest.approx(250)
    assert integrate(times, [0.0, 1000.0, 2000.0], 0.5, 1.5, 1.0).energy_mj == pytest.approx(1000)


def test_a_known_curve_within_one_percent():
    times = [0.013 * i + 0.004 * math.sin(i) for i in range(400)]
    integral = integrate(times, [curve_mw(t) for t in times], 0.3, 4.2, 0.013)
    assert integral.energy_mj == pytest.approx(curve_mj(0.3, 4.2), rel=0.01)


def test_a_gap_is_reported_and_not_bridged():
    times = [0.0, 0.1, 0.2, 0.9, 1.0]
    integral = integrate(times, [1000.0] * 5, 0.0, 1.0, 0.1)
    assert integral.gaps == [(0.2, 0.9)]
    assert integral.energy_mj == pytest.approx(300)
    assert integral.covered_s == pytest.approx(0.3)
    assert integrate(times, [1000.0] * 5, 0.5, 0.6, 0.1).gaps == [(0.5, 0.6)]
    assert integrate(times, [1000.0] * 5, 0.5, 0.6, 0.1).covered_s == 0


def test_readings_are_held_for_two_intervals_at_the_ends():
    integral = integrate([1.0, 1.1], [1000.0, 3000.0], 0.0, 2.0, 0.1)
    assert integral.covered_s == pytest.approx(0.5)
    assert integral.energy_mj == pytest.approx(200 + 200 + 600)
    assert integral.gaps == [pytest.approx((0.0, 0.8)), pytest.approx((1.3, 2.0))]


def test_windows_without_samples_are_one_gap():
    assert integrate([], [], 1.0, 2.0, 0.1) == (0.0, 0.0, [(1.0, 2.0)])
    assert integrate([5.0], [1.0], 1.0, 2.0, 0.1) == (0.0, 0.0, [(1.0, 2.0)])
    assert integrate([1.0], [1.0], 2.0, 2.0, 0.1) == (0.0, 0.0, [])


powers = st.lists(st.tuples(st.floats(0.001, 2.0), st.floats(0, 1e5)), min_size=1, max_size=30)


@given(powers, st.floats(-1, 60), st.floats(0, 60), st.floats(0, 1))
def test_windows_add_up(steps, start, length, share):
    times, values, now = [], [], 0.0
    for step, value in steps:
        now += step
        times.append(now)
        values.append(value)
    middle, end = start + share * length, start + length
    whole = integrate(times, values, start, end, 0.5)
    parts = [integrate(times, values, start, middle, 0.5), integrate(times, values, middle, end, 0.5)]
    assert sum(p.energy_mj for p in parts) == pytest.approx(whole.energy_mj, rel=1e-6, abs=1e-6)
    assert sum(p.covered_s for p in parts) == pytest.approx(whole.covered_s, rel=1e-6, abs=1e-6)
    missing = sum(b - a for a, b in whole.gaps)
    assert whole.covered_s + missing == pytest.approx(length, rel=1e-6, abs=1e-6)


def test_counters_are_differences_also_across_a_gap():
    counted = count([0.0, 1.0, 20.0], [0.0, 10.0, 200.0], 0.5, 10.5, 1.0)
    assert counted.energy_mj == pytest.approx(100)
    assert counted.gaps == []
    late = count([10.0, 11.0], [0.0, 7.0], 0.0, 11.0, 1.0)
    assert late.energy_mj == pytest.approx(21)
    assert late.gaps == [(0.0, 8.0)]
    assert count([1.0], [5.0], 0.0, 2.0, 1.0).covered_s == 0


def test_the_interval_is_the_sensors_where_that_is_slower():
    assert sampling_interval_s([0, 1, 2, 3], 0.5) == 1
    assert sampling_interval_s([0, 0.1, 0.2], 0.5) == 0.5
    assert sampling_interval_s([3.0], 0.5) == 0.5


@pytest.mark.parametrize(
    ("rails", "expected"),
    [
        (["VDD_CPU", "VDD_IN", "VDD_GPU"], ("VDD_IN", ["VDD_IN"])),
        (["POM_5V_GPU", "POM_5V_IN"], ("POM_5V_IN", ["POM_5V_IN"])),
        (["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"], ("VIN", ["VIN"])),
        (["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], (SUM, ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"])),
        (
            ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "NC", "VDDQ_VDD2_1V8AO", "NC_2"],
            (SUM, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]),
        ),
        (
            ["package-0", "package-0/core", "package-0/dram", "psys", "gpu0"],
            (SUM, ["package-0", "package-0/dram", "gpu0"]),
        ),
        (["psys"], (SUM, ["psys"])),
        (["NC"], None),
        ([], None),
    ],
)
def test_what_makes_up_the_total(rails, expected):
    assert total_rails(rails) == expected


def test_total_of_a_reading():
    assert total_power({"VDD_IN": 4000, "VDD_SOC": 1000}) == ("VDD_IN", 4000)
    assert total_power({"GPU": 1, "CPU": 2}) == (SUM, 3)
    assert total_power({}) is None


def test_idle_levels_lie_on_straight_lines_between_the_nearest_windows():
    points = [(0.0, 100.0), (10.0, 200.0), (20.0, 100.0)]
    assert [idle_level(points, at) for at in (-5.0, 2.5, 10.0, 15.0, 50.0)] == [100, 125, 200, 150, 100]
    assert idle_level([(0.0, 100.0)], 50.0) == 100
    assert idle_level([], 1.0) is None
