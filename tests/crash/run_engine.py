"""Long runs of the whole program under kill -9: `kills` of an engine with live trials, `adopt` rounds under many.

    python tests/crash/run_engine.py kills --count 200 --live 8 --record docs/reliability/engine_kills.jsonl
    python tests/crash/run_engine.py adopt --count 20 --live 64 --record docs/reliability/adoptions.jsonl

A failure prints one REPRO line with the seed of its experiment. `--record` appends what was reached to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from harness import Bench, bench
from test_kill import adopted, running, whole

KILLS_EACH = 10


@contextmanager
def a_bench() -> Iterator[Bench]:
    """A bench in a folder of its own, for one experiment."""
    with tempfile.TemporaryDirectory(prefix="tune-crash-") as base:
        with bench(Path(base), os.environ.__setitem__) as made:
            yield made


def kills(seed: int, live: int) -> int:
    """One experiment whose engine is killed again and again at random moments; how many kills it was."""
    dice = random.Random(seed)
    with a_bench() as place:
        command = place.fake(steps=30, sleep=0.08)
        experiment = place.experiment(
            trial_command=command, trial_concurrency=live, max_trial_number=live * 3, seed=seed
        )
        experiment.start()
        before: dict[tuple[int, int], int] = {}
        done = 0
        while done < KILLS_EACH:
            time.sleep(dice.uniform(0, 1.2))
            if experiment.state().finished:
                break
            experiment.kill_engine()
            done += 1
            before |= running(experiment)
            time.sleep(dice.choice([0, 0, 0.2]))
            experiment.start()
        whole(experiment, live * 3)
        adopted(experiment, before)
    return done


def adopt(seed: int, live: int, rounds: int) -> int:
    """One experiment with many trials that hold on: each new engine takes over every one of them, same pid."""
    dice = random.Random(seed)
    with a_bench() as place:
        go = place.base / "go"
        command = place.fake(steps=2, sleep=0.02, hold=str(go))
        experiment = place.experiment(trial_command=command, trial_concurrency=live, max_trial_number=live, seed=seed)
        experiment.start()
        experiment.until(lambda state: state.counts["RUNNING"] == live and state.metrics == 2 * live, 300)
        pids = running(experiment)
        assert len(pids) == live
        for _ in range(rounds):
            experiment.kill_engine()
            time.sleep(dice.choice([0, 0.1]))
            experiment.start()
            hosts = len(experiment.facts("HOST"))
            time.sleep(dice.uniform(0, 0.6))
            assert running(experiment) == pids, "a trial changed its pid or attempt"
            assert hosts >= 1
        go.touch()
        whole(experiment, live)
        adopted(experiment, pids)
        assert len(experiment.facts("LAUNCHED")) == live, "a trial was started or said to be started twice"
    return rounds


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "adopt"])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--live", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    begin, reached, seed = time.monotonic(), 0, given.seed
    while reached < given.count:
        try:
            if given.what == "kills":
                reached += kills(seed, given.live)
            else:
                reached += adopt(seed, given.live, min(20, given.count - reached))
        except BaseException:
            print(f"REPRO run_engine.py {given.what} --count 1 --live {given.live} --seed {seed}", flush=True)
            raise
        print(f"{given.what}: {reached} of {given.count}, 0 violations (seed {seed})", flush=True)
        seed += 1
    if given.record is not None:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        line = {
            "what": f"engine-{given.what}-{given.live}-live",
            "count": reached,
            "seeds": [given.seed, seed - 1],
            "commit": commit.stdout.strip(),
            "violations": 0,
            "seconds": round(time.monotonic() - begin, 1),
        }
        given.record.parent.mkdir(parents=True, exist_ok=True)
        with given.record.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
