"""Makes the golden logs of the current format, by real experiments. Run once a format; a log that is there stays.

    unshare -u sh -c 'hostname golden; .venv/bin/python tests/golden/make.py'

(under another host name, since it stands in every log). The files are never edited and never made again: they are what
a released version wrote. The trials' code directory is CODE, which whoever resumes one of them makes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

import harness

from tune.engine import home, views
from tune.engine.ask_tell import AskTell
from tune.engine.home import Folder
from tune.engine.requests import AskStop
from tune.engine.state import State

HERE = Path(__file__).parent
CODE = Path("/tmp/tune-golden")  # a fixed place, since it stands in the logs
SPACE = {
    "x": {"_type": "uniform", "_value": [0, 1]},
    "n": {"_type": "randint", "_value": [1, 9]},
    "c": {
        "_type": "choice",
        "_value": [{"_name": "a"}, {"_name": "b", "y": {"_type": "loguniform", "_value": [0.001, 1]}}],
    },
}
_ONE = "import os, sys, time, tune; p = tune.get_next_parameter(); a = int(os.environ['TUNE_ATTEMPT']); "
QUICK = (
    _ONE + "[tune.report_intermediate_result(p['x'] * s) for s in (1, 2, 3)]; tune.report_final_result(-p['x'] ** 2)"
)
PHASES = """
import tune
while (p := tune.get_next_parameter()) is not None:
    tune.report_intermediate_result(p["x"])
    tune.report_final_result({"default": p["x"], "more": [1, "NaN"]})
"""
FAILS = (
    _ONE + "tune.report_intermediate_result(float('nan')); sys.exit(3) if a == 0 else tune.report_final_result(p['x'])"
)
CURVES = _ONE + "\nfor s in range(20):\n    tune.report_intermediate_result(p['x'])\n    time.sleep(0.03)\n"
CURVES += "tune.report_final_result(p['x'])\n"
SLOW = _ONE + "tune.report_intermediate_result(p['x']); time.sleep(30 * (a == 0 and tune.get_sequence_id() < 2)); "
SLOW += "tune.report_final_result(p['x'])"


def command(script: str) -> str:
    """The trial command of an inline script."""
    import shlex

    return shlex.join(["python", "-c", script])


def _run(experiment: harness.Experiment) -> None:
    experiment.run()


def _stop_and_resume(experiment: harness.Experiment) -> None:
    experiment.start()
    experiment.until(lambda state: state.metrics >= 2)
    experiment.ask(AskStop("maker"))
    experiment.finish()
    experiment.run()


def _stop(experiment: harness.Experiment) -> None:
    experiment.start()
    experiment.until(lambda state: state.metrics >= 2)
    experiment.ask(AskStop("maker"))
    experiment.finish()


def _kill_and_update(experiment: harness.Experiment) -> None:
    experiment.start()
    experiment.until(lambda state: len(state.trials) >= 3)
    experiment.kill_engine()
    time.sleep(0.3)
    experiment.start(harness.limits(max_trial_number=9, trial_concurrency=3))
    experiment.finish()


Case = tuple[dict[str, Any], Callable[[harness.Experiment], None]]
CASES: dict[str, Case] = {
    "single_phase": ({"trial_command": command(QUICK), "max_trial_number": 8, "tuner": {"name": "TPE"}}, _run),
    "multi_phase": (
        {
            "trial_command": command(PHASES),
            "multi_phase": True,
            "max_phases_per_trial": 3,
            "max_trial_number": 3,
            "tuner": {"name": "TPE"},
        },
        _run,
    ),
    "stopped_and_resumed": (
        {"trial_command": command(SLOW), "max_trial_number": 4, "tuner": {"name": "Random"}},
        _stop_and_resume,
    ),
    "stopped": ({"trial_command": command(SLOW), "max_trial_number": 4, "tuner": {"name": "Random"}}, _stop),
    "failed_and_retried": (
        {"trial_command": command(FAILS), "max_trial_number": 3, "max_retries": 1, "tuner": {"name": "Random"}},
        _run,
    ),
    "early_stopped": (
        {
            "trial_command": command(CURVES),
            "max_trial_number": 6,
            "tuner": {"name": "TPE"},
            "assessor": {"name": "Medianstop", "class_args": {"start_step": 2}},
        },
        _run,
    ),
    "exhausted_grid": (
        {
            "trial_command": command(QUICK.replace("p['x']", "p['g']")),
            "search_space": {"g": {"_type": "choice", "_value": [0.1, 0.2, 0.3]}},
            "max_trial_number": None,
            "tuner": {"name": "GridSearch"},
        },
        _run,
    ),
    "killed_and_updated": (
        {"trial_command": command(QUICK), "max_trial_number": 5, "tuner": {"name": "TPE"}},
        _kill_and_update,
    ),
}

ASKED = "asked_and_told"  # by a program, without an engine


def _ask_and_tell() -> Folder:
    """A study with an early stop, a failure, a result that is none, a queued trial, and one given again."""
    study = AskTell(SPACE, "TPE", "minimize", seed=7, assessor="Medianstop", log=ASKED.replace("_", "-"))
    for number in range(6):
        if number == 2:
            study.enqueue({"x": 0.5, "n": 2, "c": {"_name": "a"}})
        trial = study.ask()
        study.report(trial, number)
        if study.should_stop(trial):
            study.tell(trial)
        elif number == 1:
            study.tell(trial, failed=True, error="out of memory")
        else:
            study.tell(trial, {"default": trial.parameters["x"]} if number else float("nan"))
    study.ask()
    study.close()
    with AskTell.resume(study.id) as again:
        again.tell(again.ask(), 0.25)
        again.ask()
    return home.find(study.id)


def seen(state: State) -> dict[str, Any]:
    """What people are promised to see of a log, whatever version shows it."""
    return {
        "status": state.status,
        "events": state.seq,
        "counts": state.counts,
        "best": views.best(state),
        "trials": [
            {
                key: trial[key]
                for key in ("number", "id", "status", "attempt", "parameters", "final", "intermediate", "exit_code")
            }
            for trial in json.loads(views.to_json(views.trials(state, folder=Path("/"))))
        ],
    }


def _keep(name: str, experiment: harness.Experiment) -> None:
    """Put a log among the golden ones, with what is seen of it."""
    target = HERE / f"{name}.1.db"
    state = experiment.state()
    text = json.dumps(seen(state), indent=1) + "\n"
    target.with_suffix(".json").write_text(text, encoding="utf-8")
    print(name, state.status, json.dumps({k: v for k, v in state.counts.items() if v}), state.seq, state.digest())
    shutil.copyfile(experiment.folder.events, target)


def main() -> int:
    """Make what is missing."""
    CODE.mkdir(exist_ok=True)
    base = Path(tempfile.mkdtemp())
    with harness.bench(base, os.environ.__setitem__) as bench:
        os.chdir(CODE)
        if not (HERE / f"{ASKED}.1.db").exists():
            _keep(ASKED, harness.Experiment(bench, _ask_and_tell()))
        for name, (fields, run) in CASES.items():
            target = HERE / f"{name}.1.db"
            if target.exists():
                continue
            config = {"search_space": SPACE, "trial_code_directory": str(CODE), "python": None, **fields}
            experiment = bench.experiment(**config)
            run(experiment)
            _keep(name, experiment)
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
