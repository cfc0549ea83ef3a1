"""Files that are missing and cannot be fetched."""

import os

import pytest
from made_raw_data import (
    RAW,
    write_raw,
)

from ff.data.prepared import prepare
from ff.data.registry import DATASETS
from ff.errors import FFError


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", RAW)
def test_missing_files_give_one_sentence_with_all_that_helps(name, verify, tmp_path):
    with pytest.raises(FFError) as raised:
        prepare(name, str(tmp_path), tmp_path / "prepared", verify=verify, download=False)
    message = str(raised.value)
    assert "\n" not in message
    for part in (name, str(tmp_path), *DATASETS[name].files, "--data-dir", "FF_DATA_DIR", "snakemake --cores 1 demo"):
        assert part in message
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("verify", [True, False])
def test_one_missing_file_is_named_alone(tmp_path, official, verify):
    paths = write_raw(tmp_path, "MNIST")
    official("MNIST", paths)
    paths[3].unlink()
    with pytest.raises(FFError) as raised:
        prepare("MNIST", str(tmp_path), tmp_path / "prepared", verify=verify, download=False)
    assert f"MNIST: MNIST/raw/{paths[3].name} not found in" in str(raised.value)
    assert paths[2].name not in str(raised.value)


@pytest.mark.parametrize("name", RAW)
def test_an_unreachable_network_gives_the_same_sentence(name, tmp_path, warm):
    proxy = "http://127.0.0.1:9"
    environment = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy) | {"no_proxy": ""}
    done = warm(tmp_path, "prepare", name, "--data-dir", tmp_path / "raw", **environment)
    assert done.code == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ff: {name}: ")
    assert "could not be fetched" in last
    assert str(tmp_path / "raw") in last
    assert "snakemake --cores 1 demo" in last
    assert "Traceback" not in done.stderr


def test_a_data_folder_that_takes_no_files_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(FFError, match=r"SVHN.*Permission denied.*demo"):
        prepare("SVHN", str(tmp_path / "raw"), tmp_path / "prepared")
