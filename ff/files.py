"""Files that are written whole or not at all, and the two text formats that ff writes.

Every writer here makes a temporary file in the target's own folder, flushes it to the disk, renames it over the target
(POSIX rename is atomic within a file system) and flushes the folder, so a crash leaves the old file or the new one, and
a file that a caller was told of survives a power cut.
"""

import csv
import errno
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff.errors import FFError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def write_through(path: str | os.PathLike, fill: Callable[[Path], object]) -> None:
    """Let `fill(temporary_path)` write a file, then flush it and rename it to `path`.

    Raises FFError when the disk is full, the folder is read-only or the path is otherwise unusable.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        os.close(handle)
        fill(temporary)
        with open(temporary, "rb+") as file:
            # mkstemp makes private files; results are meant to be read by the group as any other output is.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise FFError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove(path: str | os.PathLike) -> None:
    """Remove a file, if it is there, and what killed writers of it have left. Nobody else may be writing it."""
    path = Path(path)
    for file in (path, *path.parent.glob(f".{path.name}.*.tmp")):
        file.unlink(missing_ok=True)


def sync_folder(folder: str | os.PathLike) -> None:
    """Flush a folder's entries to the disk: a rename is in memory only until then (fsync(2))."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot; there the rename itself has reached the server.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def write_tensors(path: str | os.PathLike, tensors: "Mapping[str, Tensor]", about: Any) -> None:
    """Write tensors as safetensors, whole or not at all, with `about` as JSON under the metadata key `ff`.

    One key: safetensors does not keep the order of several, and the same content must give the same bytes.
    """
    from safetensors.torch import save_file

    _write_safetensors(path, save_file, tensors, about)


def write_arrays(path: str | os.PathLike, arrays: "Mapping[str, np.ndarray]", about: Any) -> None:
    """`write_tensors` of arrays that lie in one piece each, without torch."""
    from safetensors.numpy import save_file

    _write_safetensors(path, save_file, arrays, about)


def _write_safetensors(path: str | os.PathLike, save_file: Callable, tensors: Mapping[str, Any], about: Any) -> None:
    from safetensors import SafetensorError

    def fill(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, metadata={"ff": json.dumps(about)})
        except SafetensorError as error:
            # A full disk comes as an error of the library's own.
            raise OSError(str(error)) from error

    write_through(path, fill)


# The format's own limit on the length of a header (safetensors, README "Format").
_LONGEST_HEADER = 100_000_000


def read_about(path: str | os.PathLike) -> Any:
    """What `write_tensors` said about a file's tensors, from its header alone: imports no torch, checks no content.

    Raises FFError when the file is missing or is no such file.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
        return json.loads(header["__metadata__"]["ff"])
    except OSError as error:
        raise FFError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FFError(f"{path} was not written by ff ({error})") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as JSON, keys in the order given; NaN and infinities are refused, they are no JSON."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise FFError(f"cannot write {path}: it would hold a number that is not finite") from error
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; FFError names the file when it is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise FFError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FFError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def read_yaml(path: str | os.PathLike, what: str) -> Any:
    """Read a YAML file in UTF-8; `what` it is begins the sentence of the FFError for one that cannot be read."""
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FFError(f"cannot read {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is no UTF-8; save it as UTF-8"
        raise FFError(f"{what} {path} is not valid YAML: {reason}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        reason = (getattr(error, "problem", None) or str(error) or "nested too deeply").splitlines()[0]
        raise FFError(f"{what} {path} is not valid YAML{where}: {reason}") from error


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV text with a header line; None and NaN become empty cells, for what was not measured."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return buffer.getvalue()


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV with the columns in the order given."""
    write_text(path, csv_text(columns, rows))


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Read a CSV file with a header line into one dict per row (all values are text)."""
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise FFError(f"cannot read {path}: {error.strerror}") from error
