"""Work in a process of its own that need not import anything again."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from ff.errors import FFError
from ff.hardware.sidecar import signal_parents_death

Result = TypeVar("Result")


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """What `function` gives when it is called in a fork of this process; what it raises is raised here.

    So one process can measure several networks, and no measurement finds what another has left: memory that an
    allocator keeps, libraries that were loaded on the way, a CUDA context. Nothing may have used a GPU in this process
    or started threads in it. The fork ends with this process, and can first put back what it has changed of the
    machine. Raises FFError where it was killed.
    """
    try:
        with ProcessPoolExecutor(1, get_context("fork"), signal_parents_death, (signal.SIGTERM,)) as pool:
            return pool.submit(function, *arguments).result()
    except BrokenProcessPool:
        raise FFError("the process that measures was killed, for lack of memory perhaps") from None
