"""All measures, one after the other: `python benchmarks/table.py [NAME ...]`, on a machine that does nothing else."""

from __future__ import annotations

import platform
import sqlite3
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "import_time",
    "start",
    "noop_trials",
    "multi_phase",
    "intermediates",
    "replay",
    "memory",
    "tpe",
    "log",
    "ask_tell",
)


def main(names: list[str]) -> int:
    """Run them; the exit code is 1 when one has failed."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; allowed: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    load = Path("/proc/loadavg")
    busy = f", load {load.read_text().split()[0]}" if load.exists() else ""
    print(f"{platform.platform()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}{busy}")
    failed = 0
    for name in names or NAMES:
        print(f"\n-- {name}", flush=True)
        failed |= subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
