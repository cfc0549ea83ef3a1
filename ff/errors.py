"""The one exception that is meant for people."""


class FFError(Exception):
    """Something a user can cause and mend: one sentence that says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 1.
    """
