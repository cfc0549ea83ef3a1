"""What surrounds a job: its log, and what is said and written after a failure."""

import subprocess
import sys

import pytest

from ff.layout import RunKey, train_log
from ff.workflow.failures import SHOWN, after_failure, explained
from ff.workflow.jobs import cause

RUN = RunKey("DIGITS", "784-20", "ff", 0)


KILLED = "it left no error in its log"


@pytest.mark.parametrize(
    ("body", "status", "said", "why"),
    [
        ("pass", 0, "", None),
        (
            "raise FFError('no such thing; look there')",
            1,
            "ff: no such thing; look there\n",
            "no such thing; look there",
        ),
        ("1 / 0", 1, "ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", 1, "ValueError", "ValueError: two lines"),
        ("os.kill(os.getpid(), 9)", -9, "", None),
    ],
)
def test_a_job_logs_what_it_prints_and_ends_its_log_with_its_error(tmp_path, body, status, said, why):
    head = "import os\nfrom ff.errors import FFError\nfrom ff.workflow.jobs import job\n"
    script = f"{head}with job('logs/a/b.log'):\n    print('ff: epoch 1')\n    {body}\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stderr
    assert ("Traceback" in done.stderr) == (why is not None and "Error: " in why)
    log = tmp_path / "logs/a/b.log"
    assert log.read_text().startswith("ff: epoch 1\n")
    assert ("Traceback" in log.read_text()) == ("Traceback" in done.stderr)
    # What an earlier line says is not taken for the error of a job that was killed.
    assert cause(log) == why


def test_of_several_errors_in_a_log_the_last_is_the_cause(tmp_path):
    (tmp_path / "a.log").write_text("ff: error: a try\nff: epoch 1\nff: error: what ended it,\n  in two lines\n")
    assert cause(tmp_path / "a.log") == "what ended it, in two lines"


def test_each_cause_is_told_once_with_its_first_job_and_log(tmp_path):
    for name, text in {
        "a": "ff: epoch 1\nff: error: no data; fetch it\n",
        "b": "ff: error: no data; fetch it\n",
        "c": "ff: epoch 1\n",
    }.items():
        (tmp_path / name).write_text(text)
    failed = [(f"train {name}", str(tmp_path / name)) for name in "cbad"]
    lines = explained(failed)
    assert lines[0] == f"failed: train a and 1 more: no data; fetch it ({tmp_path}/a)"
    assert lines[1].startswith(f"failed: train c and 1 more: {KILLED}")
    assert lines[1].endswith(f"({tmp_path}/c)")
    assert len(lines) == 2


def test_many_causes_are_counted_not_listed(tmp_path):
    for number in range(SHOWN + 3):
        (tmp_path / f"{number:02}").write_text(f"ff: error: cause {number}\n")
    lines = explained((f"train {path.name}", str(path)) for path in tmp_path.iterdir())
    assert len(lines) == SHOWN + 1
    assert lines[-1] == "failed: 3 more, for other reasons"
    assert explained([]) == []


def test_after_a_failure_only_collections_with_runs_get_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RUN.folder(tmp_path / "results").mkdir(parents=True)
    log = tmp_path / train_log("results", RUN)
    log.parent.mkdir(parents=True)
    log.write_text("ff: epoch 1\nff: error: training diverged: lower the learning rate\n")
    written = after_failure("results", {"": [RUN], "demo/": [RUN._replace(layers="784-30")]})
    assert "results/summary/missing.csv" in written
    assert not (tmp_path / "results/demo").exists()
    text = (tmp_path / "results/summary/missing.csv").read_text()
    assert "DIGITS,784-20,ff,0,metrics.json,training failed: training diverged: lower the learning rate" in text
    assert all((tmp_path / path).stat().st_mtime < 10 for path in written)


def test_after_a_failure_nothing_is_raised(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    RUN.folder(tmp_path / "results").mkdir(parents=True)
    (tmp_path / "results/summary").write_text("a file where a folder should be")
    assert after_failure("results", {"": [RUN]}) == []
    assert "ff: no tables of what is there" in capsys.readouterr().err
