import json
import os
from pathlib import Path

import jsonschema
import pytest

from ff.files import read_csv
from ff.hardware.summary import main, read_log, summarise, summarise_pending
from ff.phases import COLUMNS

SCHEMA = json.loads((Path(__file__).parents[2] / "workflow/schemas/hardware.schema.json").read_text())
BOOT = "boot-1"


def header(boot=BOOT, interval_ms=100, **more):
    return {
        "kind": "header", "schema": 1, "monotonic_s": 0.0, "unix_s": 5.0, "boot_id": boot, "pid": 7, "mode": "inline",
        "interval_ms": interval_ms, "machine": {"model": "a board"},
        "sources": {"used": ["ina3221"], "missing": [{"source": "tegrastats", "reason": "not there"}]}, **more,
    }  # fmt: skip


def sample(time, **fields):
    return {"kind": "sample", "monotonic_s": time, "unix_s": 1000 + time, "source": "ina3221", **fields}


def powered(start, end, rails, step=0.1):
    count = round((end - start) / step)
    return [sample(start + step * i, power_mw=dict(rails)) for i in range(count + 1)]


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def write_phases(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(COLUMNS)] + [
        f"0123456789abcdef,{n},{a},{b},{1000 + a},{1000 + b},{boot}" for n, a, b, boot in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def summary_of(tmp_path, entries, phases=None):
    log = write(tmp_path / "log.jsonl", entries)
    marks = write_phases(tmp_path / "phases.csv", phases) if phases is not None else None
    summary = summarise(log, marks, tmp_path / "hardware.csv", tmp_path / "hardware.json")
    jsonschema.validate(summary, SCHEMA)
    assert json.loads((tmp_path / "hardware.json").read_text()) == summary
    return summary


def test_energy_of_each_phase_gross_and_net(tmp_path):
    rails = {"VDD_IN": 5000.0, "VDD_SOC": 1000.0}
    entries = [header(), *powered(0, 2, {"VDD_IN": 2000.0, "VDD_SOC": 500.0}), *powered(2.1, 8, rails)]
    phases = [("load", 2.5, 3.0, BOOT), ("representation", 3.0, 7.0, BOOT)]
    summary = summary_of(tmp_path, entries, [("idle_before", 0.2, 1.8, BOOT), *phases])
    assert summary["idle"] == {
        "before": {"VDD_IN": 2000.0, "VDD_SOC": 500.0},
        "after": None,
        "from": "phases",
    }
    energy = summary["energy"]
    assert energy["representation"]["rails"]["VDD_SOC"] == {"gross_mj": 4000.0, "net_mj": 2000.0}
    assert energy["representation"]["total"] == {
        "rail": "VDD_IN", "rails": ["VDD_IN"], "gross_mj": 20000.0, "net_mj": 12000.0,
    }  # fmt: skip
    assert energy["load"]["total"]["gross_mj"] == 2500.0
    assert energy["load"]["seconds"] == 0.5
    # Without phases made for it, idle is the quiet part of the time outside of phases.
    summary = summary_of(tmp_path, entries, phases)
    assert summary["idle"]["from"] == "outside of phases"
    assert summary["idle"]["before"]["VDD_IN"] == 2000.0


def test_a_board_without_input_rail_reports_a_sum(tmp_path):
    rails = {
        "VDD_GPU_SOC": 2000.0,
        "VDD_CPU_CV": 500.0,
        "VIN_SYS_5V0": 4000.0,
        "NC": 9.0,
        "VDDQ_VDD2_1V8AO": 300.0,
    }
    summary = summary_of(tmp_path, [header(), *powered(0, 4, rails)], [("softmax", 1.0, 2.0, BOOT)])
    total = summary["energy"]["softmax"]["total"]
    assert total["rail"] == "sum of rails"
    assert total["rails"] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert total["gross_mj"] == 6500.0


def test_several_rows_of_a_resumed_phase_add_up(tmp_path):
    entries = [
        header(),
        *powered(0, 3, {"VDD_IN": 1000.0}),
        header(),
        *powered(10, 13, {"VDD_IN": 3000.0}),
    ]
    rows = [("representation", 1.0, 2.0, BOOT), ("representation", 11.0, 12.0, BOOT)]
    summary = summary_of(tmp_path, entries, rows)
    assert summary["energy"]["representation"]["seconds"] == 2.0
    assert summary["energy"]["representation"]["total"]["gross_mj"] == 4000.0
    assert [attempt["samples"] for attempt in summary["attempts"]] == [31, 31]
    assert summary["gaps"] == []  # nobody recorded between the attempts


def test_another_boot_is_not_matched(tmp_path):
    entries = [header(), *powered(0, 3, {"VDD_IN": 1000.0})]
    summary = summary_of(tmp_path, entries, [("load", 1.0, 2.0, "boot-2")])
    assert summary["energy"]["load"]["total"] is None
    assert summary["energy"]["load"]["rails"]["VDD_IN"] == {"gross_mj": None, "net_mj": None}
    assert "another boot" in summary["notes"][-1]


def test_two_boots_each_find_their_own_samples(tmp_path):
    entries = [
        header("boot-1"), *powered(0, 3, {"VDD_IN": 1000.0}), header("boot-2"), *powered(0, 3, {"VDD_IN": 5000.0}),
    ]  # fmt: skip
    summary = summary_of(tmp_path, entries, [("a", 1.0, 2.0, "boot-1"), ("b", 1.0, 2.0, "boot-2")])
    assert summary["energy"]["a"]["total"]["gross_mj"] == 1000.0
    assert summary["energy"]["b"]["total"]["gross_mj"] == 5000.0


def test_a_gap_is_reported_and_its_phase_is_not_measured(tmp_path):
    entries = [header(), *powered(0, 2, {"VDD_IN": 1000.0}), *powered(4, 6, {"VDD_IN": 1000.0})]
    rows = [("load", 0.5, 1.5, BOOT), ("representation", 1.5, 5.0, BOOT)]
    summary = summary_of(tmp_path, entries, rows)
    assert summary["gaps"] == [{"start_s": 2.0, "end_s": 4.0}]
    assert summary["energy"]["load"]["total"]["gross_mj"] == 1000.0
    assert summary["energy"]["representation"]["total"] is None
    assert "VDD_IN was not read for 2.0 s of 3.5 s" in summary["notes"][-1]


def test_nothing_measured_is_null(tmp_path):
    rows = [("load", 0.0, 1.0, BOOT)]
    entries = [header(), *[sample(0.1 * i, cpu_percent=[5.0, None]) for i in range(20)]]
    assert summary_of(tmp_path, entries, rows)["energy"] is None
    assert summary_of(tmp_path, [header(), *powered(0, 3, {"VDD_IN": 1.0})])["energy"] is None
    assert summary_of(tmp_path, [], rows)["samples"] == 0


def test_a_missing_log_is_said(tmp_path):
    summary = summarise(tmp_path / "none.jsonl", tmp_path / "none.csv", tmp_path / "h.csv", tmp_path / "h.json")
    jsonschema.validate(summary, SCHEMA)
    assert summary["samples"] == 0
    assert summary["energy"] is None
    assert "no hardware log" in summary["notes"][0]
    assert (tmp_path / "h.csv").read_text().startswith("model,monotonic_s,unix_s,source,")


def test_counters_give_the_energy_where_there_are_some(tmp_path):
    """Power that is read late and a gap in the readings do not matter to a counter."""
    times = [0.0, 0.1, 0.2, 0.3, 3.0, 3.1]
    entries = [header()] + [
        sample(t, power_mw={"package-0": 9.0}, energy_mj={"package-0": 4000 * t}) | {"source": "rapl"} for t in times
    ]
    summary = summary_of(tmp_path, entries, [("load", 0.05, 2.95, BOOT)])
    assert summary["energy"]["load"]["total"]["gross_mj"] == pytest.approx(11600)


def test_a_source_that_takes_over_continues_its_rails(tmp_path):
    first = powered(0, 2, {"VDD_IN": 1000.0})
    second = [entry | {"source": "tegrastats"} for entry in powered(2.1, 4, {"VDD_IN": 1000.0})]
    summary = summary_of(tmp_path, [header(), *first, *second], [("load", 1.0, 3.0, BOOT)])
    assert summary["energy"]["load"]["total"]["gross_mj"] == 2000.0
    assert summary["sources"]["used"] == ["ina3221", "tegrastats"]
    assert summary["sources"]["missing"] == []


def test_the_table_is_flat_and_leaves_the_unknown_empty(tmp_path):
    entries = [
        header(),
        sample(
            1.0, cpu_percent=[10, None, 30], cpu_freq_mhz=[729, None, 729], gpu_percent=None, gpu_freq_mhz=[0, 306],
            temperature_c={"cpu": 40.5}, power_mw={"VDD_IN": 4067}, engines={"APE": 150, "VIC": None}, raw="RAM ..",
        ),
        sample(2.0, ram_used_mb=5),
    ]  # fmt: skip
    summary_of(tmp_path, entries)
    first, second = read_csv(tmp_path / "hardware.csv")
    assert first["cpu_percent"] == "20.0"
    assert (first["cpu_percent.0"], first["cpu_percent.1"]) == ("10", "")
    assert (first["gpu_percent"], first["gpu_freq_mhz"]) == ("", "306.0")
    assert (first["temperature_c.cpu"], first["power_mw.VDD_IN"]) == ("40.5", "4067")
    assert (first["engines.APE"], first["engines.VIC"]) == ("150", "")
    assert "raw" not in first
    assert (second["ram_used_mb"], second["power_mw.VDD_IN"]) == ("5", "")


def test_broken_lines_are_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    good = json.dumps(sample(1.0, power_mw={"A": "x", "B": True, "C": 5}))
    odd = [b"\xff\xfe", b"[1, 2]", b"null", b'{"kind": "sample"}', b"[" * 100000, b'{"kind": "sample", "mono']
    log.write_bytes(b"\n".join([good.encode(), *odd]))
    (attempt,) = read_log(log)
    assert len(attempt.samples) == 1
    summary = summarise(log, None, tmp_path / "h.csv", tmp_path / "h.json")
    jsonschema.validate(summary, SCHEMA)
    assert summary["samples"] == 1


def test_pending_logs_are_summarised_once(tmp_path, capsys):
    logs, results = tmp_path / "logs/hardware", tmp_path / "results"
    run = "MNIST/784-200-200-10/ff/seed1"
    entries = [header(), *powered(0, 3, {"VDD_IN": 1000.0})]
    train = write(logs / run / "train.jsonl", entries)
    write(logs / run / "measure.jsonl", entries)
    write(logs / run / "other.jsonl", entries)
    write_phases(results / run / "phases.csv", [("load", 1.0, 2.0, BOOT)])
    write_phases(results / run / "variance/phases.csv", [("measure", 1.0, 2.5, BOOT)])
    assert main(["--pending", str(logs), str(results)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    load = json.loads((results / run / "hardware.json").read_text())["energy"]["load"]
    assert load["total"]["gross_mj"] == 1000.0
    measure = json.loads((results / run / "variance/hardware.json").read_text())["energy"]["measure"]
    assert measure["total"]["gross_mj"] == 1500.0
    assert summarise_pending(logs, results) == []
    later = (results / run / "hardware.json").stat().st_mtime_ns + 10**9
    os.utime(train, ns=(later, later))
    assert summarise_pending(logs, results) == [results / run / "hardware.json"]
    assert summarise_pending(tmp_path / "none", results) == []


def test_an_output_that_cannot_be_written_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--log", str(tmp_path / "x"), "--json", str(tmp_path / "file/h.json")]) == 1
    assert "cannot write" in capsys.readouterr().err
