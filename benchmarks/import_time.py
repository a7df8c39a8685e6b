"""What a trial pays for tune: `import tune` and its first parameters, beside `import socket, msgspec`, fresh processes.

Wall time from before the start of the process to its end, and the peak of its resident memory.

    python benchmarks/import_time.py [rounds]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from side_by_side import IMPORTS, folder, line, medians

OURS = "import tune; tune.get_next_parameter()"


def measured(code: str, variables: Mapping[str, str]) -> Callable[[], float]:
    """Runs the code in a fresh interpreter: milliseconds."""

    def run() -> float:
        begin = time.perf_counter()
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], {**os.environ, **variables})
        _, status = os.waitpid(pid, 0)
        taken = time.perf_counter() - begin
        if status:
            raise SystemExit(f"{code} has failed")
        return taken * 1e3

    return run


def peak(code: str, variables: Mapping[str, str]) -> float:
    """The peak of its resident memory in MB, by its own word (a child's rusage holds its parent's peak too)."""
    whole = f"{code}\nprint(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", whole], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return next(int(row.split()[1]) for row in done.stdout.splitlines() if row.startswith("VmHWM:")) / 1024


def main(rounds: int) -> None:
    """Measure and print."""
    with folder() as base:
        launch = base / "abcde" / "0"
        launch.mkdir(parents=True)
        Path(launch, "parameters.json").write_text('{"phase":0,"parameters":{"x":0.5}}')
        inside = {"TUNE_LAUNCH_DIR": str(launch)}
        found = medians(
            {"bare": measured("pass", {}), "limit": measured(IMPORTS, {}), "ours": measured(OURS, inside)}, rounds
        )
        limit = f"{IMPORTS}: {found['limit']:.1f} ms (bare {found['bare']:.1f})"
        ratio = found["ours"] / found["limit"]
        line("import tune + first parameters", f"{found['ours']:.1f} ms", limit, ratio, "<= 1.2")
        if Path("/proc/self/status").exists():
            sizes = medians({"limit": lambda: peak(IMPORTS, {}), "ours": lambda: peak(OURS, inside)}, 3)
            more = sizes["ours"] - sizes["limit"]
            limit = f"{IMPORTS}: {sizes['limit']:.1f} MB"
            line("memory of it", f"+{more:.1f} MB", limit, sizes["ours"] / sizes["limit"], "<= +5 MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
