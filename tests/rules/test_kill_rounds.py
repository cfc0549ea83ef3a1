"""A few of the rounds of kill_rounds.py, whose command line runs as many as one likes."""

import pytest
from kill_rounds import main


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sidecar", ["service", "inline"])
def test_nothing_is_lost_when_processes_are_killed(sidecar, tmp_path):
    assert main(["--rounds", "8", "--seed", "1", "--sidecar", sidecar, "--keep", str(tmp_path / "kill")]) == 0
