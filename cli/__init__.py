"""The command line: `main` finds the verb that was typed, runs it, and turns what went wrong into a sentence.

A verb is one file here that defines a function of the file's name (`list.py`: `list`, `import_.py`: `import_` for
`tune import`), or an entry point of the group `tune.verbs`. It is a typed function with a docstring; the int that it
returns is the exit code, None is 0. Nothing of a verb is imported before it is typed.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing itself is imported late, as all the rest: Ctrl-C is answered from the first moment on
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App

INTERRUPTED = 130
_ABOUT = """Hyper-parameter tuning and neural architecture search that never loses a trial.

Start with: tune hello my-first && cd my-first && tune create config.toml"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb in these arguments (those of the process when left out): the exit code."""
    if sys.platform == "win32":
        sys.stderr.write("error: Windows is not supported: tune needs Linux or macOS (WSL 2 works)\n")
        return 2
    try:
        if arguments is None:
            import signal

            from .interrupts import SIGNALS, early

            # TERM is Ctrl-C; a shell starts what ends in & with INT ignored, and one that is sent counts all the same
            for number in SIGNALS:
                signal.signal(number, early)
        # not list(...): once it is imported, the verb `list` is what that name means here
        code = _run(sys.argv[1:] if arguments is None else [*arguments])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = 1
    if arguments is None:
        _leave(code)
    return code


def _run(arguments: list[str]) -> int:
    from cyclopts import CycloptsError

    from ..engine.errors import TuneError

    try:
        result: object = app(arguments[0] if arguments else "")(arguments)
    except CycloptsError as error:
        verb = arguments[0] if arguments and not arguments[0].startswith("-") else ""
        known = "" if type(error).__name__ == "UnknownCommandError" else f" {verb}".rstrip()
        _complain(str(error), f"See: tune{known} --help")
        return 2
    except TuneError as error:
        sys.stdout.flush()
        _complain(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder without rights: the system's word for it says enough
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error), None)
        return 1
    return result if isinstance(result, int) else 0


def app(typed: str) -> App:
    """The cyclopts application with every verb, none of them imported. `typed` is the first argument."""
    from cyclopts import App

    from .. import __version__
    from .verbs import built_in, installed

    made = App(
        name="tune",
        help=_ABOUT,
        version=__version__,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    verbs = built_in()
    if typed not in verbs:  # the installed packages are only looked through for a verb of theirs, or for the list
        verbs = {**installed(), **verbs}
    for name, (target, about) in verbs.items():
        made.command(target, name=name, help=about)
    return made


def _complain(message: str, hint: str | None) -> None:
    from .reading import note, printable_lines

    first, *rest = printable_lines(message) or [""]
    note(f"error: {first}")
    for line in [*rest, *printable_lines(hint or "")]:
        note(f"  {line}")


def _leave(code: int) -> None:
    """The process ends now: what was said is out, and nothing that still comes changes the exit code.

    An interrupted one ends at once: when a KeyboardInterrupt has passed through `exec` of a text (which making a
    dataclass is), Python ends by signal 2 later on, although it was caught.
    """
    import os
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # nobody reads (`tune list | head -1`): no complaint, also not at the interpreter's end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if code == INTERRUPTED:
        os._exit(code)
