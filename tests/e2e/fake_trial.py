"""A trial that writes down what it does: before and after each call one line goes to the witness file.

`fake_trial.py WITNESS OPTIONS`; OPTIONS is a JSON object: `steps` intermediates (3), `sleep` seconds before each
(0.02), `phases` (1; with multi_phase: how many at most), `final` (true), `exit` code (0), `exit_until` attempt below
which the code is used, `hold` a path that must exist before the final is reported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import tune

WITNESS, OPTIONS = sys.argv[1], json.loads(sys.argv[2])
NUMBER, ATTEMPT = tune.get_sequence_id(), int(os.environ["TUNE_ATTEMPT"])
_file = os.open(WITNESS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def say(event: str, **more: object) -> None:
    """One line, written at once."""
    line = {"e": event, "trial": NUMBER, "attempt": ATTEMPT, "sid": os.getsid(0), "pid": os.getpid(), **more}
    os.write(_file, (json.dumps(line) + "\n").encode())


def report(kind: str, phase: int, value: float) -> None:
    """Report, with a line before and one after."""
    say("try", kind=kind, phase=phase, value=value)
    (tune.report_final_result if kind == "F" else tune.report_intermediate_result)(value)
    say("did", kind=kind, phase=phase, value=value)


def main() -> int:
    """The trial."""
    say("start")
    done = int(OPTIONS.get("done", 0))
    for count in range(int(OPTIONS.get("phases", 1))):
        got = tune.get_next_parameter()
        if got is None:
            say("none")
            break
        phase = done + count
        if "first_phase" in OPTIONS:  # a later attempt goes on where the log says
            from tune.trial_sdk import sdk

            phase = sdk._state.phase
        say("parameters", phase=phase, value=got)
        for step in range(int(OPTIONS.get("steps", 3))):
            time.sleep(float(OPTIONS.get("sleep", 0.02)))
            report("I", phase, round(got["x"] * (step + 1), 12))
        while "hold" in OPTIONS and not Path(OPTIONS["hold"]).exists():
            time.sleep(0.02)
        if OPTIONS.get("final", True):
            report("F", phase, -((got["x"] - 0.3) ** 2))
    say("end")
    code = int(OPTIONS.get("exit", 0))
    return code if int(OPTIONS.get("exit_until", 1 << 30)) > ATTEMPT else 0


if __name__ == "__main__":
    sys.exit(main())
