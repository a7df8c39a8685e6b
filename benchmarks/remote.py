"""Trials over SSH beside the same trials on this host: a real OpenSSH server on loopback, so that only the way differs.

From `tune create` to the first parameters on a fresh host (a Python and nothing else) and on a prepared one; no-op
trials a second; intermediate results a second; memory of the keeper with 8 trials.

    python benchmarks/remote.py [trials] [rounds]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "e2e"))

from memory import megabytes
from noop_trials import SPAN, TRIAL
from side_by_side import ask_log, finish, folder, line, medians, start
from sshd import Sshd

from tune.engine import home
from tune.trial_sdk.keeper import read_lock

HELD = """
import os, time
import tune
tune.get_next_parameter()
with open(os.environ["HELD"] + ".new", "w") as file:
    file.write(str(time.time()))
os.rename(os.environ["HELD"] + ".new", os.environ["HELD"])
tune.report_final_result(1)
"""
REPORTS = """
import tune
tune.get_next_parameter()
for number in range(20_000):
    tune.report_intermediate_result(number)
tune.report_final_result(1)
"""
WAITS = """
import os, time
import tune
tune.get_next_parameter()
tune.report_intermediate_result(1)
while not os.path.exists(os.environ["HELD"]):
    time.sleep(0.05)
tune.report_final_result(1)
"""


def first_parameters(base: Path, server: Sshd, python: Path, *, prepared: bool) -> float:
    """Seconds from `tune create` to the moment in which a trial on the host holds its parameters."""
    if not prepared:
        shutil.rmtree(server.home, ignore_errors=True)
    held = base / "held"
    machine = server.machine(python_path=str(python), env={"HELD": str(held)})
    (base / "code").mkdir(exist_ok=True)
    (base / "code" / "trial.py").write_text(HELD)
    config = base / "config.json"
    fields = {
        "trial_command": "exec python trial.py",
        "trial_code_directory": "code",
        "max_trial_number": 1,
        "search_space": {"x": {"_type": "uniform", "_value": [0, 1]}},
        "tuner": {"name": "Random"},
        "training_service": {"platform": "remote", "machine_list": [machine]},
    }
    config.write_text(json.dumps(fields))
    begin = time.time()
    subprocess.run([Path(sys.executable).with_name("tune"), "create", config], check=True, capture_output=True)
    taken = float(held.read_text()) - begin
    held.unlink()
    return taken


def keeper_memory(base: Path, server: Sshd) -> float:
    """RSS in MB of a keeper on the host that has 8 trials."""
    held = base / "go"
    machine = server.machine(env={"HELD": str(held)})
    service = {"platform": "remote", "machine_list": [machine]}
    experiment = start(base, WAITS, max_trial_number=8, trial_concurrency=8, training_service=service)
    while ask_log(experiment, "SELECT count(*) FROM event WHERE kind = 'METRIC'")[0] < 8:
        time.sleep(0.1)
    lock = read_lock(next(server.home.glob(f"experiments/{experiment.id}/keeper.*.lock")))
    assert lock is not None
    found = megabytes(lock.pid)[0]
    held.touch()
    finish(experiment)
    held.unlink()
    return found


def main(trials: int, rounds: int) -> None:
    """Measure and print."""
    with folder() as base:
        os.environ["TUNE_HOME"] = str(base / "home")
        server = Sshd(base / "sshd")
        try:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", base / "bare"], check=True)
            remote = {"platform": "remote", "machine_list": [server.machine()]}
            python = base / "bare"
            found = medians(
                {
                    "fresh": lambda: first_parameters(base, server, python, prepared=False),
                    "prepared": lambda: first_parameters(base, server, python, prepared=True),
                },
                rounds,
            )
            for name in ("fresh", "prepared"):
                line(f"create to first parameters, {name} host", f"{found[name]:.2f} s", "", 0.0, "")

            def a_second(text: str, sql: str, scale: float, **fields: object) -> float:
                experiment: home.Folder = start(base, text, **fields)
                finish(experiment)
                return scale / (ask_log(experiment, sql)[0] / 1e6)

            for at_once in (2, 8):
                limits = {"max_trial_number": trials, "trial_concurrency": at_once}
                rate = medians(
                    {
                        "local": lambda limits=limits: a_second(TRIAL, SPAN, trials, **limits),
                        "ssh": lambda limits=limits: a_second(TRIAL, SPAN, trials, training_service=remote, **limits),
                    },
                    rounds,
                )
                line(
                    f"no-op trials over SSH, {at_once} at a time",
                    f"{rate['ssh']:.1f}/s",
                    f"local: {rate['local']:.1f}/s",
                    rate["ssh"] / rate["local"],
                    ">= 0.7",
                )
            span = (
                "SELECT (SELECT max(wall_us) FROM event WHERE kind = 'METRIC') - "
                "(SELECT min(wall_us) FROM event WHERE kind = 'METRIC')"
            )
            rate = medians(
                {
                    "local": lambda: a_second(REPORTS, span, 20_000, max_trial_number=1),
                    "ssh": lambda: a_second(REPORTS, span, 20_000, max_trial_number=1, training_service=remote),
                },
                rounds,
            )
            line(
                "intermediate results over SSH, 1 trial",
                f"{rate['ssh']:,.0f}/s",
                f"local: {rate['local']:,.0f}/s",
                rate["ssh"] / rate["local"],
                "",
            )
            line("keeper on a host, 8 trials", f"{keeper_memory(base, server):.1f} MB", "", 0.0, "")
        finally:
            server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
