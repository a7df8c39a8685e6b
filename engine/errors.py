"""The errors that a person sees: one tree, each with a sentence, a hint and the program's exit code.

    TuneError            exit 1: the experiment or the action failed
    +-- UsageError       exit 2: a wrong argument, config or id; nothing was written

Raise the narrowest one; the command line prints `message`, then `hint`, and no traceback.
"""

from __future__ import annotations


class TuneError(Exception):
    """The experiment or the action failed. `message` says what was found, `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UsageError(TuneError):
    """What was asked for can't be: a wrong argument, a wrong config, an unknown id. Nothing was written."""

    exit_code = 2
