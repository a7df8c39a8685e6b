"""A bench for whole experiments: makes configs, starts and kills engines, and looks at what is left of them.

An experiment here is the real thing: an engine process, a keeper, a tuner host and trials that are Python scripts. The
log is read with plain sqlite3 (checker.py), never through the program that wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checker

from tune.engine import client, config, config_load, home, lock
from tune.engine.requests import AskUpdate, PersonsRequest
from tune.engine.state import State
from tune.trial_sdk.socket_dir import socket_path

HERE = Path(__file__).parent
FAKE = HERE / "fake_trial.py"
SPACE = {"x": {"_type": "uniform", "_value": [0, 1]}, "n": {"_type": "randint", "_value": [0, 1000]}}
PATIENCE = 60.0  # seconds until something that must happen counts as not happening


class Experiment:
    """One experiment on the bench."""

    def __init__(self, bench: Bench, folder: home.Folder) -> None:
        self.bench, self.folder, self.id = bench, folder, folder.id
        self.pid = 0

    def start(self, updates: PersonsRequest | None = None) -> int:
        """Start or resume its engine, in a process of its own; the engine's pid."""
        self.pid = client.start(self.folder, actor="test", updates=updates)
        return self.pid

    def kill_engine(self, number: int = signal.SIGKILL) -> None:
        """Signal the engine, and wait until it is gone."""
        os.kill(self.pid, number)
        assert gone(self.pid), "the engine does not die"

    def finish(self, patience: float = PATIENCE) -> State:
        """Wait until the engine has ended by itself; the last state."""
        if not gone(self.pid, patience):
            tail = self.folder.engine_log.read_text()[-3000:]
            state = self.state()
            raise AssertionError(f"{self.id} has not ended: {state.status} {state.counts} {state.reason}\n{tail}")
        return self.state()

    def run(self, patience: float = PATIENCE) -> State:
        """Start it and wait until it has ended."""
        self.start()
        return self.finish(patience)

    def ask(self, *requests: PersonsRequest) -> bool:
        """Have the engine do something."""
        return client.ask(self.folder, *requests)

    def state(self) -> State:
        """The state that the log tells."""
        view = client.View(self.folder)
        try:
            return view.state
        finally:
            view.close()

    def until(self, condition: Callable[[State], object], patience: float = PATIENCE) -> State:
        """Follow the log until its state fulfils a condition."""
        view = client.View(self.folder)
        try:
            for _ in steps(patience, self._told):
                view.catch_up()
                if condition(view.state):
                    return view.state
        finally:
            view.close()
        raise AssertionError("unreachable")

    def _told(self) -> str:
        state = self.state()
        return f"{self.id}: {state.status} {state.counts} {state.reason}\n{self.folder.engine_log.read_text()[-2000:]}"

    def rows(self) -> list[checker.Row]:
        """All facts of the log."""
        return checker.read(self.folder.events)

    def facts(self, kind: str) -> list[checker.Row]:
        """The facts of one kind."""
        return [row for row in self.rows() if row.kind == kind]

    def witness(self) -> list[dict[str, Any]]:
        """What the trials themselves wrote down."""
        return checker.read_witness(self.bench.witness)

    def keeper_pid(self) -> int:
        """The keeper's pid, 0 when there is none."""
        content = lock.peek(self.folder.keeper_lock)
        return int(content.get("pid", 0)) if content else 0

    def tuner_host_pid(self) -> int:
        """The tuner host's pid, 0 when there is none."""
        return next((pid for pid, line in self.processes().items() if "tune.engine.tuner_host" in line), 0)

    def processes(self) -> dict[int, str]:
        """All processes that belong to it, trials and what they forked included, with their command lines."""
        found: dict[int, str] = {}
        marks = (f"TUNE_EXPERIMENT_ID={self.id}\0".encode(), os.fsencode(self.folder.path))
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
                mine = marks[0] in (entry / "environ").read_bytes() + b"\0" or marks[1] in line.split(b"\0")
                mine = mine or os.fsencode((entry / "cwd").readlink()).startswith(marks[1])
            except OSError:
                continue
            if mine and line:
                found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def leftovers(self) -> list[str]:
        """What should not be there when an experiment has ended: processes, held locks, sockets."""
        found = [f"process {pid}: {line[:200]}" for pid, line in self.processes().items()]
        found += [f"held: {path}" for path in (self.folder.lock, self.folder.keeper_lock) if lock.peek(path)]
        found += [
            f"socket: {path}" for suffix in (".e", ".k") if (path := socket_path(self.folder.data, suffix)).exists()
        ]
        return found

    def assert_nothing_left(self, patience: float = 10.0) -> None:
        """Everything is gone, now or at once (the keeper ends a moment after the engine)."""
        deadline = time.monotonic() + patience
        while left := self.leftovers():
            assert time.monotonic() < deadline, "left behind:\n" + "\n".join(left)
            time.sleep(0.02)

    def check(self, trials: int | None = None, *, complete: bool = True) -> None:
        """The checker, over the log and the witness file."""
        problems = checker.check(self.rows(), self.witness(), trials, complete=complete)
        assert not problems, "\n".join(problems)

    def sweep(self) -> None:
        """Kill everything of it: what a failed test leaves must not hurt the next one."""
        for _ in range(3):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                gone(pid, 2.0)
        for suffix in (".e", ".k"):
            socket_path(self.folder.data, suffix).unlink(missing_ok=True)


class Bench:
    """A place for experiments: a home, a code folder, a witness file."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home = base / "home"
        self.code = base / "code"
        self.code.mkdir(parents=True)
        self.witness = base / "witness.jsonl"
        self.made: list[Experiment] = []

    def script(self, source: str, name: str = "trial.py") -> str:
        """Put a trial script into the code folder; the command that runs it."""
        (self.code / name).write_text(source)
        return f"python {name}"

    def fake(self, **options: object) -> str:
        """The command of the fake trial, with its options (see fake_trial.py)."""
        return shlex.join(["python", str(FAKE), str(self.witness), json.dumps(options)])

    def settings(self, **fields: Any) -> dict[str, Any]:
        """A config as a mapping: quick trials, Random, a fixed seed; `fields` win."""
        base: dict[str, Any] = {
            "search_space": SPACE,
            "trial_command": self.fake(),
            "trial_code_directory": str(self.code),
            "trial_concurrency": 2,
            "max_trial_number": 4,
            "seed": 7,
            "stop_grace": "2s",
            "tuner": {"name": "Random"},
        }
        base.update(fields)
        return {name: value for name, value in base.items() if value is not None}

    def config_file(self, **fields: Any) -> Path:
        """The same as a file (YAML, of which JSON is a part)."""
        path = self.base / "config.yaml"
        path.write_text(json.dumps(self.settings(**fields)))
        return path

    def experiment(self, **fields: Any) -> Experiment:
        """A new experiment, not yet started."""
        read, _ = config_load.from_mapping(self.settings(**fields), self.base)
        folder, _ = home.create()
        folder.config.write_bytes(config.encode(config_load.resolve(read)))
        return self.known(folder)

    def known(self, folder: home.Folder) -> Experiment:
        """An experiment that was made otherwise; it is swept at the end."""
        made = Experiment(self, folder)
        self.made.append(made)
        return made

    def tune(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line."""
        with self.spawn(*arguments, **options) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def spawn(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Start a verb of the command line."""
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": self.base,
        }
        return subprocess.Popen([sys.executable, "-m", "tune.cli", *map(str, arguments)], **{**settings, **options})

    def find_all(self) -> list[Experiment]:
        """Every experiment in the home, also those that a verb made."""
        known = {experiment.id for experiment in self.made}
        for entry in sorted(self.home.iterdir()) if self.home.is_dir() else []:
            if entry.name not in known:
                self.known(home.Folder(entry.name, entry, entry))
        return self.made


def gone(pid: int, patience: float = PATIENCE) -> bool:
    """Wait until a process has ended, ours or not; False when it has not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([descriptor], [], [], patience)
    finally:
        os.close(descriptor)
    if ready:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return bool(ready)


def steps(patience: float, told: Callable[[], str] = str) -> Iterator[None]:
    """Looks at something again and again; an AssertionError when patience ends."""
    deadline = time.monotonic() + patience
    while True:
        yield
        if time.monotonic() > deadline:
            raise AssertionError(f"it does not happen within {patience:g} s\n{told()}")
        time.sleep(0.01)


def limits(**changes: Any) -> AskUpdate:
    """An update, as `tune update` or `tune resume` asks for it."""
    return AskUpdate("test", **changes)


@contextlib.contextmanager
def bench(base: Path, environment: Callable[[str, str], None]) -> Iterator[Bench]:
    """A bench for one test: afterwards nothing may be left of any experiment."""
    made = Bench(base)
    environment("TUNE_HOME", str(made.home))
    with warnings.catch_warnings():
        # `client.start` leaves the engine to itself; here, where its parent lives on, subprocess would warn of that.
        warnings.filterwarnings("ignore", category=ResourceWarning, message="subprocess .* is still running")
        try:
            yield made
            for experiment in made.find_all():
                experiment.assert_nothing_left()
        finally:
            for experiment in made.find_all():
                experiment.sweep()
