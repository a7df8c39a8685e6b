"""engine/registry.py: how plug-ins are found by name, entry point or folder, and how their arguments are checked."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tune.engine import registry
from tune.engine.errors import UsageError


class Options:
    def __init__(
        self,
        *,
        optimize_mode: Literal["maximize", "minimize"] = "maximize",
        gamma: float = 0.25,
        startup: int = 20,
        liar: str | None = None,
    ) -> None:
        self.given = (optimize_mode, gamma, startup, liar)


class Bare:
    def __init__(self) -> None: ...


class Open:
    def __init__(self, path: str, **others: Any) -> None:
        self.given = (path, others)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A third party's distribution with entry points, on the import path."""
    meta = tmp_path / "theirs-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(
        "[tune.tuners]\nCoin-Flip = theirs_x:Coin\nGone = theirs_x:Gone\nRandom = theirs_x:Coin\n"
        "[tune.assessors]\nNoVerdict = theirs_x:Coin\n[tune.training_services]\nCloud = theirs_x:Cloud\n"
        "[tune.verbs]\ngreet = theirs_x:greet\n"
    )
    (tmp_path / "theirs_x.py").write_text(
        "class Coin:\n    def suggest(self, ask): ...\n    def observe(self, fact): ...\n"
        "class Cloud: ...\ndef greet(): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("theirs_x", None)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in place of `tune`, with a folder `tuners` that is ours to fill."""
    (tmp_path / "fakehouse" / "tuners").mkdir(parents=True)
    for folder in ("fakehouse", "fakehouse/tuners"):
        (tmp_path / folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_package", lambda: "fakehouse")
    registry._files.cache_clear()
    registry._class_in.cache_clear()
    yield tmp_path / "fakehouse" / "tuners"
    registry._files.cache_clear()
    registry._class_in.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "fakehouse"]:
        del sys.modules[name]


TUNER = "class {0}:\n    def suggest(self, ask): ...\n    def observe(self, fact): ...\n"


@pytest.mark.parametrize("name", ["GridSearch", "grid_search", "GRIDSEARCH", "grid-search", "GridSearchTuner"])
def test_case_underscores_and_nni_suffixes_do_not_count(room: Path, name: str) -> None:
    (room / "grid_search.py").write_text(TUNER.format("GridSearch") + "class Other: ...\n")
    written, cls = registry.find("tuner", name)
    assert (written, cls.__name__) == ("GridSearch", "GridSearch")
    assert registry.tuner_class(name) is cls


def test_one_file_is_one_plugin_and_its_methods_say_which_kind(room: Path) -> None:
    (room / "alpha.py").write_text(TUNER.format("Alpha"))
    (room / "beta.py").write_text("class Beta:\n    def observe(self, f): ...\n    def verdict(self, t): ...\n")
    (room / "both.py").write_text(
        "class _B:\n    def suggest(self, a): ...\nclass Both(_B):\n    def verdict(self, t): ...\n"
    )
    (room / "heir.py").write_text("from .alpha import Alpha\nclass Heir(Alpha): ...\n")
    (room / "nothing.py").write_text("class Else: ...\n")
    (room / "broken.py").write_text("class Broken(:\n")
    (room / "_private.py").write_text(TUNER.format("Private"))
    assert registry.names("tuner") == ["Alpha", "Both", "Heir"]
    assert registry.names("assessor") == ["Beta", "Both"]
    assert registry.assessor_class("both") is registry.tuner_class("both")
    with pytest.raises(UsageError, match="unknown assessor 'alpha'") as caught:
        registry.find("assessor", "alpha")
    assert caught.value.hint == "allowed: Beta, Both"


def test_unknown_names_are_answered_with_the_allowed_and_the_nearest(room: Path) -> None:
    (room / "medianstop.py").write_text("class Medianstop:\n    def verdict(self, t): ...\n")
    with pytest.raises(UsageError) as caught:
        registry.find("assessor", "MedianStopp")
    assert caught.value.exit_code == 2
    assert str(caught.value) == "unknown assessor 'MedianStopp'\nallowed: Medianstop; did you mean Medianstop?"


def test_names_import_nothing(room: Path) -> None:
    (room / "alpha.py").write_text(TUNER.format("Alpha") + "raise SystemExit('imported')\n")
    assert registry.names("tuner") == ["Alpha"]


def test_a_plugin_whose_import_fails_says_how_to_install_what_is_missing(room: Path) -> None:
    (room / "alpha.py").write_text(TUNER.format("Alpha") + "raise ModuleNotFoundError('no torch', name='torch.nn')\n")
    (room / "beta.py").write_text(TUNER.format("Beta") + "1 / 0\n")
    with pytest.raises(registry.PluginError, match="tuner Beta can't be imported: ZeroDivisionError"):
        registry.find("tuner", "beta")
    with pytest.raises(registry.PluginError) as caught:
        registry.find("tuner", "alpha")
    assert caught.value.hint == "Install it with: pip install 'tune-engine[torch]'"


def test_entry_points_add_plugins_of_every_kind(installed: Path) -> None:
    written, cls = registry.find("tuner", "coinflip")
    assert (written, cls.__name__) == ("Coin-Flip", "Coin")
    assert "Coin-Flip" in registry.names("tuner") and "Cloud" in registry.names("training_service")
    assert registry.training_service_class("cloud").__name__ == "Cloud"
    assert registry.find("verb", "greet")[0] == "greet" and "greet" in registry.names("verb")
    with pytest.raises(registry.PluginError, match=r"Gone .* can't be imported"):
        registry.find("tuner", "gone")
    with pytest.raises(registry.PluginError, match="has no method verdict"):
        registry.find("assessor", "noverdict")


def test_a_built_in_name_wins_over_an_installed_one(installed: Path) -> None:
    assert registry.tuner_class("Random").__module__ == "tune.tuners.random"


def test_a_verb_is_a_function_named_as_its_file(room: Path) -> None:
    verbs = room.parent / "cli"
    verbs.mkdir()
    for name, text in {
        "__init__": "",
        "import_": "def import_(): return 1\n",
        "list": "def list_(): return 2\n",
        "serve": "async def serve(): ...\n",
        "tables": "def table(): ...\n",
    }.items():
        (verbs / f"{name}.py").write_text(text)
    assert registry.names("verb") == ["import", "list"]
    assert [registry.find("verb", name)[1]() for name in ("import", "list")] == [1, 2]


def test_the_built_in_rooms() -> None:
    assert {"Batch", "GridSearch", "Random", "TPE"} <= set(registry.names("tuner"))
    assert "Medianstop" in registry.names("assessor") and "Medianstop" not in registry.names("tuner")
    nnis = {"BatchTuner": "Batch", "EvolutionTuner": "Evolution", "RegularizedEvolutionTuner": "RegularizedEvolution"}
    for theirs, ours in {**nnis, "anneal": "Anneal", "SMACTuner": "SMAC", "nsga-ii": "NSGAII"}.items():
        assert registry.find("tuner", theirs)[0] == ours
    assert registry.find("assessor", "CurvefittingAssessor")[0] == "Curvefitting"


def test_a_users_class_comes_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "zz_mine.py").write_text("from zz_beside import N\nclass Mine:\n    n = N\n")
    (tmp_path / "zz_beside.py").write_text("N = 3\n")
    # in a process of its own: the folder stays on the import path
    code = "import sys; from tune.engine.registry import user_class; print(user_class(sys.argv[1], 'zz_mine.Mine').n)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_what_is_wrong_with_a_users_class_is_seen_without_importing_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.py").write_text("")
    assert registry.user_class_problem(str(tmp_path), "mine.Mine") is None
    assert registry.user_class_problem(str(tmp_path), "deep.mine.Mine") is None
    for folder, name, said in [
        (tmp_path / "no", "mine.Mine", "doesn't exist"),
        (tmp_path, "Mine", "allowed: module.Class"),
        (tmp_path, "mi-ne.Mine", "allowed: module.Class"),
        (tmp_path, "other.Mine", "there is no module other.py"),
    ]:
        assert said in (registry.user_class_problem(str(folder), name) or "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        ({"gamma": 1, "liar": None, "startup": 3, "optimize_mode": "minimize"}, []),
        ({"gama": 1}, ["gama: unknown argument; allowed: optimize_mode, gamma, startup, liar; did you mean gamma?"]),
        ({"startup": 1.5}, ["startup: found 1.5; expected int, got float; allowed: an integer"]),
        ({"startup": True}, ["startup: found True; expected int, got bool; allowed: an integer"]),
        ({"liar": 3}, ["liar: found 3; expected str | null, got int; allowed: text or null"]),
        (
            {"optimize_mode": "max"},
            ["optimize_mode: found 'max'; invalid enum value 'max'; allowed: maximize, minimize"],
        ),
    ],
)
def test_the_signature_is_the_schema(given: dict[str, Any], said: list[str]) -> None:
    assert registry.check_arguments(Options, given) == said


def test_required_open_and_bare_constructors() -> None:
    assert registry.check_arguments(Open, {"anything": 1}) == ["path: this argument is required"]
    assert registry.check_arguments(Open, {"path": "p", "anything": 1}) == []
    assert registry.check_arguments(Bare, {"optimize_mode": "minimize"}) == []  # an argument of every tuner
    assert registry.check_arguments(Bare, {"x": 1}) == ["x: unknown argument; allowed: none"]


def test_build_passes_optimize_mode_where_it_is_taken() -> None:
    assert registry.build(Options, {"gamma": 1}, "minimize").given == ("minimize", 1, 20, None)
    assert registry.build(Options, {"optimize_mode": "maximize"}, "minimize").given[0] == "maximize"
    assert isinstance(registry.build(Bare, {"optimize_mode": "minimize"}), Bare)
    assert registry.build(Open, {"path": "p", "a": 1}).given == ("p", {"a": 1})
