"""Files are written whole or not at all, and hold what can be read back."""

import math
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch
from ff_process import ff_environment
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from ff.errors import FFError
from ff.files import (
    csv_text,
    read_csv,
    read_json,
    write_bytes,
    write_csv,
    write_json,
    write_tensors,
    write_text,
    write_through,
)

KILLED_BEFORE_RENAME = """
import os, signal, sys
from ff.files import write_text
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_text(sys.argv[1], "new " * 100_000)
"""
DISK_IS_FULL = """
import resource, sys, torch
from ff.errors import FFError
from ff.files import write_tensors, write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda: write_text(sys.argv[1], "new " * 1000),
              lambda: write_tensors(sys.argv[1], {"a": torch.zeros(1000)}, {})):
    try:
        write()
    except FFError as error:
        print(error)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=ff_environment(), capture_output=True, text=True, timeout=60)


def test_a_kill_between_writing_and_renaming_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert run(KILLED_BEFORE_RENAME, path).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    # It really had written the new one.
    [left] = [file for file in tmp_path.iterdir() if file != path]
    assert left.read_text() == "new " * 100_000


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_text("old")
    done = run(DISK_IS_FULL, path)
    assert done.stderr == ""
    sentences = done.stdout.splitlines()
    assert len(sentences) == 2
    assert all(str(path) in sentence and "free space" in sentence for sentence in sentences)
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_text() == "old"


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fill(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_through(tmp_path / "a", fill)
    assert list(tmp_path.iterdir()) == []


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda _, real=os.fsync: done.append("fsync") or real(_))
    monkeypatch.setattr(os, "replace", lambda *_, real=os.replace: done.append("replace") or real(*_))
    write_text(tmp_path / "a", "text")
    # And the folder's entry after it, or a power cut could take the name away again.
    assert done == ["fsync", "replace", "fsync"]


def test_folders_are_made_and_permissions_are_those_of_other_files(tmp_path):
    path = tmp_path / "x" / "y" / "a.bin"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FFError, match=r"cannot write .*a/b\.txt"):
        write_text(tmp_path / "a" / "b.txt", "x")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_holds_finite_numbers_only(tmp_path, number):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(FFError, match=r"a\.json.*not finite"):
        write_json(path, {"a": [number]})
    assert read_json(path) == {"a": 1}


def test_json_keeps_order_and_numbers(tmp_path):
    value = {"z": 0.1, "a": [None, True, 3], "text": "ü"}
    write_json(tmp_path / "a.json", value)
    assert list(read_json(tmp_path / "a.json").items()) == list(value.items())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": }'])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FFError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_missing_files_are_named(tmp_path):
    for read in (read_json, read_csv):
        with pytest.raises(FFError, match="nowhere"):
            read(tmp_path / "nowhere")


def test_what_was_not_measured_is_an_empty_cell_and_zero_is_zero(tmp_path):
    rows = [{"a": None, "b": 0}, {"a": math.nan, "b": 0.0}, {"b": False}]
    write_csv(tmp_path / "a.csv", ["a", "b"], rows)
    assert (tmp_path / "a.csv").read_text() == "a,b\n,0\n,0.0\n,False\n"
    assert read_csv(tmp_path / "a.csv")[0] == {"a": "", "b": "0"}


@given(
    st.lists(
        st.fixed_dictionaries({"a": st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"))}), max_size=5
    )
)
def test_any_text_comes_back_from_csv(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "text.csv"
    write_csv(path, ["a", "b"], [row | {"b": 1} for row in rows])
    assert [row["a"] for row in read_csv(path)] == [row["a"] for row in rows]


@given(st.floats(allow_nan=False))
def test_numbers_come_back_from_csv_exactly(number):
    [_, cell] = csv_text(["a"], [{"a": number}]).splitlines()
    assert float(cell) == number


def test_tensors_carry_what_is_said_about_them_and_give_the_same_bytes(tmp_path):
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    write_tensors(tmp_path / "1", tensors, {"x": 1, "y": [2]})
    write_tensors(tmp_path / "2", tensors, {"x": 1, "y": [2]})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with safe_open(tmp_path / "1", framework="pt") as file:
        assert file.metadata() == {"ff": '{"x": 1, "y": [2]}'}
        assert torch.equal(file.get_tensor("b"), tensors["b"])
