"""`just simulate`: many seeded histories of the whole program, judged; and `just mutants`, which plants bugs in it.

Each history is run, and every tenth one twice: the two traces must be the same. A history that breaks a promise prints
one line that repeats it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from world import World, settings_of, with_devices


def history(
    seed: int, hosts: int, events: int, step: int | None, twice: bool, devices: bool
) -> tuple[int, list[str], int, int, str]:
    """One seed: (seed, violations, step, events, trace)."""
    settings = settings_of(seed, hosts, events, step)
    if devices:
        settings = with_devices(settings)
    outcome = World(settings).run()
    violations = outcome.violations
    if twice and not violations and World(settings).run().trace != outcome.trace:
        violations = ["P9: the same seed gave two different histories"]
    return seed, violations, outcome.step, outcome.events, outcome.trace


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def simulate(options: argparse.Namespace) -> int:
    """Run the histories: 1 when one of them broke a promise."""
    seeds = (
        [options.seed] if options.seed is not None else range(options.first_seed, options.first_seed + options.seeds)
    )
    started, broken, facts = time.time(), 0, 0
    with ProcessPoolExecutor(options.jobs) as pool:
        runs = [
            pool.submit(
                history,
                seed,
                options.hosts,
                options.events,
                options.step,
                seed % 10 == 0 or options.twice,
                options.devices,
            )
            for seed in seeds
        ]
        for run in runs:
            seed, violations, step, events, _ = run.result()
            facts += events
            if violations:
                broken += 1
                print(f"seed {seed}: {violations[0]}")
                where = f"--hosts {options.hosts} --events {options.events}{' --devices' * options.devices}"
                print(f"REPRO: just simulate --seed {seed} {where}  # fault {step} of it")
    wall = round(time.time() - started, 1)
    print(f"{len(seeds)} histories, {facts} events, {broken} with violations, {wall} s")
    if options.record:
        first = seeds[0]
        record = {
            "count": facts,
            "seeds": [first, first + len(seeds) - 1],
            "histories": len(seeds),
            "hosts": options.hosts,
            "events": options.events,
            "commit": _commit(),
            "violations": broken,
            "wall": wall,
        }
        path = Path(options.record)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
    return 1 if broken else 0


def story(options: argparse.Namespace) -> int:
    """Tell one history."""
    settings = settings_of(options.seed or 0, options.hosts, options.events, options.step)
    outcome = World(with_devices(settings) if options.devices else settings, tell=True).run()
    print("\n".join(outcome.story))
    print(outcome.settings, outcome.trace, *outcome.violations, sep="\n")
    return 1 if outcome.violations else 0


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many histories")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--step", type=int, help="only so many faults")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--events", type=int, default=300, help="about how many events each history has")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--devices", action="store_true", help="the trials want devices")
    parser.add_argument("--twice", action="store_true", help="run each seed twice, not each tenth")
    parser.add_argument("--record", help="append a line to this file")
    parser.add_argument("--tell", action="store_true", help="tell the story of --seed")
    parser.add_argument("--mutants", action="store_true", help="plant bugs, and see that they are caught")
    parser.add_argument("--only", default="", help="only the mutants whose name holds this")
    options = parser.parse_args(arguments)
    if options.mutants:
        from mutants import report

        return report(options.seeds, options.only, options.jobs)
    return story(options) if options.tell else simulate(options)


if __name__ == "__main__":
    sys.exit(main())
