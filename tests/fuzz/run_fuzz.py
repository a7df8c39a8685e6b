"""Fuzzing in any number: `python tests/fuzz/run_fuzz.py frames --count 100000000 --record docs/reliability/fuzz.jsonl`.

WHAT: frames, spools, handshakes, configs, logs (events that don't fit, under a right chain; changed log files are
`tests/crash/run_log.py corruptions`). Memory is bounded by the
system (1 GiB of address space beyond what a start takes). Each failure is one REPRO line, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import parsers

ROOM = 1 << 30


def _share(arguments: tuple[str, int, int]) -> list[str]:
    what, count, seed = arguments
    bound()
    try:
        if what == "frames":
            return list(parsers.frames(count, seed))
        if what == "spools":
            return list(parsers.spools(count, seed))
        if what == "handshakes":
            return list(parsers.handshakes(count, seed))
        with tempfile.TemporaryDirectory() as folder:
            if what == "logs":
                return list(parsers.logs(count, seed, Path(folder)))
            return list(parsers.configs(count, seed, Path(folder)))
    except MemoryError:
        return [f"seed {seed}: more than {ROOM} bytes of memory"]


def bound() -> None:
    """Let this process have ROOM more bytes of address space and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        limit = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """Run the search in `--jobs` processes, and write one line into `--record`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["frames", "spools", "handshakes", "configs", "logs"])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    begin = time.monotonic()
    shares = [
        (given.what, given.count // given.jobs + (job < given.count % given.jobs), given.seed + job)
        for job in range(given.jobs)
    ]
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        results = pool.map(_share, shares, chunksize=1)
    bad = 0
    for (what, count, seed), found in zip(shares, results, strict=True):
        for line in found:
            bad += 1
            print(f"REPRO run_fuzz.py {what} --jobs 1 --count {count} --seed {seed}: {line}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    said = json.dumps(
        {
            "what": given.what,
            "count": given.count,
            "seeds": [seed for _, _, seed in shares],
            "commit": commit,
            "violations": bad,
            "seconds": round(time.monotonic() - begin, 1),
        }
    )
    print(said)
    if given.record is not None:
        given.record.parent.mkdir(parents=True, exist_ok=True)
        with given.record.open("a", encoding="utf-8") as file:
            file.write(said + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
