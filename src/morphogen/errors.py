"""The two ways in which a command can fail, and the one line that a user sees.

A message names the file (or option) first, then what is wrong, then the remedy:
``masks/a.png: holds the values 0, 7, 255, which are not labels; state the rule with --mask-values``.
"""


class MorphogenError(Exception):
    """A failure that is reported in one line, without a traceback (``--debug`` shows it)."""

    exit_code = 1


class InputError(MorphogenError):
    """The input is wrong: nothing has been started and nothing was changed. Exit code 2."""

    exit_code = 2


class WorkError(MorphogenError):
    """The work failed on the way (a full disk, a diverged loss). Exit code 1."""

    exit_code = 1


class StoppedError(WorkError):
    """A signal has ended the work, in every process that takes part in it; the same command continues. Exit code 1."""
