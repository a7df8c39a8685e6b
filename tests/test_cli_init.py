"""The command line itself: which verbs there are, exit codes, and what errors look like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tune import cli
from tune.cli import verbs

CONTRACT = [
    "create",
    "check",
    "resume",
    "view",
    "stop",
    "list",
    "status",
    "trials",
    "best",
    "logs",
    "tail",
    "update",
    "trial",
    "export",
    "import",
    "delete",
    "verify",
    "doctor",
    "hello",
    "replay",
    "why",
]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_the_verbs_of_the_contract_are_there_and_no_other_file_is_one() -> None:
    found = verbs.built_in()
    assert set(CONTRACT) <= set(found)
    assert not {"follow", "interrupts", "reading", "serve", "verbs"} & set(found)
    assert all(about and about.splitlines()[0].endswith((".", ":")) for _, about in found.values())


def test_help_lists_every_verb_and_imports_none() -> None:
    code = (
        "import sys\nfrom tune.cli import main\nassert main(['--help']) == 0\n"
        "late = [m for m in sys.modules if m.startswith('tune.cli.') and m not in ('tune.cli.verbs', 'tune.cli')]\n"
        "assert not late, late\nassert not {'numpy', 'scipy', 'aiosqlite', 'asyncio'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f" {verb} " in done.stdout for verb in CONTRACT)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["craete"], "create"),
        (["status", "--jsn"], "--json"),
        (["status", "a", "b"], "Unused"),
        (["create"], "tune create config.toml"),
        (["create", "nothere.toml"], "nothere.toml"),
        (["create", "nothere.toml", "--port", "99999"], "nothere.toml"),
        (["create", "nothere.toml", "--detach", "--foreground"], "exclude"),
        (["create", "--id", "--x"], "--id"),
        (["check"], "tune check config.toml"),
        (["check", "nothere.toml"], "nothere.toml"),
        (["resume", "nothere"], "nothere"),
        (["resume", "x", "--max-trials", "0"], "1 or more"),
        (["resume", "x", "--duration", "soon"], "soon"),
        (["view", "nothere"], "nothere"),
        (["view", "x", "--port", "0"], "no experiment 'x'"),
        (["stop"], "no experiment runs"),
        (["stop", "nothere"], "nothere"),
        (["delete"], "ID"),
        (["delete", "nothere", "--yes"], "nothere"),
    ],
)
def test_usage_errors_are_a_sentence_on_stderr_and_exit_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and says in err and "Traceback" not in err
    assert not (tmp_path / "home").exists()


def test_hostile_text_in_an_error_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["view", "no\x1b[2Jthere"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import tune

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == tune.__version__


def test_windows_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    code = cli.main(["list"])
    monkeypatch.undo()
    assert code == 2 and "Windows is not supported" in capsys.readouterr().err


def test_a_verb_of_another_package_is_found_and_a_built_in_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tune.verbs]\ngreet = other_verbs:greet\nlist = other_verbs:greet\n")
    (tmp_path / "other_verbs.py").write_text(
        "def greet(name: str = 'you') -> int:\n    '''Greet.'''\n    print('hello', name)\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["greet", "world"]) == 3
    assert capsys.readouterr().out == "hello world\n"
    assert cli.main(["list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert cli.main(["--help"]) == 0
    assert "From the package other." in capsys.readouterr().out


def test_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    reading, writing = subprocess.Popen(["true"], stdin=subprocess.PIPE), None
    try:
        reading.wait()
        writing = subprocess.run(
            [sys.executable, "-m", "tune.cli", "doctor"], stdout=reading.stdin, stderr=subprocess.PIPE, text=True
        )
    finally:
        assert reading.stdin is not None
        reading.stdin.close()
    assert writing is not None and writing.stderr == "" and writing.returncode == 1


def test_an_interrupt_inside_generated_code_ends_with_130_too(tmp_path: Path) -> None:
    """Python itself would end by signal 2: it remembers a KeyboardInterrupt that came through `exec` of a text."""
    (tmp_path / "struck.py").write_text(
        "import sys, tune.cli\n"
        "def run(arguments): exec('raise KeyboardInterrupt')\n"
        "tune.cli._run = run\n"
        "sys.exit(tune.cli.main())\n"
    )
    command = [sys.executable, "-m", "struck"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
