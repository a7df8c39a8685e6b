"""Multi-phase round trips per second (take parameters, report a final, both durable) with 1 and 64 clients.

A client is a trial process. All are started first; the clock runs from the moment they are let go to the last final in
the log. The limit for one is bare sqlite3's commits per second with synchronous=FULL: a round trip waits for the disk
twice, for the final and for the next parameters.

    python benchmarks/multi_phase.py [rounds of one client] [rounds of each of the 64]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from side_by_side import ask_log, commits_a_second, finish, folder, line, medians, start

TRIAL = """
import os, sys, time
import tune
parameters = tune.get_next_parameter()
open(f"ready.{os.getpid()}", "w").close()
while not os.path.exists("go"):
    time.sleep(0.005)
while parameters is not None:
    tune.report_final_result(parameters["x"])
    parameters = tune.get_next_parameter()
"""
LAST = "SELECT max(wall_us), count(*) FROM event WHERE kind = 'METRIC'"


def ours(base: Path, clients: int, phases: int) -> float:
    """Round trips a second."""
    code = base / "code"
    for old in [*code.glob("ready.*"), *code.glob("go")]:
        old.unlink()
    experiment = start(
        base,
        TRIAL,
        multi_phase=True,
        max_trial_number=clients,
        trial_concurrency=clients,
        max_phases_per_trial=phases,
    )
    while len(list(code.glob("ready.*"))) < clients:
        time.sleep(0.02)
    begin = time.time()
    (code / "go").touch()
    finish(experiment)
    last, count = ask_log(experiment, LAST)
    if count != clients * phases:
        raise SystemExit(f"{count} finals instead of {clients * phases}")
    return count / (last / 1e6 - begin)


def main(alone: int, many: int) -> None:
    """Measure and print."""
    with folder() as base:
        found = medians(
            {
                "1": lambda: ours(base, 1, alone),
                "64": lambda: ours(base, 64, many),
                "commits": lambda: commits_a_second(base, 1, 500),
            },
            3,
        )
    limit = f"bare sqlite3, FULL: {found['commits']:,.0f} commits/s"
    line("multi-phase, 1 client", f"{found['1']:,.0f}/s", limit, found["1"] / found["commits"], ">= 0.2")
    line("multi-phase, 64 clients", f"{found['64']:,.0f}/s", limit, found["64"] / found["commits"], ">= 5,000/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, int(sys.argv[2]) if len(sys.argv) > 2 else 50)
