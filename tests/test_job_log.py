"""The log of a job: what it printed, and the error that it ends with."""

import subprocess
import sys

import pytest

from ff.job_log import cause


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
    head = "import os\nfrom ff.errors import FFError\nfrom ff.job_log import job\n"
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


@pytest.mark.parametrize(
    ("body", "why"), [("print('so far')", None), ("raise FFError('no such thing')", "no such thing")]
)
def test_a_job_for_several_runs_leaves_its_log_for_each(tmp_path, body, why):
    head = "from ff.errors import FFError\nfrom ff.job_log import job\n"
    script = f"{head}with job('logs/a.log', 'logs/b/c.log'):\n    {body}\n"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    logs = [tmp_path / "logs/a.log", tmp_path / "logs/b/c.log"]
    assert logs[0].read_text() == logs[1].read_text() != ""
    assert [cause(log) for log in logs] == [why, why]


def test_of_several_errors_in_a_log_the_last_is_the_cause(tmp_path):
    (tmp_path / "a.log").write_text("ff: error: a try\nff: epoch 1\nff: error: what ended it,\n  in two lines\n")
    assert cause(tmp_path / "a.log") == "what ended it, in two lines"
