"""The highest resident memory of this process."""

import os
import re
import resource
import sys
from pathlib import Path


def peak_host_mb(process: str | os.PathLike = "/proc/self") -> float:
    """Peak resident memory of this process in MB (2^20 bytes).

    Linux: VmHWM of proc(5), which a new program starts anew. Elsewhere ru_maxrss of getrusage(2) (bytes on macOS,
    kilobytes otherwise); on Linux that one is no use, since it survives exec: a small program that a large one started
    would report the large one's peak. `process` is where the kernel keeps the facts of this process.
    """
    try:
        mark = re.search(r"^VmHWM:\s+(\d+) kB", (Path(process) / "status").read_text(), re.MULTILINE)
    except OSError:
        mark = None
    if mark:
        return int(mark[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def reset_peak_host(process: str | os.PathLike = "/proc/self") -> bool:
    """Let the peak begin anew at what is resident now; False where the system cannot (Linux: proc(5), clear_refs 5)."""
    try:
        (Path(process) / "clear_refs").write_text("5")
    except OSError:
        return False
    return True
