"""The docs say what is so: their commands run, their links lead somewhere, their tables are those of the code."""

import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tune.engine import config_load, registry
from tune.engine.config import Config
from tune.engine.space import KINDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIG = (ROOT / "docs" / "config.md").read_text()
SPACES = (ROOT / "docs" / "search-space.md").read_text()


def rows(heading: str, page: str = CONFIG) -> list[list[str]]:
    """The cells of all tables under a heading of a page, heads left out."""
    text = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `") and not line.startswith("| `_type` |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    assert targets or path.name == "add-a-verb.md" or path.name.startswith("add-a")
    for target in targets:
        assert (path.parent / target).exists(), target


def test_the_quickstart_runs_as_it_is_written(tmp_path: Path, tune: Any, page: Callable[[str], Any]) -> None:
    quickstart = page("docs/quickstart.md")
    folder = tmp_path / "my-search"
    quickstart.write(folder)
    commands = [command.split() for command in quickstart.commands]
    assert [command[:2] for command in commands[:2]] == [["tune", "check"], ["tune", "create"]]
    outputs = {" ".join(command): tune(*command[1:], cwd=folder) for command in commands}
    created = outputs["tune create config.toml"].splitlines()
    assert re.fullmatch(r"Experiment ID: [a-z][a-z0-9]{7}", created[0])
    assert re.match(r"DONE best 0\.\d+ trial \d \{", created[-1])
    assert (folder / "results.csv").read_text().splitlines()[0].startswith("trial,phase,status,parameters.")
    status = tune.json("status")
    assert (status["status"], status["max_trial_number"], status["counts"]["SUCCEEDED"]) == ("DONE", 10, 10)


def test_the_worked_example_of_a_search_space_runs_as_it_is_written(
    tmp_path: Path, tune: Any, page: Callable[[str], Any]
) -> None:
    example = page("docs/search-space.md")
    folder = tmp_path / "my-search"
    example.write(folder)
    outputs = {command: tune(*command.split()[1:], cwd=folder) for command in example.commands}
    trials = {name: tune.json("trials", name) for name in ("small", "narrow")}
    assert trials["small"][0]["parameters"] == {"batch": 64, "width": 128, "lr": 0.1}
    assert all(one["parameters"]["batch"] * one["parameters"]["width"] <= 65536 for one in trials["small"])
    front = tune.json("best", "small")
    assert front and all(one["violation"] == 0.0 for one in front)
    assert outputs["tune create config.toml --id small"].splitlines()[-1] == (
        f"DONE pareto {len(front)} trials {' '.join(str(one['trial']) for one in front)}"
    )
    assert re.search(r"^\d+ results imported into experiment narrow$", outputs["tune import narrow --from small"], re.M)
    assert trials["narrow"][14]["parameters"] == {"batch": 64, "width": 64, "lr": 0.1} and len(trials["narrow"]) == 16


def test_every_field_of_the_config_is_there_with_its_default() -> None:
    found = {cells[0].strip("`"): cells[1].strip("`") for cells in rows("Fields")}
    special = {
        "search_space": "required",
        "trial_command": "required",
        "trial_code_directory": '"."',
        "seed": "drawn",
        "tuner": '{ name = "TPE" }',
        "training_service": '{ platform = "local" }',
    }
    assert found.pop("search_space_file") == "none"
    assert set(found) == set(Config.__struct_fields__)
    for field in msgspec.structs.fields(Config):
        value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        default = "none" if value is None else "" if value is msgspec.NODEFAULT else msgspec.json.encode(value).decode()
        assert found[field.name] == special.get(field.name, default), field.name


def test_every_type_of_the_search_space_is_there() -> None:
    assert {cells[0].strip("`") for cells in rows("Types", SPACES)} == set(KINDS)


def test_every_tuner_and_assessor_is_there_with_its_options() -> None:
    listed = {cells[0].strip("`"): cells[1] for cells in rows("Tuner and assessor")}
    built_in: list[tuple[str, type[Any]]] = [
        registry.find(kind, name)
        for kind in ("tuner", "assessor")
        for name in registry.names(kind)  # type: ignore[arg-type]
        if registry.find(kind, name)[1].__module__.startswith("tune.")  # type: ignore[arg-type]
    ]
    assert {name for name, _ in built_in} <= set(listed)
    for name, cls in built_in:
        for option in inspect.signature(cls).parameters:
            assert option == "optimize_mode" or f"`{option}`" in listed[name], (name, option)


def test_what_looks_like_a_config_is_one(tmp_path: Path) -> None:
    (tmp_path / "trial.py").write_text("")
    checked = 0
    for path in PAGES:
        for language, body in re.findall(r"^```(toml|yaml)[^\n]*\n(.*?)^```$", path.read_text(), re.M | re.S):
            data = tomllib.loads(body) if language == "toml" else yaml.safe_load(body)
            if "project" in data or "search_space" not in data:
                continue
            data.setdefault("trial_command", "true")
            if data.get("tuner", {}).get("class_name") or data.get("assessor", {}).get("class_name"):
                continue  # run from outside the tree in test_plugins_outside.py
            if data.get("training_service", {}).get("platform", "local") != "local":
                continue
            config_load.from_mapping(data, tmp_path)
            checked += 1
    assert checked >= 3


def test_the_two_commands_of_the_readme_are_there(page: Callable[[str], Any]) -> None:
    text = (ROOT / "README.md").read_text()
    for command in re.findall(r"^```sh\n(.*?)\n```$", text, re.M | re.S):
        assert (ROOT / command).is_file() and (ROOT / command).stat().st_mode & 0o111, command
    assert "scripts/test\n" in (ROOT / ".ci" / "run").read_text()


def test_the_verbs_that_are_named_exist() -> None:
    named = {word for path in PAGES for word in re.findall(r"(?:`|\$ )tune ([a-z]+)", path.read_text())}
    assert {"create", "resume", "stop"} <= named
    assert named - {"slowest"} <= set(registry.names("verb"))
