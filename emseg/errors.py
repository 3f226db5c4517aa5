"""The errors that end a command with one sentence instead of a traceback."""

import errno

from emseg.text import plain

STOPPED = 130
"""Exit code of a command that Ctrl-C ended."""
STOPPED_SENTENCE = "stopped; the same command goes on where it can"


class InputError(ValueError):
    """Bad input: one sentence that says what is wrong, in which file or field, and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """


class RunError(RuntimeError):
    """The input was right but the work could not be finished: one sentence, exit code 1."""


def ending(error: Exception) -> tuple[str, int] | None:
    """The sentence and the exit code with which a command ends at an error; None: it is a defect, to be seen whole.

    The sentence is one line without control characters, whatever files it quotes.
    """
    if isinstance(error, InputError):
        return plain(error), 2
    if isinstance(error, RunError):
        return plain(error), 1
    if isinstance(error, OSError) and error.errno is not None:
        # Places that cannot be read, and writers that have no sentence of their own.
        where = f"{error.filename}: " if error.filename else ""
        no_room = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        return plain(f"{where}{(error.strerror or str(error)).lower()}"), 1 if no_room else 2
    return None
