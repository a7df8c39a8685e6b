"""Memory of an idle experiment: engine, keeper and tuner host while a trial sleeps, beside a bare Python with msgspec.

Resident memory (RSS), and what would be freed if the three ended (PSS, shared pages by halves). Linux only.

    python benchmarks/memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from side_by_side import IMPORTS, finish, folder, line, start

from tune.engine import client, home

TRIAL = """
import os, time
import tune
tune.get_next_parameter()
open("ready", "w").close()
while os.path.exists("ready"):
    time.sleep(0.05)
tune.report_final_result(1)
"""


def megabytes(pid: int) -> tuple[float, float]:
    """RSS and PSS."""
    found: dict[str, float] = {}
    for entry in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = entry.partition(":")
        found[name] = float(rest.split()[0]) / 1024
    return found["Rss"], found["Pss"]


def processes(experiment: home.Folder) -> dict[str, int]:
    """The pids of the three."""
    engine = client.engine_pid(experiment) or 0
    keeper = int(json.loads(experiment.keeper_lock.read_text())["pid"])
    children = [int(pid) for pid in Path(f"/proc/{engine}/task/{engine}/children").read_text().split()]
    return {"engine": engine, "keeper": keeper, "tuner host": next(pid for pid in children if pid != keeper)}


def main() -> None:
    """Measure and print."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{IMPORTS}; print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as bare:
        assert bare.stdout is not None
        bare.stdout.readline()
        limit = megabytes(bare.pid)[0]
        bare.communicate(b"\n")
    with folder() as base:
        for tuner, target in (("Random", "<= 160 MB"), ("TPE", "<= 160 MB (200 with scipy)")):
            experiment = start(base, TRIAL, max_trial_number=1, tuner={"name": tuner})
            ready = base / "code" / "ready"
            while not ready.exists():
                time.sleep(0.05)
            time.sleep(0.5)  # let what follows the launch settle
            found = {name: megabytes(pid) for name, pid in processes(experiment).items()}
            ready.unlink()
            finish(experiment)
            total = sum(rss for rss, _ in found.values())
            shared = sum(pss for _, pss in found.values())
            parts = ", ".join(f"{name} {rss:.0f}" for name, (rss, _) in found.items())
            line(
                f"memory, idle, {tuner}",
                f"{total:.0f} MB",
                f"3 x bare: {3 * limit:.0f} MB",
                total / (3 * limit),
                target,
            )
            print(f"{'':<52}{parts}; PSS {shared:.0f} MB")


if __name__ == "__main__":
    main()
