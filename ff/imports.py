"""How a process of its own starts and ends sooner that imports much, such as torch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import in the block: Python does not look among what is imported for garbage, neither meanwhile nor later.

    Everything that torch makes when it is imported stays until the end of the process. Each look at it takes 0.1 s, and
    the one at the end 0.3 s, a quarter of a process that only imports torch. `gc.freeze` is made for this, and for
    processes that fork afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
