"""Real `ff` processes without the second that importing torch takes: a warm process forks one for each command.

`Warm` is the test's side; run as a script this file is the warm process. Each child has its own process id, files
and memory, and can be killed like any other.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]


class Done(NamedTuple):
    """How a process ended: its exit code (minus the signal where one ended it), output and duration."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Warm:
    """Runs one `ff` process at a time."""

    def __enter__(self) -> "Warm":
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(
        self,
        folder: Path,
        *arguments: object,
        code: str | None = None,
        die_before: int | None = None,
        die_at_call: int | None = None,
        file_limit: int | None = None,
        **env: str,
    ) -> int:
        """Fork `ff ARGUMENTS`, or a process that runs the Python `code`, in `folder`; gives its process id.

        `die_before`: it kills itself before its n-th change of a file name (rename or removal). `die_at_call`: it
        kills itself as it enters its n-th call of a Python function; 0: it lives, and leaves the number of its calls
        in .calls.txt. `file_limit`: no file may grow beyond so many bytes, as on a full disk.
        """
        self._folder, self._start = folder, time.monotonic()
        request = {
            "folder": str(folder),
            "arguments": [str(argument) for argument in arguments],
            "code": code,
            "die_before": die_before,
            "die_at_call": die_at_call,
            "file_limit": file_limit,
            "env": env,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> Done:
        """Wait for the process that was started last."""
        code = int(self._process.stdout.readline())
        seconds = time.monotonic() - self._start
        output = [(self._folder / f".{name}.txt").read_text() for name in ("stdout", "stderr")]
        return Done(code, *output, seconds)

    def __call__(self, folder: Path, *arguments: object, **options) -> Done:
        """Run `ff ARGUMENTS` in `folder` to its end."""
        self.start(folder, *arguments, **options)
        return self.wait()


def _die_before(count: int) -> None:
    left = [count]

    def mortal(call):
        def step(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return step

    os.replace, os.unlink = mortal(os.replace), mortal(os.unlink)


def _count_calls(die_at: int) -> list[int]:
    """Count the calls of Python functions in the main thread; the one with number `die_at` is not survived."""
    count = [0]

    def called(frame: object, event: str, argument: object) -> None:
        if event == "call":
            count[0] += 1
            if count[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(called)
    return count


def _child(request: dict) -> int:
    from ff.cli import main

    os.chdir(request["folder"])
    os.environ.update(request["env"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(f".{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    if request["die_before"]:
        _die_before(request["die_before"])
    if request["file_limit"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], request["file_limit"]))
    calls = None if request["die_at_call"] is None else _count_calls(request["die_at_call"])
    try:
        if request["code"] is not None:
            sys.argv = ["-c", *request["arguments"]]
            exec(request["code"], {"__name__": "__main__"})
            return 0
        return main(request["arguments"])
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        if calls is not None:
            sys.setprofile(None)
            Path(".calls.txt").write_text(str(calls[0]))
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()


def _serve(requests: Sequence[str]) -> None:
    import safetensors.torch  # noqa: F401 - warm

    import ff.cli
    import ff.hardware.recorder
    import ff.hardware.summary
    import ff.learn.run  # noqa: F401 - warm

    for line in requests:
        child = os.fork()
        if child == 0:
            # The answers' pipe belongs to the parent.
            os._exit(_child(json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    # ff must not be found beside this file.
    sys.path[0] = str(REPOSITORY)
    _serve(sys.stdin)
