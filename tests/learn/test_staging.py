"""A new result takes an older one's place as a whole, and survives a power cut in between."""

import os

import pytest

from ff.files import write_text
from ff.learn.staging import begin, carry_on, publish


@pytest.fixture
def folder(tmp_path):
    """A run folder with an old result."""
    for name in ("model.safetensors", "metrics.json", "history.csv"):
        write_text(tmp_path / name, "old")
    return tmp_path


def write_new(folder):
    staged = begin(folder)
    for name in ("history.csv", "metrics.json", "model.safetensors"):
        write_text(staged / name, "new")
    return staged


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_the_old_result_stands_until_the_new_one_is_published(folder):
    old = contents(folder)
    write_new(folder)
    assert contents(folder) == old
    carry_on(folder)
    assert contents(folder) == old
    publish(folder)
    assert contents(folder) == dict.fromkeys(old, "new")
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_what_a_killed_writer_had_begun_is_not_taken_over(folder):
    (write_new(folder) / "surprise").write_text("of another model")
    write_new(folder)
    publish(folder)
    assert "surprise" not in contents(folder)


def test_the_new_result_has_its_name_on_the_disk_before_a_file_moves_the_model_first_and_metrics_last(
    folder, monkeypatch
):
    write_new(folder)
    done = []
    monkeypatch.setattr(os, "fsync", lambda _, real=os.fsync: done.append("flush") or real(_))
    monkeypatch.setattr(os, "replace", lambda a, b, real=os.replace: done.append(a.name) or real(a, b))
    publish(folder)
    # Its files, its name, its files' new places.
    assert done == ["flush", ".new", "flush", "model.safetensors", "history.csv", "metrics.json", "flush"]


def test_moves_that_were_cut_short_are_carried_on(folder, monkeypatch):
    write_new(folder)
    moves = []

    def dies(a, b, real=os.replace):
        moves.append(a)
        if len(moves) == 3:
            raise KeyboardInterrupt
        real(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            publish(folder)
    assert contents(folder) == {"model.safetensors": "new", "history.csv": "old", "metrics.json": "old"}
    carry_on(folder)
    assert set(contents(folder).values()) == {"new"}
