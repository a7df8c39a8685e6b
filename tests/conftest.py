"""What all tests share: the command line in a home of its own, the blocks of the docs, and no missing test in CI."""

import contextlib
import faulthandler
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # promotion_search.py, for the tests of tuners that promote
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# -- no test without an end -------------------------------------------------------------------------------------------
class Watchdog:
    """Ends this process when a test does not end: pytest-timeout raises in a test, and some of them catch all.

    With several processes the run goes on with a new one, and the test counts as failed.
    """

    PATIENCE = 60.0  # seconds after the test's own time limit

    def __init__(self) -> None:
        self.output = os.dup(2)  # what a test captures is seen by nobody
        self.fed = threading.Event()
        self.limit: float | None = None
        self.test = ""
        threading.Thread(target=self.watch, name="watchdog", daemon=True).start()

    def watch(self) -> None:
        """Wait for the next test, or for the end of the one that runs."""
        while True:
            fed = self.fed.wait(self.limit)
            self.fed.clear()
            if not fed:
                os.write(self.output, f"\nthe watchdog ends {self.test}, which does not end\n".encode())
                faulthandler.dump_traceback(self.output)
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    command = [
                        "ps",
                        "-ww",
                        "-o",
                        "pid,ppid,stat,etime,wchan:20,args",
                        "--forest",
                        "-g",
                        str(os.getsid(0)),
                    ]
                    os.write(self.output, subprocess.run(command, capture_output=True, timeout=10).stdout[-8000:])
                os._exit(70)

    def feed(self, test: str, limit: float | None) -> None:
        """Say which test runs now, and for how long it may; None: none, or as long as it likes."""
        self.test, self.limit = test, limit
        self.fed.set()


_watchdog = pytest.StashKey[Watchdog]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch over one test, from its first fixture to its last."""
    watchdog = item.config.stash.get(_watchdog, None) or item.config.stash.setdefault(_watchdog, Watchdog())
    marker = item.get_closest_marker("timeout")
    asked = marker.args[0] if marker is not None and marker.args else item.config.getoption("timeout")
    limit = float(item.config.getini("timeout") if asked is None else asked)
    watchdog.feed(item.nodeid, limit + Watchdog.PATIENCE if limit else None)
    try:
        return (yield)
    finally:
        watchdog.feed(item.nodeid, None)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Watch over the end of the process: threads that nobody ends, and what is registered for the exit."""
    watchdog = config.stash.get(_watchdog, None)
    if watchdog is not None:
        watchdog.feed("the end of the tests", Watchdog.PATIENCE)


# -- no missing test in CI --------------------------------------------------------------------------------------------
_missing: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember which tests were skipped, and why."""
    if report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _missing[report.nodeid] = why


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that could not run is a failure."""
    is_worker = hasattr(session.config, "workerinput")
    if _missing and os.environ.get("CI") == "true" and not is_worker and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every test that could not run here."""
    if not _missing:
        return
    in_ci = " (in CI that is a failure)" if os.environ.get("CI") == "true" else ""
    terminalreporter.section(f"{len(_missing)} tests could not run here{in_ci}")
    for name, why in sorted(_missing.items()):
        terminalreporter.line(f"{name}: {why}")


# -- the command line -------------------------------------------------------------------------------------------------
@dataclass
class CommandLine:
    """The `tune` program, with `$TUNE_HOME` in a temporary folder."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """The environment that commands get: this Python's programs first, nothing of an experiment around us."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "NNI_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
        return {**inherited, "PATH": path, "TUNE_HOME": str(self.home), **self.environment}

    def __call__(self, *arguments: str, cwd: Path | None = None, code: int | None = 0) -> str:
        """Run one command, check its exit code (None: any), and give its stdout."""
        program = str(Path(sys.executable).with_name("tune"))
        done = subprocess.run(
            [program, *arguments], cwd=cwd or self.home, env=self.variables, capture_output=True, text=True, timeout=110
        )
        assert code is None or done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *arguments: str, cwd: Path | None = None, code: int | None = 0) -> Any:
        """The same with `--json`, parsed."""
        return json.loads(self(*arguments, "--json", cwd=cwd, code=code))


@pytest.fixture
def tune(tmp_path: Path) -> CommandLine:
    """The `tune` program in a home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home)


# -- the docs ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Page:
    """A page of the docs: the files that its blocks show, and the commands."""

    files: dict[str, str]
    commands: Sequence[str]

    def write(self, folder: Path) -> None:
        """Write the files, and what pip would make of the entry points."""
        folder.mkdir(exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        if "pyproject.toml" not in self.files:
            return
        project = tomllib.loads(self.files["pyproject.toml"])["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines: list[str] = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def page() -> Callable[[str], Page]:
    """Reads a page of docs/ (or the README) by its name."""

    def read(name: str) -> Page:
        text = (ROOT / name).read_text()
        files: dict[str, str] = {}
        commands: list[str] = []
        for language, options, body in _BLOCK.findall(text):
            named = re.search(r"file=(\S+)", options)
            if named:
                assert named[1] not in files, f"{name} shows {named[1]} twice"
                files[named[1]] = body
            elif language == "console":
                commands += [line[2:] for line in body.splitlines() if line.startswith("$ ")]
        return Page(files, commands)

    return read
