"""The peak of a process's memory: of what it held, not of what it holds or might have held."""

import subprocess
import sys

from ff_process import ff_environment

HELD = """
import mmap
from ff.memory import peak_host_mb

before = peak_host_mb()
never_touched = mmap.mmap(-1, 4 * 2**30)
block = bytearray(512 * 2**20)
block[::4096] = b"x" * len(block[::4096])
del block
print(before, peak_host_mb())
"""


def test_the_peak_is_of_memory_that_was_in_use_and_counts_what_was_given_back():
    done = subprocess.run(
        [sys.executable, "-c", HELD], env=ff_environment(), capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split())
    assert 2 < before < 200
    # 512 MiB more; a thousand kilobytes to the megabyte would be 12 more than that.
    assert abs(after - before - 512) < 6
