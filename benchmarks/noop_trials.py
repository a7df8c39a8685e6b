"""No-op trials per second, each a process of its own, beside a bare script that imports what the SDK imports.

A trial imports the SDK, takes its parameters and reports a final result. The bare script is started the same number of
times, as many at once; both are timed from the first start to the last end (ours by the log), so that neither pays for
the start of the engine.

    python benchmarks/noop_trials.py [trials] [rounds]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from side_by_side import IMPORTS, ask_log, finish, folder, line, medians, start

TRIAL = "import tune\ntune.get_next_parameter()\ntune.report_final_result(1)\n"
SPAN = (
    "SELECT (SELECT max(wall_us) FROM event WHERE kind = 'TRIAL_END') - "
    "(SELECT min(wall_us) FROM event WHERE kind = 'LAUNCH')"
)


def bare(script: Path, count: int, at_once: int) -> float:
    """Processes a second."""
    running = 0
    begin = time.perf_counter()
    for _ in range(count):
        if running == at_once:
            os.wait()
            running -= 1
        os.posix_spawn(sys.executable, [sys.executable, str(script)], os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    return count / (time.perf_counter() - begin)


def ours(base: Path, count: int, at_once: int) -> float:
    """Trials a second."""
    experiment = start(base, TRIAL, max_trial_number=count, trial_concurrency=at_once)
    finish(experiment)
    return count / (ask_log(experiment, SPAN)[0] / 1e6)


def main(count: int, rounds: int) -> None:
    """Measure and print."""
    with folder() as base:
        script = base / "bare.py"
        script.write_text(IMPORTS + "\n")
        for at_once in (2, 8):

            def of_ours(at_once: int = at_once) -> float:
                return ours(base, count, at_once)

            def of_bare(at_once: int = at_once) -> float:
                return bare(script, count, at_once)

            found = medians({"ours": of_ours, "bare": of_bare}, rounds)
            limit = f"bare script, {at_once} at once: {found['bare']:.1f}/s"
            ratio = found["ours"] / found["bare"]
            line(f"no-op trials, {at_once} at a time", f"{found['ours']:.1f}/s", limit, ratio, ">= 0.7")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
