"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: one sentence that says what is wrong, in which file or field, and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """
