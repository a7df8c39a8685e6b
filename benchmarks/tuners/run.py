"""Tuners compared by what they find: our own and the peers that are installed, on the same problems, in one run.

    python benchmarks/tuners/run.py                                     every tuner, suite `public`, 5 seeds
    python benchmarks/tuners/run.py --tuners TPE optuna_tpe --seeds 10 --versus optuna_tpe
    python benchmarks/tuners/run.py --parallel 8                        8 configurations pending at a time
    python benchmarks/tuners/run.py --python nni_tpe=/path/to/python    a peer in its own virtual environment
    python benchmarks/tuners/run.py --with smac_hpo.csv                 results of an earlier run

A score is the regret of the best result so far (judged without noise) over the median regret of the best of 50 random
points: 1 is random search after 50 evaluations, 0 the optimum. Runs go on where they ended: what stands in the results'
folder isn't run again, so delete a tuner's file after changing the tuner. Seconds are CPU time of ask and tell.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # as in the tuner host

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import peers  # noqa: E402
import problems  # noqa: E402
import report  # noqa: E402

POINTS = (10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000)  # where a run is written down
COLUMNS = (*("peer", "suite", "problem", "group", "dim", "seed", "n", "regret", "nreg", "ask_s", "tell_s", "parallel"),)


def make(name: str, problem: problems.Problem, seed: int, budget: int, parallel: int) -> Any:
    """A tuner by name."""
    if name in peers.PEERS:
        return peers.PEERS[name][0](problem.space, seed, budget, parallel)
    import ours

    return ours.Ours(name, problem.space, seed, budget, parallel)


def one_run(name: str, problem: problems.Problem, seed: int, budget: int, parallel: int) -> list[dict[str, Any]]:
    """A search; rows of what had been found after so many results."""
    noise = np.random.default_rng([seed, zlib.crc32(problem.name.encode())])
    start = time.process_time()
    tuner = make(name, problem, seed * 1000 + 7, budget, parallel)
    seconds = [time.process_time() - start, 0.0]
    pending: list[tuple[Any, dict[str, Any]]] = []
    rows: list[dict[str, Any]] = []
    asked = told = 0
    ended = False
    best_seen = best_true = math.inf
    while told < budget:
        while len(pending) < parallel and asked < budget and not ended:
            start = time.process_time()
            try:
                answer = tuner.ask()
            except StopIteration:
                ended = True
                break
            finally:
                seconds[0] += time.process_time() - start
            if answer is None:
                break
            pending.append(answer)
            asked += 1
        if pending:
            token, configuration = pending.pop(0)
            value = problem.true(configuration)
            seen = value + problem.noise * noise.standard_normal() if problem.noise else value
            start = time.process_time()
            tuner.tell(token, configuration, seen)
            seconds[1] += time.process_time() - start
            if seen < best_seen:
                best_seen, best_true = seen, value
        elif not ended:
            raise RuntimeError("it waits though nothing is pending")
        told += 1
        if told in POINTS or told == budget:
            rows.append(
                {
                    "peer": name,
                    "problem": problem.name,
                    "group": problem.group,
                    "dim": len(problem.space),
                    "seed": seed,
                    "n": told,
                    "regret": f"{max(best_true - problems.KNOWN[problem.name]['optimum'], 0.0):.6g}",
                    "nreg": f"{problem.normalised(best_true):.6g}",
                    "ask_s": f"{seconds[0]:.5f}",
                    "tell_s": f"{seconds[1]:.5f}",
                    "parallel": parallel,
                }
            )
    return rows


def work(name: str, arguments: argparse.Namespace) -> None:
    """All runs of one tuner that its file lacks, in this process."""
    path = file_of(name, arguments)
    done: set[tuple[str, int]] = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {(r["problem"], int(r["seed"])) for r in csv.DictReader(file) if int(r["n"]) >= arguments.budget}
    chosen = chosen_problems(arguments)
    refused: set[str] = set()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for problem in chosen:
                if (problem.name, seed) in done or problem.name in refused:
                    continue
                try:
                    rows = one_run(name, problem, seed, arguments.budget, arguments.parallel)
                except Exception as error:  # a peer that breaks on a problem must not end the others' runs
                    if arguments.trace:
                        raise
                    refused.add(problem.name)
                    print(f"{name} on {problem.name}: {type(error).__name__}: {str(error)[:150]}", file=sys.stderr)
                    continue
                writer.writerows({**row, "suite": arguments.suite} for row in rows)
                file.flush()


def file_of(name: str, arguments: argparse.Namespace) -> Path:
    """Where a tuner's runs are written."""
    suffix = "" if arguments.parallel == 1 else f"-parallel{arguments.parallel}"
    return arguments.results / f"{name}{suffix}.csv"


def chosen_problems(arguments: argparse.Namespace) -> list[problems.Problem]:
    """The problems of the suite, those that `--only` names."""
    found = problems.suite(arguments.suite)
    return [one for one in found if not arguments.only or any(part in one.name for part in arguments.only)]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuners", nargs="*", help="ours by class name, peers by name; default: all that are here")
    parser.add_argument("--suite", default="public", help="public, check, core, conditional or large")
    parser.add_argument("--only", nargs="*", help="parts of problems' names")
    parser.add_argument("--group", help="report bbob, mixed or real problems only")
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1, help="so many pending at a time")
    parser.add_argument("--jobs", type=int, default=1, help="so many tuners run at a time")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--with", nargs="*", type=Path, default=[], dest="earlier", help="CSV files of earlier runs")
    parser.add_argument("--python", nargs="*", default=[], metavar="PEER=INTERPRETER")
    parser.add_argument("--at", nargs="*", type=int, default=[50, 100, 200])
    parser.add_argument("--versus", nargs="*", default=[], help="print differences to these")
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--by-problem", action="store_true")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--trace", action="store_true", help="stop at the first error")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run what is missing, one process a tuner, and print the report."""
    arguments = parsed()
    arguments.results.mkdir(parents=True, exist_ok=True)
    if arguments.worker:
        work(arguments.worker, arguments)
        return 0
    interpreters = dict(one.split("=", 1) for one in arguments.python)
    names = arguments.tuners
    if not names:
        import ours

        names = [*ours.names(), *dict.fromkeys([*peers.installed(), *interpreters])]

    def start(name: str) -> None:
        python = interpreters.get(name, sys.executable)
        options = [one for one in sys.argv[1:] if one != "--worker"]
        subprocess.run([python, str(HERE / "run.py"), *options, "--worker", name], check=arguments.trace)

    if not arguments.report_only:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(start, names))
    files = [path for name in names if (path := file_of(name, arguments)).exists()]
    results = report.Results([*files, *arguments.earlier], arguments.parallel)
    listed = [one.name for one in chosen_problems(arguments) if arguments.group in (None, one.group)]
    at = [n for n in arguments.at if n <= arguments.budget]
    print(report.tables(results, at, listed, arguments.versus, arguments.rounds))
    if arguments.by_problem:
        print(report.by_problem(results, at[-1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
