"""The one exception that is meant for people, and the one of others that people cause."""


class FFError(Exception):
    """Something a user can cause and mend: one sentence that says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 1.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory, the host's or a device's, did not suffice."""
    # On the CPU torch raises a plain RuntimeError ("DefaultCPUAllocator: can't allocate memory").
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
