"""What AskTell costs: microseconds per ask + tell beside the bare tuner, and with a log milliseconds beside fsyncs.

    python benchmarks/ask_tell.py [--pairs 500] [--rounds 7]

Bare tuner: `suggest` and two `observe` calls on the same object, nothing checked or kept. Medians of interleaved
rounds, of CPU time in memory and of wall time with a log (16 threads share commits; two fsyncs of 4 KiB are the raw
limit of one thread).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # as in the tuner host

from tune import AskTell  # noqa: E402
from tune.engine import registry  # noqa: E402
from tune.engine.plugins import Ask, Ended, Suggested  # noqa: E402
from tune.engine.space import parse  # noqa: E402

SPACE = {
    "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
    "momentum": {"_type": "uniform", "_value": [0, 1]},
    "layers": {"_type": "randint", "_value": [1, 13]},
    "batch": {"_type": "choice", "_value": [16, 32, 64, 128]},
    "optimizer": {"_type": "choice", "_value": ["sgd", "adam", "rmsprop"]},
}


def loss(parameters: Any) -> float:
    """Something to learn."""
    return (parameters["momentum"] - 0.9) ** 2 + parameters["lr"]


def bare(name: str) -> Callable[[], None]:
    """Ask and tell once more, the tuner alone."""
    tuner = registry.build(registry.tuner_class(name), {}, "minimize")
    space = parse(SPACE)
    number = 0

    def step() -> None:
        nonlocal number
        parameters = dict(tuner.suggest(Ask(number + 1, 0, number, "", 0, space, 0, 1)).parameters)
        tuner.observe(Suggested(2 * number, number, 0, parameters, ask=number + 1))
        tuner.observe(Ended(2 * number + 1, number, 0, "completed", loss(parameters)))
        number += 1

    return step


def study(name: str, log: str | None = None) -> Callable[[], None]:
    """The same through AskTell."""
    made = AskTell(SPACE, name, "minimize", seed=1, log=log)

    def step() -> None:
        trial = made.ask()
        made.tell(trial, loss(trial.parameters))

    return step


def in_memory(pairs: int, rounds: int) -> None:
    """The table without a log."""
    print(f"{'us per ask + tell':<20}{'bare':>10}{'AskTell':>10}{'overhead':>10}")
    for name in ("Random", "TPE"):
        steps = {"bare": bare(name), "AskTell": study(name)}
        taken: dict[str, list[float]] = {which: [] for which in steps}
        for _ in range(rounds):
            for which, step in steps.items():
                start = time.process_time()
                for _ in range(pairs):
                    step()
                taken[which].append((time.process_time() - start) / pairs * 1e6)
        middle = {which: statistics.median(values) for which, values in taken.items()}
        over = statistics.median(ours - alone for ours, alone in zip(taken["AskTell"], taken["bare"], strict=True))
        print(f"{name:<20}{middle['bare']:10.1f}{middle['AskTell']:10.1f}{over:10.1f}")


def with_log(pairs: int, rounds: int) -> None:
    """The table with a log."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNE_HOME"] = folder
        step = study("Random", "bench")
        file = os.open(Path(folder) / "raw", os.O_RDWR | os.O_CREAT)
        taken: dict[str, list[float]] = {"two fsyncs": [], "one thread": [], "16 threads": []}
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(2 * pairs):
                os.pwrite(file, bytes(4096), os.lseek(file, 0, os.SEEK_END))
                os.fsync(file)
            taken["two fsyncs"].append((time.perf_counter() - start) / pairs * 1e3)
            start = time.perf_counter()
            for _ in range(pairs):
                step()
            taken["one thread"].append((time.perf_counter() - start) / pairs * 1e3)
            start = time.perf_counter()
            with ThreadPoolExecutor(16) as pool:
                for done in [pool.submit(step) for _ in range(pairs)]:
                    done.result()
            taken["16 threads"].append((time.perf_counter() - start) / pairs * 1e3)
        os.close(file)
        print("ms per ask + tell, durable: " + ", ".join(f"{k} {statistics.median(v):.2f}" for k, v in taken.items()))


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    in_memory(arguments.pairs, arguments.rounds)
    with_log(max(arguments.pairs // 10, 1), arguments.rounds)


if __name__ == "__main__":
    main()
