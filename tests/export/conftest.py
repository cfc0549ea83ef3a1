"""A run on the real digits with its early exit, exported once."""

import shutil

import pytest
from made_networks import trained_on_digits


@pytest.fixture(scope="session")
def _exported(tmp_path_factory, digits):
    from ff.assess.early_exit import run_early_exit
    from ff.export.bundle import export_run

    folder = tmp_path_factory.mktemp("exported") / "DIGITS/784-60-60-10/ff/seed0"
    trained_on_digits(folder, digits)
    run_early_exit(folder, digits, repeats=1)
    export_run(folder, digits)
    return folder


@pytest.fixture
def exported(_exported, tmp_path):
    """The folder of a run with its bundle; the copy may be changed."""
    return shutil.copytree(_exported, tmp_path / "results/DIGITS/784-60-60-10/ff/seed0")
