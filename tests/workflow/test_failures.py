"""What is said and written after a call in which jobs failed."""

from ff.layout import RunKey, train_log
from ff.workflow.failures import SHOWN, after_failure, explained

RUN = RunKey("DIGITS", "784-20", "ff", 0)


KILLED = "it left no error in its log"


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
