"""The errors that end a command with one sentence instead of a traceback."""


class InputError(ValueError):
    """Bad input: one sentence that says what is wrong, in which file or field, and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """


class RunError(RuntimeError):
    """The input was right but the work could not be finished: one sentence, exit code 1."""
