"""What a trial pays for tune: `import tune` and its first parameters, beside `import socket, msgspec`, fresh processes.

Wall time from before the start of the process to its end, and the peak of its resident memory.

    python benchmarks/import_time.py [rounds]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from side_by_side import IMPORTS, folder, line

OURS = "import tune; tune.get_next_parameter()"


def measured(code: str, variables: Mapping[str, str]) -> Callable[[], tuple[float, float]]:
    """Runs the code in a fresh interpreter: milliseconds, and MB."""

    def run() -> tuple[float, float]:
        begin = time.perf_counter()
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], {**os.environ, **variables})
        _, status, usage = os.wait4(pid, 0)
        taken = time.perf_counter() - begin
        if status:
            raise SystemExit(f"{code} has failed")
        return taken * 1e3, usage.ru_maxrss / 1024

    return run


def main(rounds: int) -> None:
    """Measure and print."""
    with folder() as base:
        launch = base / "abcde" / "0"
        launch.mkdir(parents=True)
        Path(launch, "parameters.json").write_text('{"phase":0,"parameters":{"x":0.5}}')
        inside = {"TUNE_LAUNCH_DIR": str(launch)}
        runs = {
            "bare": measured("pass", {}),
            "limit": measured(IMPORTS, {}),
            "ours": measured(OURS, inside),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                found[name].append(run())
    time_of = {name: statistics.median(ms for ms, _ in pairs) for name, pairs in found.items()}
    size_of = {name: statistics.median(mb for _, mb in pairs) for name, pairs in found.items()}
    limit = f"{IMPORTS}: {time_of['limit']:.1f} ms (bare {time_of['bare']:.1f})"
    line(
        "import tune + first parameters",
        f"{time_of['ours']:.1f} ms",
        limit,
        time_of["ours"] / time_of["limit"],
        "<= 1.2",
    )
    more = size_of["ours"] - size_of["limit"]
    limit = f"{IMPORTS}: {size_of['limit']:.1f} MB"
    line("memory of it", f"+{more:.1f} MB", limit, size_of["ours"] / size_of["limit"], "<= +5 MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
