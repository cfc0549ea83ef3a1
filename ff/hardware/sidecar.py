"""The recorder as a process of its own, beside a job:

    exec python -m ff.hardware.sidecar --parent PID --ready FILE --log FILE --interval-ms 500

Made for Snakemake's service(), which starts it before the job, waits for the ready file, and ends it by SIGTERM when
the job succeeded and by SIGKILL when it failed. So the ready file comes first, every line is written at once, and the
exit status is 0 whatever happened. SIGKILL of Snakemake would leave an orphan: the kernel is asked to signal the death
of the parent, and the parent is looked at twice a second where it cannot.

Python takes a tenth of a second to get here, and the parent may be gone by then. Who it was is not to be found out
any more: an orphan's new parent looks like any other. So --parent says it, and the sidecar ends at once when its
parent is another. Without --parent it ends when that is process 1, or belongs to another session: whoever adopts
orphans does, and a parent does not, as a session passes to its children.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Record until SIGTERM or the parent's death; returns 0."""
    found = os.getppid()
    args = _parser().parse_args(argv)
    parent = found if args.parent is None else args.parent
    if parent != found or (args.parent is None and _adopted(parent)):
        _say("not started: the process that asked for it is gone (--parent says which that is)")
        return 0
    if args.ready:
        with suppress(OSError):
            Path(args.ready).parent.mkdir(parents=True, exist_ok=True)
            Path(args.ready).touch()
    try:
        _record(args, parent)
    except Exception as error:
        _say(f"the sidecar ends: {type(error).__name__}: {error}")
    return 0


def _adopted(parent: int) -> bool:
    """Whether `parent`, which is ours now, must have taken us over; what started its own session cannot tell."""
    try:
        session = os.getsid(0)
        return parent == 1 or (session != os.getpid() and os.getsid(parent) != session)
    except OSError:
        return True  # it is gone since


def _say(text: str) -> None:
    with suppress(Exception):
        print(f"ff hardware: {text}", file=sys.stderr, flush=True)


def _record(args: argparse.Namespace, parent: int) -> None:
    # Before anything slow: until the handlers are there, a signal would end the process with a status of its own.
    early: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, _: early.append(signum))
    # The kernel signals the end of the thread that started us, which need not be the end of the process: so the signal
    # is one that only wakes the loop, which then looks whether the parent is still the same.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal_parents_death(signal.SIGUSR1)
    if os.getppid() != parent:  # it went before the kernel knew whom to tell
        return

    from ff.hardware.recorder import Recorder

    recorder = Recorder(
        args.log,
        args.interval_ms,
        args.root,
        mode="service",
        alive=lambda: os.getppid() == parent,
    )

    def end(number: int, _=None) -> None:
        recorder.stop(f"ended by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    if early:
        end(early[0])
    recorder.run()


def signal_parents_death(number: int) -> None:
    """prctl(2); where there is none, the look at the parent twice a second remains."""
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ff.hardware.sidecar", description=__doc__.split("\n")[0])
    parser.add_argument("--parent", type=int, metavar="PID", help="the process that starts it and whose end ends it")
    parser.add_argument("--ready", help="file to create first thing, to say that the sidecar runs")
    parser.add_argument("--log", required=True, help="JSON lines are appended here")
    parser.add_argument("--interval-ms", type=int, default=500, help="time between two samples (default 500)")
    parser.add_argument("--root", default="/", help="where the files of the machine are looked up (default /)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
