"""How a study's plug-ins are named: those of the house by name, classes by module and folder, objects as they are."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from tune.engine import home
from tune.engine.config import IN_PROCESS, Algorithm, Config
from tune.engine.errors import UsageError
from tune.engine.in_process import checked, made, named, resumable
from tune.tuners.tpe import TPE

CONFIG = Config(
    search_space={"x": {"_type": "uniform", "_value": [0, 1]}},
    trial_command=IN_PROCESS,
    trial_code_directory="/",
    optimize_mode="minimize",
)


class Mine:
    """A tuner."""

    def __init__(self, *, optimize_mode: str = "maximize", n: int = 1) -> None:
        self.mode, self.n = optimize_mode, n

    def suggest(self, ask: object) -> None: ...

    def observe(self, fact: object) -> None: ...


def test_one_of_the_house_has_its_name() -> None:
    assert named("tuner", "tpe", {"seed": 1}, "minimize") == (Algorithm(name="tpe", class_args={"seed": 1}), None)
    assert named("tuner", TPE, {}, "minimize") == (Algorithm(name="TPE"), None)
    assert checked(msgspec.structs.replace(CONFIG, tuner=Algorithm(name="tpe"))).tuner.name == "TPE"


def test_a_class_has_its_module_and_folder_and_is_made_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, tuner = named("tuner", Mine, {"n": 3}, "minimize")
    assert (tuner.mode, tuner.n) == ("minimize", 3)
    assert chosen.class_name == f"{Mine.__module__}.Mine" and chosen.class_args == {"n": 3}
    assert Path(chosen.code_directory).is_absolute() and Path(__file__).is_relative_to(chosen.code_directory)
    again = made(Mine, chosen, CONFIG)
    assert (again.mode, again.n) == ("minimize", 3)
    monkeypatch.setattr(Mine, "__module__", "__main__")
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    main, _ = named("tuner", Mine, {}, "maximize")
    assert (main.class_name, main.code_directory) == ("__main__.Mine", "")  # nobody may run a program for its class


def test_an_object_is_taken_as_it_is() -> None:
    mine = Mine(n=5)
    chosen, tuner = named("tuner", mine, {}, "minimize")
    assert tuner is mine and chosen.class_name.endswith(".Mine")
    assert made(mine, chosen, CONFIG) is mine
    for wrong, arguments, said in ((object(), {}, "no method suggest"), (mine, {"n": 1}, "beside an object")):
        with pytest.raises(UsageError, match=said):
            named("tuner", wrong, arguments, "minimize")


def test_what_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    here = home.Folder("it", tmp_path / "it", tmp_path / "it")
    elsewhere = home.Folder("it", tmp_path / "a" / "it", tmp_path / "a" / "it")
    users = msgspec.structs.replace(CONFIG, tuner=Algorithm(class_name="mine.Mine", code_directory="/"))
    local = msgspec.structs.replace(CONFIG, tuner=Algorithm(class_name="mine.f.<locals>.Mine", code_directory="/"))
    assert resumable(here, CONFIG, False, False) is CONFIG
    assert resumable(here, users, False, False) is users
    assert resumable(elsewhere, users, True, False) is users
    for folder, config, said in (
        (here, msgspec.structs.replace(CONFIG, trial_command="python t.py"), "has a trial_command"),
        (here, local, "can't be imported by its name"),
        (elsewhere, users, "not imported"),
    ):
        with pytest.raises(UsageError, match=said):
            resumable(folder, config, False, False)
