"""Energy of phases from logs whose power is made up, so that energies, idle level, drift and spread are known."""

import math
from itertools import pairwise

import pytest
from made_logs import MODEL, header, powered, sample, source, steps, summary_of
from scipy import stats

from ff.files import write_json
from ff.layout import RunKey
from ff.summary import tables
from ff.summary.tables.run_files import files_of

QUARTILE_975 = {n: stats.t.ppf(0.975, n - 1) for n in range(2, 12)}


def half_width(values):
    """Of Student's t interval of the mean, by scipy."""
    return QUARTILE_975[len(values)] * stats.tstd(values) / math.sqrt(len(values))


def ends(estimate, reach):
    return pytest.approx((estimate - reach, estimate + reach), rel=1e-6)


def gross_ends(part):
    return part["gross_low_mj"], part["gross_high_mj"]


def net_ends(part):
    return part["net_low_mj"], part["net_high_mj"]


def test_energy_of_each_phase_gross_and_net(tmp_path):
    rails = {"VDD_IN": 5000.0, "VDD_SOC": 1000.0}
    idle = {"VDD_IN": 2000.0, "VDD_SOC": 500.0}
    entries = [header(), *powered(0, 2, idle), *powered(2.1, 8, rails)]
    phases = [("idle_before", 0.2, 1.8), ("load", 2.5, 3.0), ("representation", 3.0, 7.0)]
    summary = summary_of(tmp_path, entries, phases)
    assert summary["idle"]["before"] == idle
    assert summary["idle"]["after"] is None
    assert list(summary["energy"]) == ["load", "representation"], "idle is no work"
    energy = summary["energy"]["representation"]
    assert (energy["rails"]["VDD_SOC"]["gross_mj"], energy["rails"]["VDD_SOC"]["net_mj"]) == (4000.0, 2000.0)
    total = energy["total"]
    assert (total["rail"], total["rails"]) == ("VDD_IN", ["VDD_IN"])
    assert (total["gross_mj"], total["net_mj"]) == (20000.0, 12000.0)
    assert summary["energy"]["load"]["total"]["gross_mj"] == 2500.0
    assert (summary["energy"]["load"]["seconds"], energy["windows"]) == (0.5, 1)


# -- idle ----


def test_only_windows_made_for_it_are_idle(tmp_path):
    """Start-up, the time between phases, and an earlier training in the log of a sidecar are not."""
    busy, quiet, work = 4000.0, 1000.0, 6000.0
    earlier = [header(at_s=0), *powered(0, 40, {"VDD_IN": busy})]
    curve = steps((60, busy), (70, quiet), (72, busy), (112, work), (114, busy), (124, quiet), (200, busy))
    own = [header(at_s=50), *powered(50, 150, {"VDD_IN": curve})]
    work_phase = ("representation", 75, 110)
    windows = [("idle_before", 61, 69), ("idle_after", 115, 123)]
    summary = summary_of(tmp_path, [*earlier, *own], [windows[0], work_phase, windows[1]])
    assert summary["energy"]["representation"]["total"]["net_mj"] == (work - quiet) * 35
    assert summary["idle"]["windows"] == 2
    without = summary_of(tmp_path, [*earlier, *own], [work_phase])
    assert without["energy"]["representation"]["total"]["gross_mj"] == work * 35
    assert without["energy"]["representation"]["total"]["net_mj"] is None
    assert without["run_energy"]["total"]["net_mj"] is None
    assert without["idle"] == {"before": None, "after": None, "windows": 0, "rails": {}, "total": None}
    assert "idle power was not measured" in without["notes"][-1]


def test_a_level_that_drifts_does_no_harm(tmp_path):
    """The idle machine draws 100 mW more each 10 s; the work always takes 4 W more than that."""

    def curve(time):
        return 2000 + 10 * time + (4000 if 15 <= time <= 95 else 0)

    phases = [("idle_before", 0, 10), ("early", 20, 30), ("late", 30, 90), ("idle_after", 100, 110)]
    summary = summary_of(tmp_path, [header(), *powered(0, 112, {"VDD_IN": curve})], phases)
    energy = summary["energy"]
    assert energy["early"]["total"]["net_mj"] == pytest.approx(4000 * 10)
    assert energy["late"]["total"]["net_mj"] == pytest.approx(4000 * 60)
    assert summary["run_energy"]["total"]["net_mj"] == pytest.approx(4000 * 70)
    assert summary["idle"]["before"] == {"VDD_IN": pytest.approx(2050)}
    assert summary["idle"]["after"] == {"VDD_IN": pytest.approx(3050)}


def test_every_window_of_a_resumed_run_counts(tmp_path):
    """Before the kill 1 W is idle, after the resume 3 W, as between two states of a machine."""
    first, second = steps((20, 1000), (40, 5000)), steps((120, 3000), (140, 5000), (200, 3000))
    entries = [
        header(), *powered(0, 40, {"VDD_IN": first}), header(at_s=100), *powered(100, 160, {"VDD_IN": second}),
    ]  # fmt: skip
    phases = [
        ("idle_before", 8, 18), ("work", 25, 35),
        ("idle_before", 108, 118), ("work", 125, 135), ("idle_after", 145, 155),
    ]  # fmt: skip
    summary = summary_of(tmp_path, entries, phases)
    assert summary["idle"]["windows"] == 3
    assert summary["idle"]["before"] == {"VDD_IN": 2000.0}
    # On the line between the windows at 13 s and 113 s, the work at 30 s has an idle level of 1340 mW.
    assert summary["energy"]["work"]["total"]["net_mj"] == pytest.approx((5000 - 1340) * 10 + (5000 - 3000) * 10)


def test_a_boot_without_idle_windows_takes_those_of_the_others(tmp_path):
    entries = [
        header("a"), *powered(0, 30, {"VDD_IN": steps((20, 1000), (30, 4000))}),
        header("b"), *powered(0, 30, {"VDD_IN": 4000.0}),
    ]  # fmt: skip
    summary = summary_of(tmp_path, entries, [("idle_before", 1, 19, "a"), ("work", 22, 28, "a"), ("work", 10, 20, "b")])
    assert summary["energy"]["work"]["total"]["net_mj"] == pytest.approx(3000 * 16)


def test_a_window_in_which_something_else_ran_is_no_baseline(tmp_path):
    entries = [
        header(), *powered(0, 10, {"VDD_IN": 9000.0}, shared_with=["MNIST/784-10/ff/seed2/train.jsonl"]),
        *powered(10.1, 20, {"VDD_IN": 6000.0}, shared_with=[]), *powered(20.1, 30, {"VDD_IN": 1000.0}, shared_with=[]),
    ]  # fmt: skip
    phases = [("idle_before", 1, 9), ("work", 11, 19), ("idle_after", 21, 29)]
    summary = summary_of(tmp_path, entries, phases)
    assert summary["idle"]["before"] is None
    assert summary["energy"]["work"]["total"]["net_mj"] == pytest.approx(5000 * 8)
    assert "shared with MNIST/784-10/ff/seed2/train.jsonl" in summary["notes"][0]
    assert summary_of(tmp_path, entries, phases[:2])["energy"]["work"]["total"]["net_mj"] is None


@pytest.mark.parametrize(("period_s", "parts"), [(0.05, 5), (0.1, 5), (0.2, 2), (0.5, 2), (3.0, 2)])
def test_idle_windows_are_cut_as_the_slowest_sensor_asks(tmp_path, period_s, parts):
    """Windows of 10 s: five of 2 s are 20 periods of 0.1 s; two there are always, the spread needs them."""
    entries = [header(), source(period_s), source(0.01, "rapl", "energy counter"), *powered(0, 25, {"VDD_IN": 9.0})]
    summary = summary_of(tmp_path, entries, [("idle_before", 1, 11), ("work", 12, 20)])
    assert summary["idle"]["rails"]["VDD_IN"]["n"] == parts


# -- intervals ----


def epochs(count, seconds=8.0, start=30.0):
    """Rows of a phase, with a second in between in which the power may change."""
    return [(start + i * (seconds + 2), start + i * (seconds + 2) + seconds) for i in range(count)]


def epoch_curve(powers, *before):
    """Idle steps, then each power from a second before its epoch to a second after."""
    return steps(*before, *[(end + 1, power) for (_, end), power in zip(epochs(len(powers)), powers, strict=True)])


def test_the_interval_of_a_phase_is_students_over_its_windows(tmp_path):
    powers = [5000.0, 5200.0, 4900.0]
    log = [header(), *powered(29, 62, {"VDD_IN": epoch_curve(powers)})]
    summary = summary_of(tmp_path, log, [("representation", *row) for row in epochs(3)])
    total = summary["energy"]["representation"]["total"]
    assert total["gross_mj"] == pytest.approx(sum(powers) * 8)
    assert gross_ends(total) == ends(sum(powers) * 8, half_width(powers) * 24)
    assert total["method"] == "Student t"
    assert net_ends(total) == (None, None)
    assert summary["energy"]["representation"]["windows"] == 3


def test_windows_of_different_length_count_with_their_own_energy(tmp_path):
    """An epoch that a kill cut short is a window, too."""
    powers, rows = [5000.0, 5200.0], [(30.0, 38.0), (40.0, 42.0)]
    log = [header(), *powered(29, 62, {"VDD_IN": epoch_curve(powers)})]
    total = summary_of(tmp_path, log, [("work", *row) for row in rows])["energy"]["work"]["total"]
    assert total["gross_mj"] == pytest.approx(5000 * 8 + 5200 * 2)
    assert gross_ends(total) == ends(total["gross_mj"], half_width(powers) * 10)


@pytest.mark.parametrize(("period_s", "windows"), [(0.1, 6), (0.8, 3), (2.5, 1)])
def test_rows_that_the_sensor_cannot_tell_apart_are_one_window(tmp_path, period_s, windows):
    """Six epochs of half a second: each, two at a time, or all of them together."""
    powers = [5000.0, 5000.0, 6000.0, 6000.0, 7000.0, 7000.0]
    curve = steps(*[(10.5 + 0.5 * i, power) for i, power in enumerate(powers)])
    entries = [header(), source(period_s), *sharp(powered(8, 15, {"VDD_IN": curve}))]
    phase = summary_of(tmp_path, entries, [("work", 10 + 0.5 * i, 10.5 + 0.5 * i) for i in range(6)])["energy"]["work"]
    assert phase["windows"] == windows
    assert phase["total"]["gross_mj"] == pytest.approx(18000, rel=1e-5)
    if windows == 1:
        assert gross_ends(phase["total"]) == (None, None)
        return
    reach = half_width(powers if windows == 6 else powers[::2]) * 3
    low, high = gross_ends(phase["total"])
    assert (high - low) / 2 == pytest.approx(reach, rel=1e-4)


def test_a_short_row_at_the_end_belongs_to_the_window_before(tmp_path):
    log = [header(), source(0.5), *powered(29, 62, {"VDD_IN": 5000.0})]
    phase = summary_of(tmp_path, log, [("work", 30, 32), ("work", 32, 34), ("work", 34, 34.2)])["energy"]["work"]
    assert phase["windows"] == 2


def test_the_interval_of_net_has_both_parts(tmp_path):
    """Idle windows of 10 s in two parts of 5 s (the sensor's period is 0.25 s), of 1.0, 1.2, 1.5 and 1.1 W."""
    levels, powers = [1000.0, 1200.0, 1500.0, 1100.0], [5000.0, 5200.0, 4900.0]
    curve = epoch_curve(powers, (6, 1000.0), (28, 1200.0))
    after = steps((66, 1500.0), (99, 1100.0))
    entries = [header(), source(0.25), *powered(0, 58, {"VDD_IN": curve}), *powered(60, 73, {"VDD_IN": after})]
    entries = [entry for entry in entries if entry["kind"] != "sample"] + sharp(entries)
    phases = [("idle_before", 1, 11), *(("work", *row) for row in epochs(3)), ("idle_after", 61, 71)]
    summary = summary_of(tmp_path, entries, phases)
    idle = summary["idle"]["total"]
    assert (idle["rail"], idle["n"]) == ("VDD_IN", 4)
    assert idle["power_mw"] == pytest.approx(1200, rel=1e-4)
    assert (idle["low_mw"], idle["high_mw"]) == pytest.approx(
        (1200 - half_width(levels), 1200 + half_width(levels)), rel=1e-4
    )
    total = summary["energy"]["work"]["total"]
    reach = math.hypot(half_width(powers) * 24, half_width(levels) * 24)
    low, high = net_ends(total)
    assert total["net_mj"] - low == pytest.approx(reach, rel=1e-3)
    assert high - total["net_mj"] == pytest.approx(reach, rel=1e-3)
    assert gross_ends(total) == ends(sum(powers) * 8, half_width(powers) * 24)


def sharp(entries):
    """The samples, with one more just before each step of the power, so that the step takes no time."""
    samples = [entry for entry in entries if entry["kind"] == "sample"]
    doubled = [samples[0]]
    for before, after in pairwise(samples):
        if before["power_mw"] != after["power_mw"]:
            doubled.append({**before, "monotonic_s": after["monotonic_s"] - 1e-6})
        doubled.append(after)
    return doubled


def test_one_window_has_no_interval(tmp_path):
    entries = [header(), *powered(0, 30, {"VDD_IN": steps((12, 1000.0), (30, 5000.0))})]
    total = summary_of(tmp_path, entries, [("idle_before", 1, 11), ("load", 15, 25)])["energy"]["load"]["total"]
    assert (total["gross_mj"], total["net_mj"]) == (50000.0, 40000.0)
    assert (*gross_ends(total), *net_ends(total)) == (None,) * 4
    assert total["method"] == "one window, no interval"


def test_windows_that_agree_have_an_interval_of_no_width(tmp_path):
    entries = [header(), *powered(0, 60, {"VDD_IN": steps((12, 1000.0), (99, 5000.0))})]
    phases = [("idle_before", 1, 11), *(("work", *row) for row in epochs(3))]
    total = summary_of(tmp_path, entries, phases)["energy"]["work"]["total"]
    assert gross_ends(total) == (120000.0, 120000.0)
    assert net_ends(total) == (96000.0, 96000.0)
    assert total["method"] == "all values equal"


def test_no_interval_reaches_below_no_energy(tmp_path):
    log = [header(), *powered(29, 52, {"VDD_IN": epoch_curve([100.0, 3000.0])})]
    total = summary_of(tmp_path, log, [("work", *row) for row in epochs(2)])["energy"]["work"]["total"]
    assert total["gross_low_mj"] == 0
    assert total["method"] == "Student t, cut at the bound"
    assert total["gross_high_mj"] > 2 * total["gross_mj"]


def test_what_one_rail_takes_from_another_is_no_spread_of_the_total(tmp_path):
    """Work moves between CPU and GPU, and the board always draws the same."""
    cpu, gpu = [5000.0, 5300.0, 4800.0], [3000.0, 2700.0, 3200.0]
    log = [header(), *powered(29, 62, {"CPU": epoch_curve(cpu), "GPU": epoch_curve(gpu)})]
    energy = summary_of(tmp_path, log, [("work", *row) for row in epochs(3)])["energy"]["work"]
    assert gross_ends(energy["rails"]["GPU"]) == ends(sum(gpu) * 8, half_width(gpu) * 24)
    assert energy["total"]["rail"] == "sum of rails"
    assert gross_ends(energy["total"]) == (8000 * 24, 8000 * 24)


# -- the whole run ----


def run_log(**more):
    """Idle at 1 W, 3 epochs of training and 3 of a second phase, one load and one evaluation at 2 W."""
    first, second = [5000.0, 5200.0, 4900.0], [7000.0, 7100.0, 7300.0]
    curve = epoch_curve([*first, *second], (12, 1000.0), (28, 2000.0))
    entries = [header(), *powered(0, 95, {"VDD_IN": curve}), *powered(95.1, 110, {"VDD_IN": 2000.0})]
    rows = epochs(6)
    phases = [("import", -2, 0), ("idle_before", 1, 11), ("load", 13, 27)]
    phases += [("representation", *row) for row in rows[:3]] + [("softmax", *row) for row in rows[3:]]
    return entries, [*phases, ("evaluation", 97, 107)], first, second


def test_a_run_is_the_sum_of_its_phases(tmp_path):
    entries, phases, first, second = run_log()
    summary = summary_of(tmp_path, entries, phases)
    run = summary["run_energy"]
    assert run["phases"] == ["load", "representation", "softmax", "evaluation"]
    assert run["seconds"] == pytest.approx(14 + 24 + 24 + 10)
    gross = 2000 * 14 + sum(first) * 8 + sum(second) * 8 + 2000 * 10
    assert run["total"]["gross_mj"] == pytest.approx(gross)
    assert run["total"]["net_mj"] == pytest.approx(gross - 1000 * 72)
    reach = math.hypot(half_width(first) * 24, half_width(second) * 24)
    assert gross_ends(run["total"]) == ends(gross, reach)
    assert net_ends(run["total"]) == ends(gross - 72000, reach), "the idle windows agree"
    assert run["total"]["method"] == "Student t; one window, no spread: load, evaluation"
    assert run["rails"]["VDD_IN"]["gross_mj"] == run["total"]["gross_mj"]
    assert summary["energy"]["import"]["total"] is None, "the recorder had not begun"


def test_the_uncertainty_of_idle_is_common_to_all_phases(tmp_path):
    """Level 1.0 W before and 1.4 W after: each phase's net is off by the same power, so the run's by its sum."""
    curve = epoch_curve([5000.0, 5000.0], (25, 1000.0))
    after = powered(60, 75, {"VDD_IN": 1400.0})
    entries = [header(), source(0.25), *powered(0, 52, {"VDD_IN": curve}), *after]
    rows = epochs(2)
    phases = [
        ("idle_before", 1, 11),
        ("a", 30, 34),
        ("a", 34, 38),
        ("b", *rows[1]),
        ("b", 41, 42),
        ("idle_after", 61, 71),
    ]
    run = summary_of(tmp_path, entries, phases)["run_energy"]
    reach = half_width([1000.0, 1000.0, 1400.0, 1400.0]) * run["covered_s"]
    assert run["total"]["net_mj"] - run["total"]["net_low_mj"] == pytest.approx(reach, rel=1e-6)


def test_a_run_with_a_phase_that_was_not_measured_has_no_sum(tmp_path):
    entries, phases, *_ = run_log()
    gap = [entry for entry in entries if not 14 < entry["monotonic_s"] < 26]
    summary = summary_of(tmp_path, gap, phases)
    assert summary["energy"]["representation"]["total"] is not None
    assert summary["energy"]["load"]["total"] is None
    assert summary["run_energy"]["total"] is None
    assert summary["run_energy"]["rails"]["VDD_IN"]["gross_mj"] is None
    only = summary_of(tmp_path, entries, [("import", 1, 2)])
    assert only["run_energy"] is None


def test_a_rail_that_was_lost_is_missing_from_the_sum_of_rails(tmp_path):
    entries = [
        header(), *powered(0, 10, {"GPU": 1000.0, "CPU": 1000.0}), *powered(10.1, 20, {"CPU": 1000.0}),
    ]  # fmt: skip
    summary = summary_of(tmp_path, entries, [("a", 1, 9), ("b", 11, 19)])
    assert summary["energy"]["b"]["rails"]["CPU"]["gross_mj"] == 8000.0
    assert summary["energy"]["b"]["total"] is None
    assert summary["run_energy"]["rails"]["CPU"]["gross_mj"] == 16000.0
    assert summary["run_energy"]["total"] is None


# -- who shared it ----


def test_energy_of_a_device_that_was_shared_is_marked(tmp_path):
    other = "MNIST/784-200-10/ff/seed7/train.jsonl"
    alone = powered(0, 9.9, {"VDD_IN": 5000.0}, shared_with=[])
    both = powered(10, 19.9, {"VDD_IN": 9000.0}, shared_with=[other])
    unknown = powered(20, 30, {"VDD_IN": 5000.0})
    summary = summary_of(tmp_path, [header(), *alone, *both, *unknown], [("a", 1, 9), ("b", 5, 15), ("c", 21, 29)])
    energy = summary["energy"]
    assert [energy[name]["shared"] for name in "abc"] == [False, True, None]
    assert [energy[name]["total"]["shared"] for name in "abc"] == [False, True, None]
    assert energy["b"]["shared_with"] == [other]
    assert energy["a"]["shared_with"] == []
    assert summary["run_energy"]["shared"] is True
    assert summary_of(tmp_path, [header(), *alone], [("a", 1, 5), ("b", 5, 9)])["run_energy"]["shared"] is False
    alone_or_not = summary_of(tmp_path, [header(), *alone, *unknown], [("a", 1, 9), ("c", 21, 29)])
    assert alone_or_not["run_energy"]["shared"] is None


def test_a_phase_shorter_than_the_interval_takes_the_readings_around_it(tmp_path):
    entries = [
        header(),
        *powered(0, 5, {"VDD_IN": 5.0}, shared_with=[]),
        *powered(5.1, 9, {"VDD_IN": 5.0}, shared_with=["x"]),
    ]
    energy = summary_of(tmp_path, entries, [("a", 2.01, 2.02), ("b", 5.02, 5.03)])["energy"]
    assert (energy["a"]["shared"], energy["b"]["shared"]) == (False, True)


def test_sharing_is_known_rail_by_rail(tmp_path):
    """Another process on the GPU is none on the CPU, and only what the total is made of marks the total."""
    entries = [header()]
    for i in range(101):
        entries.append(sample(0.1 * i, power_mw={"package-0": 9.0, "package-0/core": 5.0}, shared_with=[]))
        gpu = {"source": "nvml", "gpu": 0, "shared_with": ["process 5 (python)"]}
        entries.append(sample(0.1 * i, power_mw={"gpu0": 70.0}) | gpu)
    energy = summary_of(tmp_path, entries, [("a", 1, 9)])["energy"]["a"]
    assert energy["rails"]["package-0"]["shared"] is False
    assert energy["rails"]["gpu0"]["shared"] is True
    assert (energy["shared"], energy["shared_with"]) == (True, ["process 5 (python)"])


# -- what the sensors left out ----


def test_a_board_without_input_rail_reports_a_sum(tmp_path):
    rails = {
        "VDD_GPU_SOC": 2000.0,
        "VDD_CPU_CV": 500.0,
        "VIN_SYS_5V0": 4000.0,
        "NC": 9.0,
        "VDDQ_VDD2_1V8AO": 300.0,
    }
    summary = summary_of(tmp_path, [header(), *powered(0, 4, rails)], [("softmax", 1.0, 2.0)])
    total = summary["energy"]["softmax"]["total"]
    assert total["rail"] == "sum of rails"
    assert total["rails"] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert total["gross_mj"] == 6500.0


def test_several_rows_of_a_resumed_phase_add_up(tmp_path):
    entries = [
        header(),
        *powered(0, 3, {"VDD_IN": 1000.0}),
        header(at_s=10.0),
        *powered(10, 13, {"VDD_IN": 3000.0}),
    ]
    summary = summary_of(tmp_path, entries, [("representation", 1.0, 2.0), ("representation", 11.0, 12.0)])
    assert summary["energy"]["representation"]["seconds"] == 2.0
    assert summary["energy"]["representation"]["total"]["gross_mj"] == 4000.0
    assert [attempt["samples"] for attempt in summary["attempts"]] == [31, 31]
    assert summary["gaps"] == []  # nobody recorded between the attempts


def test_another_boot_is_not_matched(tmp_path):
    entries = [header(), *powered(0, 3, {"VDD_IN": 1000.0})]
    summary = summary_of(tmp_path, entries, [("load", 1.0, 2.0, "boot-2")])
    assert summary["energy"]["load"]["total"] is None
    assert summary["energy"]["load"]["rails"]["VDD_IN"]["gross_mj"] is None
    assert "another boot" in summary["notes"][0]


def test_two_boots_each_find_their_own_samples(tmp_path):
    entries = [
        header("boot-1"), *powered(0, 3, {"VDD_IN": 1000.0}), header("boot-2"), *powered(0, 3, {"VDD_IN": 5000.0}),
    ]  # fmt: skip
    summary = summary_of(tmp_path, entries, [("a", 1.0, 2.0, "boot-1"), ("b", 1.0, 2.0, "boot-2")])
    assert summary["energy"]["a"]["total"]["gross_mj"] == 1000.0
    assert summary["energy"]["b"]["total"]["gross_mj"] == 5000.0


def test_a_gap_is_reported_and_its_phase_is_not_measured(tmp_path):
    entries = [header(), *powered(0, 2, {"VDD_IN": 1000.0}), *powered(4, 6, {"VDD_IN": 1000.0})]
    summary = summary_of(tmp_path, entries, [("load", 0.5, 1.5), ("representation", 1.5, 5.0)])
    assert summary["gaps"] == [{"start_s": 2.0, "end_s": 4.0}]
    assert summary["energy"]["load"]["total"]["gross_mj"] == 1000.0
    assert summary["energy"]["representation"]["total"] is None
    assert "VDD_IN was not read for 2.0 s of 3.5 s" in summary["notes"][0]


def test_counters_give_the_energy_where_there_are_some(tmp_path):
    """Power that is read late and a gap in the readings do not matter to a counter."""
    times = [0.0, 0.1, 0.2, 0.3, 3.0, 3.1]
    entries = [header(), source(1.0)] + [
        sample(t, power_mw={"package-0": 9.0}, energy_mj={"package-0": 4000 * t}) | {"source": "rapl"} for t in times
    ]
    summary = summary_of(tmp_path, entries, [("load", 0.05, 2.95)])
    assert summary["energy"]["load"]["total"]["gross_mj"] == pytest.approx(11600)
    assert not any("rough" in note for note in summary["notes"]), "a counter is exact in a short window, too"


def test_a_phase_too_short_for_its_sensor_is_noted(tmp_path):
    entries = [header(), source(1.0, "nvml", "power averaged over 1 s"), *powered(0, 40, {"gpu0": 9.0})]
    notes = summary_of(tmp_path, entries, [("a", 1, 20), ("b", 21, 2 * 21)])["notes"]
    assert [note for note in notes if "rough" in note] == [
        "phase a lasted 19.0 s, less than 20 periods of the power sensor: its energy is rough"
    ]


def test_a_sensor_that_says_0_does_not_measure(tmp_path):
    """The energy counters of some virtual machines are there and stand still."""
    entries = [header()] + [
        sample(0.1 * i, power_mw={"package-0": 0.0}, energy_mj={"package-0": 0.0}) | {"source": "rapl"}
        for i in range(100)
    ]
    summary = summary_of(tmp_path, entries, [("load", 1.0, 8.0)])
    assert summary["energy"]["load"]["total"] is None
    assert summary["run_energy"]["total"] is None


def test_a_source_that_takes_over_continues_its_rails(tmp_path):
    first = powered(0, 2, {"VDD_IN": 1000.0})
    second = [entry | {"source": "tegrastats"} for entry in powered(2.1, 4, {"VDD_IN": 1000.0})]
    summary = summary_of(tmp_path, [header(), *first, *second], [("load", 1.0, 3.0)])
    assert summary["energy"]["load"]["total"]["gross_mj"] == 2000.0
    assert summary["sources"]["used"] == ["ina3221", "tegrastats"]
    assert summary["sources"]["missing"] == []


# -- in the tables ----


def test_the_tables_have_what_the_summary_found(tmp_path):
    entries, phases, *_ = run_log()
    run = RunKey("MNIST", "784-10", "ff", 1)
    folder = run.folder(tmp_path)
    summary = summary_of(folder, entries, phases)
    write_json(folder / "metrics.json", {"run": {"model": MODEL}})
    row = tables.training(files_of(tmp_path, [run])).iloc[0]
    total = summary["run_energy"]["total"]
    for name in ("gross_mj", "gross_low_mj", "gross_high_mj", "net_mj", "net_low_mj", "net_high_mj", "method"):
        assert row[f"energy_{name}"] == total[name]
    assert row["energy_seconds"] == summary["run_energy"]["seconds"]
    assert row.isna()["shared"], "the samples do not say who else ran"
    energy = tables.energy(files_of(tmp_path, [run])).set_index(["phase", "is_total"])
    assert energy.loc[("softmax", 1), "rail"] == "VDD_IN"
    assert energy.loc[("softmax", 1), "net_low_mj"] == summary["energy"]["softmax"]["total"]["net_low_mj"]
    assert energy.loc[("softmax", 0), "method"] == "Student t"
