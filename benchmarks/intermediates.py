"""Intermediate results per second from `report_intermediate_result` to the durable log, from one trial and from eight.

A trial reports as fast as it can and then a final, which returns when it and all before it are in the log; the trial
itself holds the clock. The limit is bare sqlite3 with executemany, 1,000 rows a commit, synchronous=FULL.

    python benchmarks/intermediates.py [results of each trial]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from side_by_side import ask_log, commits_a_second, finish, folder, line, medians, start

TRIAL = """
import os, time
import tune
count = int({count})
tune.get_next_parameter()
begin = time.time()
for number in range(count):
    tune.report_intermediate_result(number / 7919)
spooled = time.time()
tune.report_final_result(1.0)
end = time.time()
with open(f"times.{{tune.get_sequence_id()}}", "w") as file:
    file.write(f"[{{begin}}, {{spooled}}, {{end}}]")
"""


def ours(base: Path, trials: int, count: int, spooled: list[float]) -> float:
    """Results a second, durable."""
    experiment = start(base, TRIAL.format(count=count), max_trial_number=trials, trial_concurrency=trials)
    finish(experiment)
    times = [json.loads(path.read_text()) for path in (base / "code").glob("times.*")]
    for path in (base / "code").glob("times.*"):
        path.unlink()
    rows = ask_log(experiment, "SELECT count(*) FROM event WHERE kind = 'METRIC'")[0]
    if rows != trials * (count + 1):
        raise SystemExit(f"{rows} results in the log instead of {trials * (count + 1)}")
    spooled.append(sum(count / (middle - begin) for begin, middle, _ in times))
    return rows / (max(end for *_, end in times) - min(begin for begin, *_ in times))


def main(count: int) -> None:
    """Measure and print."""
    spooled: dict[int, list[float]] = {1: [], 8: []}
    with folder() as base:
        found = medians(
            {
                "1": lambda: ours(base, 1, count, spooled[1]),
                "8": lambda: ours(base, 8, count // 8, spooled[8]),
                "rows": lambda: commits_a_second(base, 1000, max(count // 1000, 1)),
            },
            3,
        )
    limit = f"bare sqlite3, FULL: {found['rows']:,.0f} rows/s"
    for trials, target in (("1", ">= 20,000/s"), ("8", ">= 40,000/s at 64")):
        fast = sorted(spooled[int(trials)])[1]
        what = f"intermediate results, {trials} trial{'s' * (trials != '1')} ({fast:,.0f}/s spooled)"
        line(what, f"{found[trials]:,.0f}/s", limit, found[trials] / found["rows"], target)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
