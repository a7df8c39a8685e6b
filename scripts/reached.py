"""Puts the counts of docs/reliability/*.jsonl into the table of docs/reliability.md: `python scripts/reached.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
WHAT = {
    "kills": ("SIGKILLs of the log's writer", "tests/crash/run_log.py kills --count N"),
    "cuts": ("power-cut images of the log", "tests/crash/run_log.py cuts --count N"),
    "errors": ("errors at the n-th call on the log's files, every n", "tests/crash/run_log.py errors --count 0"),
    "spool-errors": ("errors at the n-th call on a spool, every n", "tests/crash/run_log.py spool-errors --count 0"),
    "corruptions": ("changed logs against `tune verify`", "tests/crash/run_log.py corruptions --count N"),
    "frames": ("mutated frames", "tests/fuzz/run_fuzz.py frames --count N"),
    "spools": ("mutated spools", "tests/fuzz/run_fuzz.py spools --count N"),
    "configs": ("mutated configs", "tests/fuzz/run_fuzz.py configs --count N"),
    "logs": ("logs of events that don't fit", "tests/fuzz/run_fuzz.py logs --count N"),
    "engine-kills-8-live": ("kills of an engine with 8 live trials", "tests/crash/run_engine.py kills --count N"),
    "engine-adopt-64-live": ("kill-and-adopt rounds under 64 trials", "tests/crash/run_engine.py adopt --live 64"),
    "simulation": ("events in simulated histories with faults", "tests/simulation/run.py --seeds N"),
}


def table() -> str:
    """The rows, summed over all runs."""
    sums: dict[str, list[int]] = {}
    for path in sorted((DOCS / "reliability").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            run = json.loads(line)
            total = sums.setdefault(str(run.get("what", path.stem)), [0, 0])
            violations = run["violations"]
            total[0] += int(run["count"])
            total[1] += violations if isinstance(violations, int) else len(violations)
    return "\n".join(
        f"| {WHAT.get(what, (what, ''))[0]} | `{WHAT.get(what, (what, ''))[1]}` | {count:,} | {violations} |"
        for what, (count, violations) in sums.items()
    )


def main() -> None:
    """Rewrite the rows between the table's head and the next blank line."""
    page = DOCS / "reliability.md"
    text = page.read_text()
    head = "| what | command | reached | violations |\n|---|---|---|---|\n"
    before, _, after = text.partition(head)
    rest = re.sub(r"\A(?:[|<][^\n]*\n)*", "", after)
    page.write_text(f"{before}{head}{table()}\n{rest}")


if __name__ == "__main__":
    main()
