"""Deliberate faults, put one at a time into a copy of the project: which of them do the tests notice?

    python tests/faults.py [--area AREA] [--only TEXT] [--jobs N] [--list]

The faults stand in tests/faults/AREA.yaml, each with these keys:

    name          one sentence that says what the fault does
    file          the file that gets it
    text          what is replaced; occurs exactly once in the file
    replacement   what takes its place
    tests         pytest arguments, separated by spaces: the smallest set that shows it
    harmless      only where no test can notice: why

`text` and `replacement` are written without the indentation of their first line, which the lines below it get too;
a text that begins with a space is taken as it stands. The copy holds what git tracks or would track. Each distinct
set of tests first runs without a fault. A fault is

    caught     its tests fail, or do not end within the time limit
    SURVIVED   its tests pass
    harmless   its tests pass, and the list says why they must
    broken     the text is not there exactly once, the tests fail or do nothing without the fault, none of them runs
               with it, or it is called harmless and is not

and the exit status is 1 where anything survived or is broken. Importing torch and its like takes longer than most of
the tests: each of N processes does it once, in a copy of its own, and forks for every run. ff is only ever imported in
the forks.
"""

import argparse
import compileall
import contextlib
import importlib
import multiprocessing
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
LISTS = REPOSITORY / "tests" / "faults"
KEYS = {"name", "file", "text", "replacement", "tests"}
PYTEST = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-profile=faults")
# What the tests use and takes long to import.
WARM = ("hypothesis", "matplotlib.figure", "pandas", "safetensors.torch", "scipy.stats", "sklearn.metrics", "torch")
# A fault that makes the tests hang is stopped after this and so many times what they take without it.
LIMIT_SECONDS, LIMIT_TIMES = 30, 5
# pytest's exit statuses (its reference, "Exit codes").
PASSED, FAILED = 0, 1


class ListError(Exception):
    """A list of faults that cannot be used; the message names the entry."""


@dataclass(frozen=True)
class Fault:
    """One entry of a list."""

    area: str
    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]
    harmless: str | None = None

    def apply(self, source: str) -> str:
        """`source` with the fault in it; ListError unless the text occurs exactly once, or where it changes nothing."""
        places = list(occurrences(source, self.text))
        if len(places) != 1:
            raise ListError(f"{self.area}: {self.name!r}: its text occurs {len(places)} times in {self.file}, not once")
        [(start, end, indentation)] = places
        faulty = source[:start] + indented(self.replacement, indentation) + source[end:]
        if faulty == source:
            raise ListError(f"{self.area}: {self.name!r}: its replacement is its text")
        return faulty


def indented(text: str, indentation: str) -> str:
    """`text` with `indentation` before each line but the first."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(indentation + line if line else line for line in rest)])


def occurrences(source: str, text: str) -> Iterator[tuple[int, int, str]]:
    """Where `text` stands in `source`: start, end, and the indentation that its lines have there."""
    first = text.split("\n")[0]
    for match in re.finditer(re.escape(first), source):
        line = source[source.rfind("\n", 0, match.start()) + 1 :]
        indentation = "" if first.startswith(" ") else line[: len(line) - len(line.lstrip(" "))]
        whole = indented(text, indentation)
        if source.startswith(whole, match.start()):
            yield match.start(), match.start() + len(whole), indentation


def read_lists(folder: Path = LISTS) -> list[Fault]:
    """All faults of all lists; ListError where an entry is not one, or two of an area have one name."""
    faults = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            entries = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or []
        except yaml.YAMLError as error:
            raise ListError(f"{path.name} is not YAML: {error}") from error
        for entry in entries:
            keys = set(entry) if isinstance(entry, dict) else set()
            if not keys >= KEYS or keys - KEYS - {"harmless"} or not all(isinstance(v, str) for v in entry.values()):
                raise ListError(f"{path.name}: an entry needs the texts {', '.join(sorted(KEYS))}; not {entry!r}")
            faults.append(Fault(path.stem, **entry | {"tests": tuple(entry["tests"].split())}))
    for (area, name), count in Counter((fault.area, fault.name) for fault in faults).items():
        if count > 1:
            raise ListError(f"{area}: {count} faults are called {name!r}")
    return faults


def copy_project(target: Path) -> None:
    """Copy what git tracks or would track; compiled files are held against their source, not its time."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        # Tracked, and removed in the working tree: not there.
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    # A fault may leave a file's size and, within a second, its time as they were.
    for folder in ("ff", "workflow"):
        compileall.compile_dir(target / folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


# -- in a worker process ----

_copy: Path


def start_worker(folder: str) -> None:
    """Make this worker's copy, and import what is to be warm."""
    global _copy
    # An interrupt is for the parent, which stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _copy = Path(folder, str(os.getpid()), "ff")
    copy_project(_copy)
    for module in WARM:
        importlib.import_module(module)
    assert "ff" not in sys.modules


class Outcome(NamedTuple):
    """How a run of tests ended: pytest's status (None: stopped at the time limit), seconds, and what it printed."""

    status: int | None
    seconds: float
    output: str

    @property
    def witness(self) -> str:
        """The first test that failed."""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.output, re.MULTILINE)
        return found.group(1) if found else f"exit status {self.status}"


def run_tests(tests: Sequence[str], limit: float) -> Outcome:
    """Run pytest on the worker's copy, in a fork and a process group of its own."""
    start, output = time.monotonic(), _copy.parent / "output.txt"
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            status = _pytest(tests, output)
        finally:
            os._exit(status)
    status = _wait(child, start + limit)
    # Also what the tests may have left running.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    return Outcome(status, time.monotonic() - start, output.read_text(errors="replace") if output.exists() else "")


def _wait(child: int, until: float) -> int | None:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def _pytest(tests: Sequence[str], output: Path) -> int:
    """In the fork: become a pytest process of the copy."""
    import pytest
    from hypothesis import Phase, settings

    # The same examples each time, and none made smaller: that a test fails is enough.
    settings.register_profile("faults", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(handle, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(_copy)
    os.environ["PYTHONPATH"] = str(_copy)
    sys.path[:] = [str(_copy), *(path for path in sys.path if not Path(path).resolve().is_relative_to(REPOSITORY))]
    try:
        return int(pytest.main([*PYTEST, f"--basetemp={_copy.parent / 'tests'}", *tests]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run_faulty(fault: Fault, limit: float) -> Outcome:
    """Run the fault's tests with it in the worker's copy."""
    path = _copy / fault.file
    sound = path.read_bytes()
    path.write_text(fault.apply(sound.decode()))
    try:
        return run_tests(fault.tests, limit)
    finally:
        path.write_bytes(sound)


# -- in the process that was started ----


class Verdict(NamedTuple):
    """What became of a fault, and what shows it."""

    word: str
    why: str


def unusable(fault: Fault) -> str | None:
    """Why the fault cannot be put in, if it cannot."""
    path = REPOSITORY / fault.file
    if not path.is_file():
        return f"{fault.file} does not exist"
    try:
        faulty = fault.apply(path.read_text())
        if path.suffix == ".py":
            compile(faulty, fault.file, "exec")
    except ListError as error:
        return str(error)
    except SyntaxError as error:
        return f"is no Python any more: {error}"
    return None


def judge(fault: Fault, sound: Outcome, faulty: Outcome) -> Verdict:
    """The verdict from the runs without and with the fault."""
    if sound.status != PASSED or not re.search(r"\d+ passed", sound.output):
        return Verdict("broken", f"without the fault: {last_line(sound)}")
    if faulty.status == PASSED:
        return Verdict("harmless", fault.harmless) if fault.harmless else Verdict("SURVIVED", " ".join(fault.tests))
    if faulty.status is not None and faulty.status > FAILED:
        return Verdict("broken", f"no test runs with it: {last_line(faulty)}")
    why = "time limit" if faulty.status is None else faulty.witness
    return Verdict("broken", f"called harmless, and caught by {why}") if fault.harmless else Verdict("caught", why)


def last_line(outcome: Outcome) -> str:
    """What a run of tests said last."""
    lines = outcome.output.strip().splitlines()
    return lines[-1] if lines else f"exit status {outcome.status}"


def limit_of(sound: Outcome) -> float:
    """Seconds that the tests may take with a fault."""
    return LIMIT_SECONDS + LIMIT_TIMES * sound.seconds


def report(number: int, total: int, fault: Fault, verdict: Verdict, seconds: float) -> None:
    """One line for one fault."""
    print(
        f"[{number}/{total}] {verdict.word:8} {fault.area}: {fault.name}  ({verdict.why}; {seconds:.1f} s)", flush=True
    )


def run(faults: Sequence[Fault], jobs: int) -> list[tuple[Fault, Verdict]]:
    """Put in each fault and report what became of it; gives the verdicts in the order of their ends."""
    verdicts: list[tuple[Fault, Verdict]] = []

    def told(fault: Fault, verdict: Verdict, seconds: float = 0.0) -> None:
        verdicts.append((fault, verdict))
        report(len(verdicts), len(faults), fault, verdict, seconds)

    usable = []
    for fault in faults:
        reason = unusable(fault)
        if reason is None:
            usable.append(fault)
        else:
            told(fault, Verdict("broken", reason))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=start_worker, initargs=(folder,))
        try:
            sets = list(dict.fromkeys(fault.tests for fault in usable))
            print(f"{len(sets)} sets of tests without a fault", flush=True)
            sound = dict(zip(sets, pool.map(run_tests, sets, [300.0] * len(sets)), strict=True))
            runs: dict[Future, Fault] = {
                pool.submit(run_faulty, fault, limit_of(sound[fault.tests])): fault for fault in usable
            }
            for done in as_completed(runs):
                fault, faulty = runs[done], done.result()
                told(fault, judge(fault, sound[fault.tests], faulty), faulty.seconds)
        finally:
            pool.shutdown(cancel_futures=True)
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--area", action="append", help="only the faults of tests/faults/AREA.yaml; may be repeated")
    parser.add_argument("--only", metavar="TEXT", action="append", help="only faults whose name has TEXT in it")
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with a copy of its own (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the names and do nothing")
    options = parser.parse_args(arguments)
    # Before torch is imported: as in the tests' conftest.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        faults = [
            fault
            for fault in read_lists()
            if (not options.area or fault.area in options.area)
            and (not options.only or any(text in fault.name for text in options.only))
        ]
    except ListError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 1
    if not faults:
        print("faults: no fault has such a name or area", file=sys.stderr)
        return 1
    if options.list:
        print(*(f"{fault.area}: {fault.name}" for fault in faults), sep="\n")
        return 0
    start = time.monotonic()
    verdicts = run(faults, max(1, options.jobs))
    counts = Counter(verdict.word for _, verdict in verdicts)
    print(
        f"\n{len(faults)} faults in {time.monotonic() - start:.0f} s: "
        + ", ".join(f"{n} {w}" for w, n in counts.items())
    )
    for fault, verdict in verdicts:
        if verdict.word != "caught":
            print(f"  {verdict.word}: {fault.area}: {fault.name}: {verdict.why}")
    return 1 if counts["SURVIVED"] or counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
