"""engine/objective.py and trial_sdk/function.py: a Python function gets to the trials, without a pickle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune.engine.objective import as_config, sliced, write

SOURCE = """
import math as m, os
from tune import Experiment
import never_needed_and_not_there
SCALE = 2
OTHER = SCALE + 1
if os.environ.get("NOT_SET"):
    SCALE = 3
def unused(): return never_needed_and_not_there.x
def helper(x, *more, key=None, **rest):
    try:
        return x * SCALE + sum(q for q in [1, 2])
    except ValueError as error:
        raise error
class Net:
    depth = OTHER
    def go(self): return m.floor(self.depth)
def objective(parameters):
    global COUNT
    COUNT = 1
    with open(os.devnull) as file:
        file.read()
    return helper(parameters["x"]) + Net().go() + COUNT
experiment = Experiment("local", objective=objective)
experiment.run()
if __name__ == "__main__":
    raise SystemExit("never in a trial")
"""


def test_only_what_the_function_needs_is_cut_out() -> None:
    text = sliced(SOURCE, "objective")
    names: dict[str, object] = {}
    exec(compile(text, "cut", "exec"), names)
    assert names["objective"]({"x": 5}) == 5 * 2 + 3 + 3 + 1  # type: ignore[operator]
    for word in ("experiment", "never_needed", "unused", "SystemExit"):
        assert word not in text
    assert text.index("SCALE = 2") < text.index("OTHER") < text.index("class Net")


def test_what_it_needs_and_nobody_binds_is_named() -> None:
    with pytest.raises(ValueError, match="'data', which no top-level statement"):
        sliced("def f(p):\n    return data[p['x']]", "f")
    with pytest.raises(ValueError, match="f is not defined at the top level"):
        sliced("def g(p):\n    def f(): pass", "f")


@pytest.mark.parametrize(
    "text",
    [
        "f = lambda p: p['x'] + (lambda z: z)(1)",
        "def f(p):\n    return [y for y in range(3) if (z := y)] and {k: v for k, v in p.items()}",
        "def f(p):\n    for i, (a, b) in enumerate([]): pass\n    import math\n    return math.pi",
        "def f(p):\n    def inner(): return later\n    later = 1\n    return inner()",
        "import functools\n@functools.cache\ndef f(p=1): return p",
        "for i in range(3): total = i\ndef f(p): return total",
    ],
)
def test_names_of_its_own_are_not_asked_for(text: str) -> None:
    names: dict[str, object] = {}
    exec(compile(sliced(text, "f"), "cut", "exec"), names)
    assert callable(names["f"])


def test_what_has_no_name_is_refused(tmp_path: Path) -> None:
    def inner(parameters: dict[str, float]) -> float:
        return parameters["x"]

    for function in (inner, lambda parameters: 1, len.__call__):
        with pytest.raises(ValueError, match="at the top level"):
            write(function, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_function_of_a_module_goes_by_name(tmp_path: Path) -> None:
    write(json.dumps, tmp_path)
    said = json.loads((tmp_path / "objective.json").read_text())
    assert (said["module"], said["name"]) == ("json", "dumps")
    assert not (tmp_path / "objective.py").exists()


def test_a_script_s_function_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    script, place = tmp_path / "script.py", tmp_path / "objective"
    place.mkdir()
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tune.engine.objective import write\nBASE = 40\n"
        "def f(parameters):\n    print('value', BASE + len(parameters))\n    return BASE\n"
        f"write(f, Path({str(place)!r}))\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "NNI_"))}
    found = subprocess.run(
        [sys.executable, "-m", "tune.trial_sdk.function"],
        cwd=place,
        env=env,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "value 40" in found.stdout
    assert "40" in found.stdout.split("value 40")[1]  # the final result, printed when alone


def test_a_command_beside_it_is_refused(tmp_path: Path) -> None:
    assert as_config({"seed": 1}, tmp_path)["seed"] == 1
    with pytest.raises(ValueError, match="trial_command: found beside an objective"):
        as_config({"trial_command": "x"}, tmp_path)
