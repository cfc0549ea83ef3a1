"""Who else uses what is measured: energy is that of a whole device, whoever keeps it busy.

Two things can be known:

- Other jobs of ff on this machine. Each recorder of a job holds a lock (flock(2)) on a file of its own in
  /dev/shm/ff-UID, which all processes of a user share. The kernel drops the lock however the process ends, so a file
  that is not locked was left behind by a kill, and counts for nothing. Jobs of other users, and those without a
  recorder, are not seen.
- Other processes on a GPU, from NVML's list of them, less the job's own.

A process in a container is listed with the number that it has outside, where it cannot be looked up. Of those one
may be the job's own, and is taken for it as long as no other is known to be.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_ENDING = ".job"
_RENEW_S = 0.25


class Job(NamedTuple):
    """A job with a recorder: its name, the recorder's process, and the workflow that started a sidecar."""

    name: str
    pid: int
    workflow: int | None = None


class Presence:
    """A recorder's entry among those of this machine (under `root`), and a look at the others.

    Without enter() it only looks.
    """

    def __init__(self, root: str | os.PathLike = "/"):
        self._folder = Path(root, "dev/shm", f"ff-{os.getuid()}")
        self._own: tuple[Path, int] | None = None  # the file and its descriptor

    def enter(self, job: Job) -> None:
        """Be seen by others until leave(), or the end of this process. Raises OSError where that cannot be."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.lstat().st_uid != os.getuid():
            raise PermissionError(f"{self._folder} belongs to another user")
        file, name = tempfile.mkstemp(prefix=".", dir=self._folder)
        try:
            os.write(file, json.dumps(job._asdict()).encode())
            # Before it gets its name: to the others a file without a lock is one left behind.
            fcntl.flock(file, fcntl.LOCK_EX)
            own = Path(name).with_name(f"{os.getpid()}-{Path(name).name.lstrip('.')}{_ENDING}")
            Path(name).rename(own)
        except OSError:
            os.close(file)
            Path(name).unlink(missing_ok=True)
            raise
        self._own = own, file

    def others(self) -> list[Job] | None:
        """The other jobs of this user with a recorder; None where they cannot be known."""
        if not self._folder.parent.is_dir():
            return None
        try:
            own = self._own[0] if self._own is not None else None
            paths = [path for path in sorted(self._folder.glob(f"*{_ENDING}")) if path != own]
            return [job for path in paths if (job := _holder(path)) is not None]
        except OSError:
            return None

    def leave(self) -> None:
        """Be seen no longer; may be called at any time, more than once."""
        if self._own is not None:
            path, file = self._own
            with suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(file)
            self._own = None


def _holder(path: Path) -> Job | None:
    """The job that holds the file; None, and no file any more, where nobody does."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            # A shared lock, so that two who look at once do not take each other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return Job(**json.loads(os.read(file, 65536)))
            except (ValueError, TypeError):
                return Job("another job", 0)
        path.unlink(missing_ok=True)
        return None
    finally:
        os.close(file)


class Watch:
    """Names what a job shares its machine and its GPUs with, as of at most a quarter of a second ago.

    `pid` is the job's process when the job is in it (`alone`), else the workflow that started job and recorder: then
    one of the workflow's processes on a GPU is the job's.
    """

    def __init__(self, presence: Presence, pid: int, alone: bool):
        self._presence, self._pid, self._alone = presence, pid, alone
        self._renew_s = 0.0
        self._jobs: list[Job] | None = None

    def machine(self) -> list[str] | None:
        """Other jobs on this machine; [] for none, None where that cannot be known."""
        now = time.monotonic()
        if now >= self._renew_s:
            self._jobs, self._renew_s = self._presence.others(), now + _RENEW_S
        return None if self._jobs is None else beside(self._jobs, self._pid)

    def gpu(self, processes: Sequence[int] | None) -> list[str] | None:
        """Other processes on a GPU, of which NVML lists `processes`; None where it lists none of any kind."""
        return None if processes is None else foreign(processes, self._pid, self._alone)


def beside(jobs: Sequence[Job], pid: int) -> list[str]:
    """The names of the jobs other than that of process `pid`.

    Its own are recorders in the process itself, and one sidecar of a workflow that it is part of.
    """
    ancestors = set(lineage(pid)[1:])
    others = [job for job in jobs if job.pid != pid]
    kin = [job for job in others if job.workflow in ancestors]
    return [job.name for job in others if job not in kin[:1]]


def foreign(processes: Sequence[int], pid: int, alone: bool) -> list[str]:
    """The processes that are not the job's, by number and, where it can be seen, name; see Watch."""
    lineages = {number: lineage(number) for number in processes}
    inside = [number for number, line in lineages.items() if pid in line]
    hidden = [number for number, line in lineages.items() if not line]
    outside = [number for number, line in lineages.items() if line and pid not in line]
    others = outside + ([] if alone else inside[1:]) + (hidden if inside else hidden[1:])
    return [named(number) for number in sorted(others)]


def lineage(pid: int) -> list[int]:
    """The process and those it descends from, nearest first; [] where there is none with this number."""
    line: list[int] = []
    while pid > 0 and pid not in line:
        try:
            # proc(5): the second field is the command in parentheses, which may hold any character.
            parent = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
        line.append(pid)
        pid = parent
    return line


def named(pid: int) -> str:
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()})"
    except OSError:
        return f"process {pid}"
