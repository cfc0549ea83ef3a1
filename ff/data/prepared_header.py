"""What a prepared set says of itself in its header, for jobs that may do without its images; imports no torch."""

import os
from pathlib import Path
from typing import NamedTuple

from ff.errors import FFError
from ff.files import read_about


class PreparedHeader(NamedTuple):
    """Of the set at `path`; `content` is the SHA-256 of its images and labels, `verify` how it is to be opened."""

    path: str | os.PathLike
    name: str
    content: str
    verify: bool


def read_header(path: str | os.PathLike, verify: bool = True) -> PreparedHeader:
    """The header of a prepared set; FFError when it is missing, is none, or is unverified while `verify` asks
    otherwise."""
    if not Path(path).exists():
        raise missing(path)
    try:
        meta = read_about(path)
        name, content, verified = (meta[key] for key in ("dataset", "content", "verified"))
    except (FFError, KeyError, TypeError) as error:
        raise FFError(f"{path} is not a prepared data set ({error}); delete it and run: ff prepare") from error
    if verify and not verified:
        raise unverified(path)
    return PreparedHeader(path, name, content, verify)


def missing(path: str | os.PathLike) -> FFError:
    """The error of a set that is not there."""
    return FFError(f"{path} does not exist; make it with: ff prepare {Path(path).stem}")


def unverified(path: str | os.PathLike) -> FFError:
    """The error of a set that may not be used as it is."""
    return FFError(
        f"{path} was made from files that are not the official bytes; "
        "allow it with verify: false (--verify false), or delete it and give the official files"
    )
