"""What all tests share: one thread, the real digits as a prepared set, and ways to run the command `ff`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ff_process import ff_command, ff_environment

# Before torch is imported, here and in every process that a test starts: tests run side by side on few cores, and
# the same bytes are promised for the same number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing of the user's own settings may reach a test.
os.environ.pop("FF_DATA_DIR", None)
# And nothing of a test what the user has cached: one folder for all tests and what they start, removed at the end.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="ff-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory) -> Path:
    """A folder with the prepared set DIGITS."""
    from ff.data.prepared import prepare

    folder = tmp_path_factory.mktemp("prepared")
    prepare("DIGITS", prepared_dir=folder)
    return folder


@pytest.fixture(scope="session")
def digits(prepared_dir):
    """The prepared set DIGITS, opened."""
    from ff.data.prepared import open_prepared

    return open_prepared(prepared_dir / "DIGITS.safetensors")


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    """A data root with MNIST, FashionMNIST, CIFAR10 and SVHN (the last two: not the official bytes), or a skip."""
    if os.environ.get("FF_TEST_DATA"):
        return Path(os.environ["FF_TEST_DATA"])
    unpack = REPOSITORY.parent / "shared" / "datasets" / "unpack.py"
    if not unpack.exists():
        pytest.skip(f"no real data: FF_TEST_DATA is not set and {unpack} does not exist")
    root = tmp_path_factory.mktemp("data")
    done = subprocess.run([sys.executable, unpack, root], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{unpack} failed: {done.stderr.strip().splitlines()[-1:]}")
    return root


@pytest.fixture(scope="session")
def warm() -> Iterator:
    """A process that has torch loaded and forks a fresh `ff` process for each call."""
    from warm_ff import Warm

    with Warm() as process:
        yield process


@pytest.fixture
def ff(tmp_path):
    """Run the command `ff` in a process of its own, as a shell would: ff("train", "--seed", "1")."""

    def run(*arguments: object, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ff_command(*arguments),
            cwd=tmp_path,
            env=ff_environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
