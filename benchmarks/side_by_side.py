"""What the benchmarks share: interleaved rounds with medians, experiments run through the library, printed lines."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tune.engine import client, config, config_load, home

IMPORTS = "import socket, msgspec"  # what the SDK itself imports


def medians(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Each measure once a round, in turn, so that a noisy moment hits all of them; the median over the rounds."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def line(what: str, ours: str, limit: str, ratio: float, target: str) -> None:
    """One line of the table."""
    print(f"{what:<52}{ours:>10}   {limit:<50}{ratio:7.2f} x   target: {target}", flush=True)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder on the disk of the working directory (a tmpfs would flatter), removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path.cwd()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def start(base: Path, trial: str, *, portal: client.Opening | None = None, **fields: Any) -> home.Folder:
    """Create an experiment whose trials run this Python code, and start its engine; returns when it has started."""
    os.environ["TUNE_HOME"] = str(base / "home")
    code = base / "code"
    code.mkdir(exist_ok=True)
    (code / "trial.py").write_text(trial)
    given = {
        "trial_command": "exec python trial.py",
        "search_space": {"x": {"_type": "uniform", "_value": [0, 1]}},
        "tuner": {"name": "Random"},
        "seed": 1,
        "python": sys.executable,
        **fields,
    }
    settings, _ = config_load.from_mapping(given, code)
    made, _ = home.create()
    made.config.write_bytes(config.encode(settings))
    client.start(made, actor="benchmark", portal=portal)
    return made


def finish(experiment: home.Folder) -> None:
    """Wait until the engine has ended; raises when the experiment isn't DONE."""
    while client.engine_pid(experiment) is not None:
        time.sleep(0.02)
    view = client.View(experiment)
    view.close()
    if view.state.status != "DONE" or view.state.counts["FAILED"]:
        raise SystemExit(f"the experiment ended {view.state.status}: {view.state.reason} {view.state.counts}")


def ask_log(experiment: home.Folder, sql: str) -> Any:
    """The one row that a query on the log gives, through plain SQLite."""
    connection = sqlite3.connect(f"file:{experiment.events}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchone()
    finally:
        connection.close()


def commits_a_second(base: Path, rows: int, commits: int) -> float:
    """Rows/s of bare sqlite3: WAL, synchronous=FULL, `rows` small rows a commit by executemany."""
    path = base / "bare.db"
    for old in base.glob("bare.db*"):
        old.unlink()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE event(seq INTEGER PRIMARY KEY, sender TEXT, body TEXT)")
    begin = time.perf_counter()
    for number in range(commits):
        batch = [(number * rows + row + 1, "t0001.0.1", '{"value":0.12345678901234}') for row in range(rows)]
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO event VALUES (?, ?, ?)", batch)
        connection.execute("COMMIT")
    taken = time.perf_counter() - begin
    connection.close()
    return rows * commits / taken
