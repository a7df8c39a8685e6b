"""`tune hello`: writes a small experiment that runs as it is, to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.errors import UsageError
from .reading import printable, say

CONFIG = """\
# A first experiment: twelve trials, two at a time, chosen by the tuner that fits.
#
#     tune create config.toml

experiment_name = "hello"
trial_command = "python3 trial.py"
trial_code_directory = "."
trial_concurrency = 2
max_trial_number = 12
optimize_mode = "maximize"

[search_space]
rate = { _type = "loguniform", _value = [0.001, 1.0] }
momentum = { _type = "uniform", _value = [0.0, 0.99] }
shape = { _type = "choice", _value = ["round", "steep"] }

[tuner]
name = "Auto"
"""

TRIAL = '''\
"""One trial: a make-believe training whose score depends on its parameters, with a little noise."""

import math
import random
import time

import tune

parameters = tune.get_next_parameter()
rate = parameters.get("rate", 0.05)  # alone, without an experiment (`python3 trial.py`), there are none
momentum = parameters.get("momentum", 0.5)
steep = parameters.get("shape") == "steep"

goal = 1.0 - 0.1 * abs(math.log10(rate / 0.03)) - 0.3 * (momentum - 0.8) ** 2 + (0.05 if steep else 0.0)
noise = random.Random(tune.get_sequence_id())
score = 0.0
for epoch in range(10):
    time.sleep(0.05)
    score = goal * (1.0 - math.exp(-0.5 * (epoch + 1))) + noise.gauss(0.0, 0.005)
    tune.report_intermediate_result(score)
    if tune.should_stop():
        break
tune.report_final_result(score)
'''

README = """\
# Hello, tune

    tune check config.toml      what the config comes to; starts nothing
    tune create config.toml     run it, and watch; Ctrl-C stops it
    tune trials                 every trial with its parameters and result
    tune best                   the best one
    tune resume --max-trials 20 go on where it ended
    tune export -o results.csv  a table of all results

`trial.py` is one trial. It runs alone too: python3 trial.py
"""


def hello(
    directory: Annotated[Path, Parameter(help="Folder to write to; it is made, or must be empty.")] = Path(),
    /,
) -> None:
    """Write an example that runs: a config, trial code, and what to type next."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty", "Name a new folder: tune hello my-first")
        for name, text in (("config.toml", CONFIG), ("trial.py", TRIAL), ("README.md", README)):
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{directory} can't be written: {error.strerror}", "Name another folder.") from error
    say(f"config.toml, trial.py and README.md are in {printable(str(directory.absolute()))}. Next:")
    say()
    if directory.absolute() != Path.cwd():
        say(f"    cd {printable(str(directory))}")
    say("    tune create config.toml")
