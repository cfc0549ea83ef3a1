"""What is made of a log: hardware.json and hardware.csv, also of logs that are damaged, missing or of several jobs."""

import json
import os

import jsonschema
import pytest
from made_logs import MODEL, SCHEMA, header, powered, sample, source, summary_of, write, write_phases

from ff.errors import FFError
from ff.files import read_csv
from ff.hardware.log import read_log
from ff.hardware.summary import summarise, summarise_pending, watched_log


def test_model_sources_and_attempts_are_named(tmp_path):
    nvml = source(0.1, "nvml", "total-energy counter")
    entries = [header(), source(0.5), *powered(0, 3, {"VDD_IN": 1.0}), header(at_s=4.0), nvml, nvml]
    summary = summary_of(tmp_path, entries, [("load", 1.0, 2.0)])
    assert summary["model"] == MODEL
    assert summary["sources"]["power"] == [
        {"source": "ina3221", "method": "power monitor chips", "period_s": 0.5},
        {"source": "nvml", "method": "total-energy counter", "period_s": 0.1},
    ]
    assert {row["model"] for row in read_csv(tmp_path / "hardware.csv")} == {MODEL}


def test_samples_of_an_earlier_job_in_the_same_log_are_left_out(tmp_path):
    """A sidecar appends: with a rerun, the log holds the training that the rerun replaces, too."""
    earlier = [header(at_s=0.0), *powered(0, 3, {"VDD_IN": 1.0}), {**sample(3.5), "kind": "note", "event": "lost"}]
    failed = [header("boot-0", at_s=900.0), *powered(900, 950, {"VDD_IN": 1.0})]
    own = [header(at_s=10.0), *powered(10, 13, {"VDD_IN": 2.0})]
    summary = summary_of(tmp_path, [*failed, *earlier, *own], [("load", 11.0, 12.0)])
    assert len(summary["attempts"]) == 1
    assert summary["samples"] == 31
    assert summary["duration_s"] == 3.0
    assert summary["notes"] == ["idle power was not measured, so energy net of it is not known"]
    assert read_csv(tmp_path / "hardware.csv")[0]["monotonic_s"] == "10.0"
    assert summary_of(tmp_path, [*earlier, *own], None)["samples"] == 62


def test_nothing_measured_is_null(tmp_path):
    rows = [("load", 0.0, 1.0)]
    entries = [header(), *[sample(0.1 * i, cpu_percent=[5.0, None]) for i in range(20)]]
    assert summary_of(tmp_path, entries, rows)["energy"] is None
    assert summary_of(tmp_path, entries, rows)["run_energy"] is None
    assert summary_of(tmp_path, [header(), *powered(0, 3, {"VDD_IN": 1.0})])["energy"] is None
    assert summary_of(tmp_path, [], rows)["samples"] == 0


def test_runs_that_were_trained_together_have_one_log_and_measurements_one_each(tmp_path):
    run = tmp_path / "results/MNIST/784-20-10/ff/seed7"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({"provenance": {"group_seeds": [3, 7]}}))
    logs = f"{tmp_path}/results/logs/hardware/MNIST/784-20-10/ff"
    assert watched_log(f"{tmp_path}/results", run / "phases.csv", "train") == f"{logs}/seed3/train.jsonl"
    assert watched_log(f"{tmp_path}/results", run / "variance/phases.csv", "measure") == f"{logs}/seed7/measure.jsonl"


def test_a_missing_log_is_said(tmp_path):
    summary = summarise(tmp_path / "none.jsonl", tmp_path / "none.csv", tmp_path / "h.csv", tmp_path / "h.json")
    jsonschema.validate(summary, SCHEMA)
    assert summary["samples"] == 0
    assert summary["energy"] is None
    assert "no hardware log" in summary["notes"][0]
    assert (tmp_path / "h.csv").read_text().startswith("model,monotonic_s,unix_s,source,")


def test_the_table_is_flat_and_leaves_the_unknown_empty(tmp_path):
    entries = [
        header(),
        sample(
            1.0, cpu_percent=[10, None, 30], cpu_freq_mhz=[729, None, 729], gpu_percent=None, gpu_freq_mhz=[0, 306],
            temperature_c={"cpu": 40.5}, power_mw={"VDD_IN": 4067}, engines={"APE": 150, "VIC": None}, raw="RAM ..",
            shared_with=["a", "b"],
        ),
        sample(2.0, ram_used_mb=5, shared_with=[]),
        sample(3.0, ram_used_mb=5),
    ]  # fmt: skip
    summary_of(tmp_path, entries)
    first, second, third = read_csv(tmp_path / "hardware.csv")
    assert [row["shared_with"] for row in (first, second, third)] == ["a; b", "nobody", ""]
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


def test_pending_logs_are_summarised_once(tmp_path):
    logs, results = tmp_path / "logs/hardware", tmp_path / "results"
    run = "MNIST/784-200-200-10/ff/seed1"
    entries = [header(), *powered(0, 3, {"VDD_IN": 1000.0})]
    train = write(logs / run / "train.jsonl", entries)
    write(logs / run / "measure.jsonl", entries)
    write(logs / run / "other.jsonl", entries)
    write_phases(results / run / "phases.csv", [("load", 1.0, 2.0)])
    write_phases(results / run / "variance/phases.csv", [("measure", 1.0, 2.5)])
    assert len(summarise_pending(logs, results)) == 2
    load = json.loads((results / run / "hardware.json").read_text())["energy"]["load"]
    assert load["total"]["gross_mj"] == 1000.0
    measure = json.loads((results / run / "variance/hardware.json").read_text())["energy"]["measure"]
    assert measure["total"]["gross_mj"] == 1500.0
    assert summarise_pending(logs, results) == []
    later = (results / run / "hardware.json").stat().st_mtime_ns + 10**9
    os.utime(train, ns=(later, later))
    assert summarise_pending(logs, results) == [results / run / "hardware.json"]
    assert summarise_pending(tmp_path / "none", results) == []


def test_an_output_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FFError, match="cannot write"):
        summarise(tmp_path / "x", json_path=tmp_path / "file/h.json")
