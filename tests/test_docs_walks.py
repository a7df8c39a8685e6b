"""The pages that walk through something run as they are written, and print what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def shown(name: str) -> list[tuple[str, list[str]]]:
    """The commands of a page's console blocks, each with the lines that it shows after it."""
    found: list[tuple[str, list[str]]] = []
    for body in re.findall(r"^```console\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL):
        for line in body.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def steady(line: str) -> str:
    """A line without the numbers of events: their order among the first ones is the scheduler's."""
    return re.sub(r"\bevent \d+|\b\d+ events", "event", line)


def run(tune: Any, command: str, folder: Path, keys: str = "") -> tuple[int, list[str]]:
    program, *arguments = command.split()
    path = sys.executable if program == "python" else str(Path(sys.executable).with_name(program))
    done = subprocess.run(
        [path, *arguments], cwd=folder, env=tune.variables, input=keys, capture_output=True, text=True, timeout=100
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_walk_through_a_tuners_bug(tmp_path: Path, tune: Any, page: Callable[[str], Any]) -> None:
    folder = tmp_path / "walk"
    page("docs/debug-your-tuner.md").write(folder)
    commands = shown("docs/debug-your-tuner.md")
    assert [command.split()[1] for command, _ in commands] == [
        *("create", "verify", "replay", "why", "replay", "replay", "replay")
    ]
    for command, expected in commands:
        typed = [line.removeprefix("(Pdb) ") for line in expected if line.startswith("(Pdb) ")]
        code, lines = run(tune, command, folder, "".join(f"{key}\n" for key in typed))
        if typed:
            answer = next(line for line in expected if not line.startswith("(Pdb) "))
            assert any(line.endswith(answer) for line in lines)
            continue
        assert [steady(line) for line in lines] == [steady(line) for line in expected], command
        assert code == (1 if "verify" in command or command == "tune replay walk" else 0)


def test_ask_and_tell(tmp_path: Path, tune: Any, page: Callable[[str], Any]) -> None:
    folder = tmp_path / "asktell"
    page("docs/ask-tell.md").write(folder)
    said = [run(tune, command, folder) for command, _ in shown("docs/ask-tell.md")]
    assert [code for code, _ in said] == [0] * len(said)
    search, early, _, best, view, _, export, why, verify = (lines for _, lines in said)
    assert re.match(r"Best\(number=\d+, value=\S+, parameters=.*'kind'", search[0])
    assert 0 < int(early[0].split()[0]) < 20
    assert re.match(r"-\S+ trial \d", best[0]) and view[0] == "VIEWED (read-only)"
    assert len(export) == 11 and why[0].startswith("trial 9 (")
    assert verify[-1].startswith("decisions: 10 suggestions") and "came out the same" in verify[-1]


def test_the_page_names_every_argument_and_call() -> None:
    import inspect

    from tune import AskTell

    text = (ROOT / "docs" / "ask-tell.md").read_text()
    for name in inspect.signature(AskTell).parameters:
        assert name == "class_args" or f"`{name}`" in text, name
    for name in (name for name in vars(AskTell) if not name.startswith("_")):
        assert f"study.{name}" in text or f"AskTell.{name}" in text, name


def test_experiments_from_python(tmp_path: Path, tune: Any, page: Callable[[str], Any]) -> None:
    folder = tmp_path / "python"
    page("docs/python-api.md").write(folder)
    said = [run(tune, command, folder) for command, _ in shown("docs/python-api.md")]
    assert [code for code, _ in said] == [0] * len(said)
    search, look, resumed, *_ = (lines for _, lines in said)
    assert search[0] == "Experiment ID: first" and search[-2].startswith("DONE best ")
    assert search[-1].startswith("{'trial': ") and len(search) == 11
    assert look == ["DONE 8 trials"]
    assert sum(line.startswith("trial ") for line in resumed) == 2
    for name in ("history.html", "slice.html", "parallel.json"):
        assert (folder / name).stat().st_size > 100


def test_the_page_names_every_call_of_an_experiment() -> None:
    from tune import Experiment, visualization

    text = (ROOT / "docs" / "python-api.md").read_text()
    for name in (name for name in vars(Experiment) if not name.startswith("_")):
        assert f"xperiment.{name}" in text or f"`.{name}`" in text, name
    for name in visualization.__all__:
        assert f"`{name}" in text or name == "plot", name
