"""Official files through torchvision.datasets, with its checksums and progress bar."""

import socket
from pathlib import Path

from ff.data.raw_files import missing_files, not_found
from ff.data.readers import READERS
from ff.data.registry import DATASETS
from ff.data.torchvision_ops import declare_missing_operators


def fetch(name: str, folder: Path) -> None:
    """Let torchvision fetch and unpack the files of data set `name`; FFError where they cannot be had."""
    declare_missing_operators()
    from torchvision import datasets

    facts = DATASETS[name]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        READERS[facts.reader].fetch(getattr(datasets, facts.torchvision), folder, facts.files[0])
    except (OSError, RuntimeError, ValueError) as error:
        why = f" and could not be fetched ({in_one_line(error)})"
        raise not_found(name, folder, missing_files(name, folder), why) from None
    finally:
        socket.setdefaulttimeout(timeout)


def in_one_line(error: BaseException) -> str:
    """What a library says went wrong, in a line of at most 200 characters."""
    # torchvision lists the addresses it tried, with their errors, over several lines.
    words = str(getattr(error, "reason", None) or error).split()
    return " ".join(words)[:200] or type(error).__name__
