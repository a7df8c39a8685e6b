"""Tuners that promote, on learning curves of real trainings: how long until something is within 1 % of the best?

Every point of each grid in `curves/` was trained once (curves/record.py), so a search is simulated by looking up: N
workers train, an epoch takes one unit of time, and a trial that continues another begins at that one's epoch. The
clock stops when a worker reports a value within the tolerance of the best of all curves' ends. Figures are medians over
seeds of that time, in units of one complete training; "-" means that most seeds did not get there within the limit.
PBT and PB2 are not here: a recorded curve can't tell what changed parameters would have done.

Peers (optuna, syne-tune) run if this Python has them. `python benchmarks/fidelity.py [--seeds 20] [--workers 1 8]
[--tolerance 0.01] [--limit 60] [--only ASHA random]`, and with `--asks 100000` instead: what an ask costs after so many
trials (a made-up result each, four parameters), as the median of CPU time over the last 2,000.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import itertools
import json
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # as in the tuner host

import numpy as np  # noqa: E402

from tune.engine import registry  # noqa: E402
from tune.engine.plugins import Ask, Ended, Suggested, Suggestion  # noqa: E402
from tune.engine.space import parse  # noqa: E402

CURVES = Path(__file__).parent / "curves"


class Table:
    """One grid: `losses[point, epoch]`, and the parameters as places on their axes."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path)
        self.name = path.stem
        self.axes: dict[str, list[Any]] = json.loads(str(stored["axes"]))
        self.maximize = str(stored["mode"]) == "maximize"
        self.values = stored["values"].astype(float)
        self.epochs = self.values.shape[1]
        self.shape = [len(values) for values in self.axes.values()]
        self.best = float(self.values[:, -1].max() if self.maximize else self.values[:, -1].min())

    def row(self, places: dict[str, int]) -> int:
        """The number of a point."""
        return int(np.ravel_multi_index([places[name] for name in self.axes], self.shape))

    def reached(self, value: float, tolerance: float) -> bool:
        """Whether a value is as good as the best, up to the tolerance."""
        return value >= self.best * (1 - tolerance) if self.maximize else value <= self.best * (1 + tolerance)

    def named(self, name: str) -> bool:
        """Whether a parameter's values have no order."""
        return isinstance(self.axes[name][0], str)


@dataclass
class Job:
    """Epochs `done` to `until` of a point, by a worker; `handle` is the method's own."""

    row: int
    done: int
    until: int
    handle: Any


class Ours:
    """A tuner of the house, asked as the engine asks it."""

    def __init__(self, table: Table, seed: int, name: str, arguments: dict[str, Any]) -> None:
        raw = {
            axis: {"_type": "choice", "_value": list(range(len(values)))}
            if table.named(axis)
            else {"_type": "randint", "_value": [0, len(values)]}
            for axis, values in table.axes.items()
        }
        self.table, self.space, self.seed = table, parse(raw), seed
        mode = "maximize" if table.maximize else "minimize"
        self.tuner = registry.build(registry.tuner_class(name), arguments, mode)
        self.asks = self.trials = self.facts = 0
        self.until: dict[int, int] = {}

    def start(self) -> Job | None:
        """The next job, or None: nothing now."""
        trial = self.trials
        answer = self.tuner.suggest(Ask(self.asks, 0, trial, "t", 0, self.space, 0, self.seed))
        self.asks += 1
        if not isinstance(answer, Suggestion):
            return None
        self.trials += 1
        parameters = {**answer.parameters, **answer.extras}
        self.observe(Suggested(self.facts, trial, 0, parameters, continues=answer.continues, budget=answer.budget))
        done = 0 if answer.continues is None else self.until[answer.continues]
        self.until[trial] = self.table.epochs if answer.budget is None else int(answer.budget)
        return Job(self.table.row(dict(answer.parameters)), done, self.until[trial], trial)

    def observe(self, fact: Any) -> None:
        """Give the tuner a fact."""
        self.facts += 1
        self.tuner.observe(fact)

    def report(self, job: Job, epoch: int, value: float) -> bool:
        """An epoch is over; whether the job is to be stopped."""
        return False

    def end(self, job: Job, value: float) -> None:
        """A job is over."""
        self.observe(Ended(self.facts, job.handle, 0, "completed", value))


class Optuna:
    """A study with a pruner."""

    def __init__(self, table: Table, seed: int, sampler: str, pruner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruners = {
            "SuccessiveHalving": lambda: optuna.pruners.SuccessiveHalvingPruner(
                min_resource=1, reduction_factor=3, min_early_stopping_rate=0
            ),
            "Hyperband": lambda: optuna.pruners.HyperbandPruner(
                min_resource=1, max_resource=table.epochs, reduction_factor=3
            ),
        }
        samplers = {"random": optuna.samplers.RandomSampler, "TPE": optuna.samplers.TPESampler}
        self.table = table
        self.study = optuna.create_study(
            direction="maximize" if table.maximize else "minimize",
            sampler=samplers[sampler](seed=seed),
            pruner=pruners[pruner](),
        )

    def start(self) -> Job:
        """A new trial, up to the end."""
        trial = self.study.ask()
        places: dict[str, int] = {}
        for axis, values in self.table.axes.items():
            if self.table.named(axis):
                places[axis] = trial.suggest_categorical(axis, list(range(len(values))))
            else:
                places[axis] = trial.suggest_int(axis, 0, len(values) - 1)
        return Job(self.table.row(places), 0, self.table.epochs, trial)

    def report(self, job: Job, epoch: int, value: float) -> bool:
        """Whether the pruner wants to stop it."""
        job.handle.report(value, epoch)
        return epoch < self.table.epochs and job.handle.should_prune()

    def end(self, job: Job, value: float) -> None:
        """Tell the study; a stopped one as pruned."""
        import optuna

        if job.done < self.table.epochs:
            self.study.tell(job.handle, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(job.handle, value)


class SyneTune:
    """Syne Tune's asynchronous successive halving (it stops trials, as Ray's does)."""

    def __init__(self, table: Table, seed: int) -> None:
        from syne_tune.config_space import choice, randint
        from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving

        logging.disable(logging.WARNING)
        space = {
            axis: choice([str(i) for i in range(len(values))]) if table.named(axis) else randint(0, len(values) - 1)
            for axis, values in table.axes.items()
        }
        self.table, self.trials = table, 0
        self.scheduler = AsynchronousSuccessiveHalving(
            space,
            metric="value",
            do_minimize=not table.maximize,
            time_attr="epoch",
            max_t=table.epochs,
            random_seed=seed,
        )

    def start(self) -> Job:
        """A new trial, up to the end."""
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        suggestion: Any = self.scheduler.suggest()
        trial = Trial(self.trials, suggestion.config, datetime.now())
        self.trials += 1
        self.scheduler.on_trial_add(trial)
        return Job(self.table.row({a: int(suggestion.config[a]) for a in self.table.axes}), 0, self.table.epochs, trial)

    def report(self, job: Job, epoch: int, value: float) -> bool:
        """Whether the scheduler wants to stop it."""
        if epoch == self.table.epochs:
            return False
        return self.scheduler.on_trial_result(job.handle, {"value": value, "epoch": epoch}) != "CONTINUE"

    def end(self, job: Job, value: float) -> None:
        """Tell of the end, if it was not the scheduler's own decision."""
        if job.done == self.table.epochs:
            self.scheduler.on_trial_complete(job.handle, {"value": value, "epoch": job.done})


Method = Callable[[Table, int], Any]


def methods() -> dict[str, Method]:
    """What is compared, by name."""

    def ours(name: str, arguments: Callable[[Table], dict[str, Any]]) -> Method:
        return lambda table, seed: Ours(table, seed, name, arguments(table))

    found: dict[str, Method] = {
        "random": ours("Random", lambda table: {}),
        "TPE": ours("TPE", lambda table: {}),
        **{
            name: ours(name, lambda table: {"min_budget": 1, "max_budget": table.epochs})
            for name in ("ASHA", "PASHA", "BOHB", "DEHB")
        },
        "Hyperband": ours("Hyperband", lambda table: {"R": table.epochs}),
    }
    if importlib.util.find_spec("optuna"):
        found["optuna random + SuccessiveHalving"] = lambda table, seed: Optuna(
            table, seed, "random", "SuccessiveHalving"
        )
        found["optuna random + Hyperband"] = lambda table, seed: Optuna(table, seed, "random", "Hyperband")
        found["optuna TPE + Hyperband"] = lambda table, seed: Optuna(table, seed, "TPE", "Hyperband")
    if importlib.util.find_spec("syne_tune"):
        found["syne-tune ASHA"] = SyneTune
    return found


def simulate(method: Any, table: Table, workers: int, tolerance: float, limit: float) -> float:
    """When somebody reports a value within the tolerance, in complete trainings; inf: not within the limit."""
    tie = itertools.count()
    queue: list[tuple[float, int, Job]] = []
    now, idle = 0.0, workers
    while now <= limit * table.epochs:
        while idle:
            job = method.start()
            if job is None:
                break
            idle -= 1
            heapq.heappush(queue, (now + 1, next(tie), job))
        if not queue:
            return math.inf
        now, _, job = heapq.heappop(queue)
        value = float(table.values[job.row, job.done])
        job.done += 1
        if table.reached(value, tolerance):
            return now / table.epochs
        stopped = method.report(job, job.done, value)
        if stopped or job.done == job.until:
            method.end(job, value)
            idle += 1
        else:
            heapq.heappush(queue, (now + 1, next(tie), job))
    return math.inf


def asks(count: int) -> None:
    """Print what an ask costs: a draw of a point alone, as `Random` makes it, is the raw limit of a new one."""
    space = parse(
        {
            "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
            "momentum": {"_type": "uniform", "_value": [0, 1]},
            "width": {"_type": "randint", "_value": [1, 1000]},
            "batch": {"_type": "choice", "_value": [16, 32, 64]},
        }
    )
    for name in ("Random", "ASHA", "PASHA", "Hyperband", "BOHB", "DEHB", "PBT"):
        tuner = registry.build(registry.tuner_class(name), {})
        draw = np.random.default_rng(0)
        quality: list[float] = []  # a trial is as good as the one that it continues
        cost: dict[str, list[int]] = {}
        for number in range(count):
            ask = Ask(number, 0, number, "t", 0, space, 0, 7)
            began = time.process_time_ns()
            answer = tuner.suggest(ask)
            took = time.process_time_ns() - began
            assert isinstance(answer, Suggestion)
            if number >= count - 2000:
                cost.setdefault("continues" if answer.continues is not None else "new", []).append(took)
            quality.append(float(draw.random()) if answer.continues is None else quality[answer.continues])
            parameters = {**answer.parameters, **answer.extras}
            tuner.observe(Suggested(2 * number, number, 0, parameters, budget=answer.budget))
            tuner.observe(Ended(2 * number + 1, number, 0, "completed", quality[-1]))
        found = ", ".join(f"{kind} {statistics.median(each) / 1e6:.4f} ms" for kind, each in sorted(cost.items()))
        print(f"{name:12s} after {count:,} trials: {found}", flush=True)


def main() -> None:
    """Print one table for each number of workers."""
    parser = argparse.ArgumentParser(description="Tuners that promote, on recorded learning curves.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--limit", type=float, default=60)
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--asks", type=int, default=0)
    options = parser.parse_args()
    if options.asks:
        return asks(options.asks)
    warnings.filterwarnings("ignore")  # a peer's, of arguments that it calls experimental
    tables = [Table(path) for path in sorted(CURVES.glob("*.npz"))]
    for workers in options.workers:
        good = [np.mean([t.reached(v, options.tolerance) for v in t.values[:, -1]]) for t in tables]
        print(f"\n{workers} workers, within {options.tolerance:.2%} of the best; complete trainings, less is better")
        heads = [f"{t.name} ({share:.0%} of {len(t.values)})" for t, share in zip(tables, good, strict=True)]
        print(f"{'':36s}" + "".join(f"{head:>28s}" for head in heads) + f"{'mean to random':>16s}{'s':>7s}")
        base: list[float] = []
        for name, method in methods().items():
            if options.only and name not in options.only:
                continue
            began, medians = time.process_time(), []
            for table in tables:
                times = [
                    simulate(method(table, seed), table, workers, options.tolerance, options.limit)
                    for seed in range(options.seeds)
                ]
                medians.append(statistics.median(times))
            base = base or medians
            ratio = math.exp(statistics.fmean(math.log(m / b) for m, b in zip(medians, base, strict=True)))
            cells = "".join(f"{m:28.2f}" if math.isfinite(m) else f"{'-':>28s}" for m in medians)
            print(f"{name:36s}{cells}{ratio:16.2f}{time.process_time() - began:7.1f}", flush=True)


if __name__ == "__main__":
    main()
