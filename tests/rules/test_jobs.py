"""What surrounds a job: its log, where logs lie, and what is written after a failure."""

import subprocess
import sys

import pytest

from ff.jobs import after_failure, hardware_log, logs_folder, train_log

RUN = "DIGITS/784-20/ff/seed0"


@pytest.mark.parametrize(
    ("results", "logs"),
    [("results", "logs"), ("results/", "logs"), ("other", "other/logs"), ("/disk/results/", "/disk/results/logs")],
)
def test_each_results_folder_has_its_own_logs(results, logs):
    assert logs_folder(results) == logs
    assert hardware_log(results, RUN, "train") == f"{logs}/hardware/{RUN}/train.jsonl"
    fields = {"dataset": "DIGITS", "layers": "784-20", "recipe": "ff", "seed": 0}
    assert train_log(results).format(**fields) == f"{logs}/train/{RUN}.log"
    assert train_log(results, grouped=True).format(**fields) == f"{logs}/train/DIGITS/784-20/ff/group.log"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("print('hello')", 0, ""),
        ("raise FFError('no such thing; look there')", 1, "ff: no such thing; look there\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_a_job_logs_what_it_prints_and_explains_its_error_on_stderr(tmp_path, body, status, said):
    script = f"from ff.errors import FFError\nfrom ff.jobs import job\nwith job('logs/a/b.log'):\n    {body}\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stderr
    assert ("Traceback" in done.stderr) == (said == "ZeroDivisionError")
    if body.startswith("print"):
        assert (tmp_path / "logs/a/b.log").read_text() == "hello\n"
    elif "FFError" in body:
        assert (tmp_path / "logs/a/b.log").read_text() == said


def test_after_a_failure_only_collections_with_runs_get_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / RUN).mkdir(parents=True)
    log = tmp_path / f"logs/train/{RUN}.log"
    log.parent.mkdir(parents=True)
    log.write_text("ff: epoch 1\nff: training diverged: lower the learning rate\n")
    written = after_failure("results", {"": [RUN], "demo/": ["DIGITS/784-30/ff/seed0"]})
    assert "results/summary/missing.csv" in written
    assert not (tmp_path / "results/demo").exists()
    text = (tmp_path / "results/summary/missing.csv").read_text()
    assert "DIGITS,784-20,ff,0,metrics.json,training failed: training diverged: lower the learning rate" in text
    assert all((tmp_path / path).stat().st_mtime < 10 for path in written)


def test_after_a_failure_nothing_is_raised(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / RUN).mkdir(parents=True)
    (tmp_path / "results/summary").write_text("a file where a folder should be")
    assert after_failure("results", {"": [RUN]}) == []
    assert "ff: no tables of what is there" in capsys.readouterr().err
