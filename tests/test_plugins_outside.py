"""A tuner, an assessor, a training service and a verb from outside the tree: those of the docs, word for word."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def outside(tmp_path: Path, tune: Any, page: Callable[[str], Any]) -> Callable[[str], Path]:
    """Writes a page's files to a folder of its own, as if pip had installed its package from there."""

    def install(name: str) -> Path:
        folder = tmp_path / "theirs"
        page(f"docs/{name}").write(folder)
        tune.environment["PYTHONPATH"] = str(folder)
        return folder

    return install


def by_name(config: Path, section: str, name: str, arguments: str) -> Path:
    """The config beside `config` that names the plug-in instead of its folder."""
    head = config.read_text().partition(f"[{section}]")[0]
    other = config.with_name("by_name.toml")
    other.write_text(f'{head}[{section}]\nname = "{name}"\nclass_args = {{ {arguments} }}\n')
    return other


def test_a_tuner_from_a_folder_and_by_name(outside: Callable[[str], Path], tune: Any) -> None:
    folder = outside("add-a-tuner.md")
    results = []
    for config in (folder / "config.toml", by_name(folder / "config.toml", "tuner", "HillClimb", "step = 0.2")):
        status = tune.json("create", str(config))
        assert status["status"] == "DONE"
        trials = tune.json("trials", status["id"])
        assert [trial["status"] for trial in trials] == ["SUCCEEDED"] * 12
        results.append([trial["parameters"] for trial in trials])
    assert results[0] == results[1]
    assert len({repr(parameters) for parameters in results[0]}) > 3


def test_the_tuners_options_are_its_constructor(outside: Callable[[str], Path], tune: Any) -> None:
    folder = outside("add-a-tuner.md")
    config = by_name(folder / "config.toml", "tuner", "HillClimb", "stop = 0.2")
    tune("create", str(config), code=2)
    assert not list(tune.home.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "plugin"),
    [("add-a-tuner.md", "tuners", "HillClimb"), ("add-an-assessor.md", "assessors", "Floor")],
)
def test_it_passes_the_contract(outside: Callable[[str], Path], name: str, kind: str, plugin: str) -> None:
    folder = outside(name)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"]
    command += [str(ROOT / "tests" / "contract" / f"test_{kind}.py"), "-k", plugin]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("CI", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_assessor_from_a_folder_and_by_name(outside: Callable[[str], Path], tune: Any) -> None:
    folder = outside("add-an-assessor.md")
    for config in (folder / "config.toml", by_name(folder / "config.toml", "assessor", "Floor", "floor = 0.5")):
        status = tune.json("create", str(config))
        assert status["status"] == "DONE"
        trials = tune.json("trials", status["id"])
        hopeless = [trial["parameters"]["x"] < 0.5 for trial in trials]
        assert any(hopeless) and not all(hopeless)
        assert [trial["status"] == "EARLY_STOPPED" for trial in trials] == hopeless


def test_a_training_service_is_a_platform(outside: Callable[[str], Path], tune: Any) -> None:
    folder = outside("add-a-training-service.md")
    status = tune.json("create", str(folder / "config.toml"))
    assert status["status"] == "DONE"
    trials = tune.json("trials", status["id"])
    assert [trial["host"] for trial in trials] == ["background"] * 3
    assert [trial["final"] for trial in trials] == [19] * 3


def test_a_verb_beside_the_built_in_ones(outside: Callable[[str], Path], tune: Any) -> None:
    folder = outside("add-a-verb.md")
    (folder / "trial.py").write_text("import tune\ntune.report_final_result(tune.get_next_parameter()['x'])\n")
    (folder / "config.toml").write_text(
        'trial_command = "python trial.py"\nmax_trial_number = 4\n'
        '[search_space]\nx = { _type = "uniform", _value = [0, 1] }\n'
    )
    status = tune.json("create", str(folder / "config.toml"))
    lines = tune("slowest", "--count", "2").splitlines()
    assert len(lines) == 2
    ids = {trial["id"]: str(trial["number"]) for trial in tune.json("trials", status["id"])}
    for line in lines:
        number, id, word, _ = line.split()
        assert (ids[id], word) == (number, "SUCCEEDED")
    assert "--count" in tune("slowest", "--help")
    assert "slowest" in tune("--help")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs").glob("add-a*.md")))
def test_every_page_shows_a_package(name: str, page: Callable[[str], Any]) -> None:
    files = page(f"docs/{name}").files
    project = tomllib.loads(files["pyproject.toml"])["project"]
    for entries in project["entry-points"].values():
        for target in entries.values():
            assert f"{target.partition(':')[0]}.py" in files
