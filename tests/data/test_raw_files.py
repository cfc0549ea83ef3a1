"""What a prepared set was made from, and when that is not what is asked for any more."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_raw_data import idx, made_images, write_raw
from safetensors.torch import load_file, save_file

from ff.data import raw_files
from ff.data.prepared import open_or_prepare, prepare, prepared_path, why_outdated
from ff.data.raw_files import OFFICIAL, data_folder, describe, recorded, wanted_source
from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.files import read_about, write_tensors


@pytest.fixture
def place(tmp_path, monkeypatch, official):
    """Two folders of raw MNIST with other images, `one` (which counts as official) and `other`; to work in."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "other"):
        images, *_ = paths = write_raw(tmp_path / name, "MNIST")
        images.write_bytes(idx(made_images(40, 28, 28, seed=len(name))))
        if name == "one":
            official("MNIST", paths)
    return tmp_path


def opened(folder="", verify=False, download=False):
    return open_or_prepare("MNIST", folder, "prepared", verify, download)


def content(folder):
    return prepare("MNIST", folder, f"alone-{folder}", verify=False, download=False).content


# -- precedence ----


def test_the_command_line_wins_over_the_environment_over_a_file_over_the_default(monkeypatch):
    monkeypatch.delenv("FF_DATA_DIR", raising=False)
    assert data_folder() == Path("data")
    assert data_folder(None, "file") == Path("file")
    monkeypatch.setenv("FF_DATA_DIR", "environment")
    assert data_folder() == data_folder(None, "file") == Path("environment")
    assert data_folder("line", "file") == Path("line")
    monkeypatch.setenv("FF_DATA_DIR", "")
    assert data_folder(None, "file") == Path("file")


def test_torch_is_not_imported_to_ask_what_a_set_was_made_from():
    code = "import sys, ff.data.raw_files, ff.settings; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


# -- another folder ----


def test_a_prepared_set_records_where_it_came_from(place):
    prepare("MNIST", "other", "prepared", verify=False, download=False)
    about = read_about(prepared_path("MNIST", "prepared"))
    assert about["source_folder"] == str(place / "other")
    assert {file: entry["md5"] for file, entry in about["source_files"].items()} == {
        file: hashlib.md5((place / "other" / file).read_bytes()).hexdigest() for file in DATASETS["MNIST"].files
    }
    assert about["source"] != OFFICIAL
    prepare("MNIST", "one", "prepared", verify=True, download=False)
    assert recorded(prepared_path("MNIST", "prepared"))["source"] == OFFICIAL


def test_another_folder_is_honoured_both_ways(place):
    contents = {name: content(name) for name in ("one", "other")}
    assert contents["one"] != contents["other"]
    for name in ("one", "other"):
        # As in two archives that were unpacked with the times of their files.
        for file in DATASETS["MNIST"].files:
            os.utime(place / name / file, (1_000_000_000, 1_000_000_000))
    for name in ("one", "other", "one"):
        assert opened(name).content == contents[name]


def test_where_no_folder_is_said_what_is_prepared_will_do(place):
    before = opened("other").content
    assert opened().content == before
    # The default that nobody asked for, without any files in it.
    assert opened("data").content == before
    shutil.copytree("one", "data")
    assert opened("data").content != before


def test_an_equal_copy_is_the_same_source(place):
    before = prepared_path("MNIST", "prepared")
    opened("other")
    stamp = before.stat().st_mtime_ns
    shutil.copytree("other", "copy")
    Path("link").symlink_to("other")
    for name in ("copy", "link", str(place / "other")):
        opened(name)
    assert before.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("part", range(4))
def test_a_changed_file_is_another_source(place, part):
    before = opened("other").content
    path = place / "other" / DATASETS["MNIST"].files[part]
    data = bytearray(path.read_bytes())
    data[-1] = data[-1] ^ 1
    path.write_bytes(data)
    assert opened("other").content != before


def test_a_folder_without_the_files_is_no_reason_to_keep_others(place):
    opened("other")
    with pytest.raises(FFError, match=r"not found in .*/empty"):
        opened("empty")


def test_official_files_that_are_gone_are_no_reason_to_fetch_them_again(place):
    before = opened("one", verify=True).content
    assert opened("empty", verify=True, download=True).content == before


def test_files_that_have_not_changed_are_not_read_again(place, monkeypatch):
    opened("other")
    read = []
    monkeypatch.setattr(raw_files, "md5_of", lambda path: read.append(path) or "0" * 32)
    opened("other")
    assert read == []
    os.utime(place / "other" / DATASETS["MNIST"].files[1])
    wanted_source("MNIST", Path("other"), prepared_path("MNIST", "prepared"))
    assert read == [Path("other") / DATASETS["MNIST"].files[1]]


# -- verify ----


def test_verify_is_honoured_once_a_set_is_prepared(place):
    opened("other")
    with pytest.raises(FFError, match="not the official file"):
        opened("other", verify=True)
    assert opened("one", verify=True).verified
    # Official bytes do whether or not they are asked for.
    stamp = prepared_path("MNIST", "prepared").stat().st_mtime_ns
    assert opened("one").verified
    assert prepared_path("MNIST", "prepared").stat().st_mtime_ns == stamp


def test_other_files_that_are_asked_for_are_refused_though_official_ones_are_prepared(place):
    opened("one", verify=True)
    with pytest.raises(FFError, match="not the official file"):
        opened("other", verify=True)


def test_without_a_folder_an_unverified_set_is_refused_not_replaced(place):
    opened("other")
    with pytest.raises(FFError, match="not the official bytes; allow it with verify: false"):
        opened("", verify=True)
    assert prepared_path("MNIST", "prepared").exists()


def test_why_a_set_is_outdated_names_the_set_and_the_folder(place):
    opened("other")
    arguments = ("MNIST", "one", "prepared", False)
    assert why_outdated(*arguments) == "prepared/MNIST.safetensors was made from other files than those in one"
    assert "official" in why_outdated("MNIST", "other", "prepared", True)
    assert why_outdated("MNIST", "other", "prepared", False) is None
    assert why_outdated("MNIST", "", "prepared", True) is None


# -- sets of other kinds ----


def test_digits_need_no_folder(prepared_dir, tmp_path):
    path = prepared_path("DIGITS", prepared_dir)
    stamp = path.stat().st_mtime_ns
    open_or_prepare("DIGITS", str(tmp_path), prepared_dir)
    assert path.stat().st_mtime_ns == stamp
    assert describe("DIGITS", tmp_path)["source"] == OFFICIAL


def test_a_part_of_cifar10_stays_what_it_is(tmp_path):
    paths = write_raw(tmp_path / "raw", "CIFAR10")
    paths[1].unlink()
    arguments = ("CIFAR10", str(tmp_path / "raw"), tmp_path / "prepared", False, False)
    first = open_or_prepare(*arguments)
    stamp = prepared_path("CIFAR10", tmp_path / "prepared").stat().st_mtime_ns
    assert open_or_prepare(*arguments).content == first.content
    assert prepared_path("CIFAR10", tmp_path / "prepared").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("text", [b"", b"\x10", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 40])
def test_a_damaged_set_has_no_record(tmp_path, text):
    path = tmp_path / "MNIST.safetensors"
    path.write_bytes(text)
    assert recorded(path) is None
    assert recorded(tmp_path / "none") is None


def test_a_set_that_does_not_say_what_it_was_made_from_is_made_again(place):
    opened("other")
    path = prepared_path("MNIST", "prepared")
    about = {key: value for key, value in read_about(path).items() if not key.startswith("source")}
    save_file(load_file(path), path, {"ff": json.dumps(about | {"content": "older"})})
    assert opened("other").content != "older"
    assert read_about(path)["source_folder"] == str(place / "other")


# -- where a result is already there ----


def test_a_finished_run_of_other_images_is_not_the_same(place, warm):
    def train(*more):
        return warm(
            place,
            *("train", "--dataset", "MNIST", "--layers", "784,12", "--rep-epochs", 1, "--softmax-epochs", 1),
            *("--val-size", 8, "--train-batch-size", 8, "--verify", "false", "--download", "false", *more),
        )

    assert train("--data-dir", "one").code == 0
    assert "nothing to do" in train("--data-dir", "one").stderr
    refused = train("--data-dir", "other")
    assert refused.code == 1
    assert "made from other files than those in other" in refused.stderr
    assert train("--data-dir", "other", "--overwrite").code == 0
    assert "nothing to do" in train("--data-dir", "other").stderr


def test_a_set_of_an_earlier_version_that_is_verified_will_do(place):
    """It does not say where its files lay; nothing is fetched for it, as nobody has said where the data is."""
    opened("one", verify=True)
    path = Path("prepared/MNIST.safetensors")
    about = {key: value for key, value in read_about(path).items() if not key.startswith("source")}
    write_tensors(path, load_file(path), about)
    assert why_outdated("MNIST", "data", "prepared") is None
    assert opened("data", verify=True).verified
