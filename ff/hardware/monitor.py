"""`ff monitor`: watch the hardware of this machine, or read a recorded tegrastats log.

On a terminal the readings are redrawn in place; elsewhere each is a line, of text or (--json) of JSON. The readings are
those of the recorder, from the same sources (docs/hardware.md says what each field is); the source `monitor` is what
the monitor itself takes of a processor. --replay reads a file of tegrastats lines instead (lines that start with #
are skipped) and prints one JSON object per line, as `tegrastats.parse_line` describes it. Lines that are not
tegrastats' are left out and counted on stderr.
"""

import argparse
import json
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from ff.errors import FFError
from ff.hardware.energy import total_power
from ff.hardware.recorder import Recorder
from ff.hardware.tegrastats import is_reading, parse_line

# No line of tegrastats is as long; a file without so many lines of it is another.
_LONGEST_LINE = 8192
_HOPELESS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ff monitor` to a parser."""
    parser.add_argument("--interval-ms", type=int, default=500, help="time between two samples (default 500)")
    parser.add_argument("--log", metavar="FILE", help="also append the readings to a log, as the sidecar does")
    parser.add_argument("--seconds", type=float, metavar="N", help="stop after N seconds")
    parser.add_argument("--json", action="store_true", help="one JSON object per reading and line")
    parser.add_argument("--replay", metavar="FILE", help="read a recorded tegrastats log; - is standard input")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ff monitor", description=__doc__.split("\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except FFError as error:
        print(f"ff: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    """Do what the options say; returns the exit status. Raises FFError for what the user can mend."""
    try:
        if args.replay is not None:
            _replay(args.replay)
        else:
            _watch(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain at exit when it flushes.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _replay(name: str) -> None:
    if name == "-":
        _print_parsed(sys.stdin.buffer, "standard input")
        return
    try:
        with open(name, "rb") as file:
            _print_parsed(file, name)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise FFError(f"cannot read {name}: {error.strerror}") from error


def _print_parsed(file: BinaryIO, name: str) -> None:
    read = unread = 0
    for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
        text = line.decode("utf-8", "replace").strip()
        if not text or text.startswith("#"):
            continue
        reading = parse_line(text)
        if is_reading(reading):
            print(json.dumps(reading))
            read += 1
            continue
        unread += 1
        if not read and unread == _HOPELESS:
            break
    if not read:
        raise FFError(f"{name} is no log of tegrastats: not one of its lines can be read; give a file that it printed")
    if unread:
        print(f"ff: {unread} of {read + unread} lines of {name} are not tegrastats' and were left out", file=sys.stderr)


def _watch(args: argparse.Namespace) -> None:
    if args.interval_ms < 1:
        raise FFError(f"--interval-ms is {args.interval_ms}; it must be at least 1")
    if args.seconds is not None and args.seconds < 0:
        raise FFError(f"--seconds is {args.seconds}; it must not be negative")
    records: queue.SimpleQueue = queue.SimpleQueue()
    recorder = Recorder(args.log, args.interval_ms, mode="monitor", listener=records.put)
    with suppress(ValueError):  # not the main thread: whoever runs us ends us
        signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    recorder.start()
    try:
        _show(_received(records, args.seconds), args)
    finally:
        recorder.finish()


def _interrupt() -> None:
    raise KeyboardInterrupt


def _received(records: queue.SimpleQueue, seconds: float | None) -> Iterator[dict]:
    """The records as they come, for so many seconds or until the recorder ends."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        left_s = 3600.0 if until is None else until - time.monotonic()
        if left_s <= 0:
            return
        with suppress(queue.Empty):
            record = records.get(timeout=left_s)
            if record.get("event") == "end":
                return
            yield record


def _show(records: Iterator[dict], args: argparse.Namespace) -> None:
    screen = sys.stdout.isatty() and not args.json
    state: dict[str, dict] = {}
    notes: list[str] = []
    drawn = 0
    for record in records:
        if record.get("kind") == "source" and not args.json:
            continue
        if args.json:
            print(json.dumps(record), flush=True)
            continue
        lines = _head(record)
        if record.get("kind") == "sample":
            name = str(record.get("source")) + (f" gpu{record['gpu']}" if "gpu" in record else "")
            state[name] = record
            lines = in_words(name, record)
        if not screen:
            print("  ".join(part.strip() for part in lines), flush=True)
            continue
        if record.get("kind") != "sample":
            notes = (notes + lines)[-8:]
        body = [*notes, ""]
        for source, reading in state.items():
            body += in_words(source, reading)
        width = shutil.get_terminal_size().columns
        # Back to the top of what was drawn last, then each line cleared to its end.
        text = (f"\x1b[{drawn}A" if drawn else "") + "".join(f"{line[: width - 1]}\x1b[K\n" for line in body)
        print(text + "\x1b[J", end="", flush=True)
        drawn = len(body)


def _head(record: dict) -> list[str]:
    if record.get("kind") == "header":
        machine = record.get("machine") or {}
        sources = record.get("sources") or {}
        board = machine.get("model") or (machine.get("cpu") or {}).get("model") or "this machine"
        mode = (machine.get("nvpmodel") or {}).get("mode")
        used = ", ".join(sources.get("used") or []) or "none"
        lines = [f"{board}{f', power mode {mode}' if mode else ''}; sources: {used}"]
        return lines + [f"  without {m['source']}: {m['reason']}" for m in sources.get("missing") or []]
    return [f"{record.get('source') or 'log'}: {record.get('event')}: {record.get('text')}"]


def in_words(name: str, reading: dict) -> list[str]:
    """One reading as lines of text; what was not measured is not mentioned."""
    lines = [name]
    cores = [load for load in reading.get("cpu_percent") or [] if load is not None]
    if cores:
        off = len(reading["cpu_percent"]) - len(cores)
        shown = " ".join(f"{load:.0f}" for load in cores[:16]) + (" .." if len(cores) > 16 else "")
        lines.append(f"  cpu {sum(cores) / len(cores):.0f} % ({shown}{f', {off} off' if off else ''})")
    graphics = []
    if reading.get("gpu_percent") is not None:
        graphics.append(f"{reading['gpu_percent']:.0f} %")
    clocks = [clock for clock in reading.get("gpu_freq_mhz") or [] if clock is not None]
    if clocks:
        graphics.append(f"{max(clocks):.0f} MHz")
    if reading.get("gpu_memory_used_mb") is not None:
        graphics.append(f"{reading['gpu_memory_used_mb']:.0f} MB")
    if graphics:
        lines.append(f"  gpu {' '.join(graphics)}")
    if reading.get("ram_used_mb") is not None and reading.get("ram_total_mb") is not None:
        swap = reading.get("swap_used_mb")
        text = f"  ram {reading['ram_used_mb']:.0f} of {reading['ram_total_mb']:.0f} MB"
        lines.append(text + (f", swap {swap:.0f} MB" if swap is not None else ""))
    power = {rail: value for rail, value in (reading.get("power_mw") or {}).items() if value is not None}
    if power:
        total = total_power(power)
        each = ", ".join(f"{rail} {value / 1000:.2f} W" for rail, value in power.items())
        lines.append(f"  power {each}" + (f"; {total[0]} {total[1] / 1000:.2f} W" if total else ""))
    if reading.get("monitor_cpu_percent") is not None:
        lines.append(f"  takes {reading['monitor_cpu_percent']:.1f} % of a core")
    degrees = reading.get("temperature_c") or {}
    if degrees:
        lines.append("  temperature " + ", ".join(f"{zone} {value:.0f} C" for zone, value in degrees.items()))
    return lines


if __name__ == "__main__":
    sys.exit(main())
