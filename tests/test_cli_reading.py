"""The verbs that read or change an experiment: on logs written here, compared with plain sqlite3, and on an engine."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclopts import App, CycloptsError
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tune.cli import reading
from tune.cli.best import best
from tune.cli.export import export, write
from tune.cli.import_ import import_
from tune.cli.list import list as list_verb
from tune.cli.logs import Shown, engine_line, logs, open_output, visible
from tune.cli.status import status
from tune.cli.tail import tail
from tune.cli.trial import trial
from tune.cli.trials import trials
from tune.cli.update import update
from tune.cli.verify import verify
from tune.engine import client, config, config_load, home
from tune.engine.config import Algorithm, Config
from tune.engine.errors import TuneError, UsageError
from tune.engine.events import (
    EngineStarted,
    Event,
    Experiment,
    Fact,
    Host,
    Launch,
    Launched,
    Metric,
    NewTrial,
    Parameter,
    RequestParameter,
    Status,
    TrialEnd,
    encode,
)
from tune.engine.lock import Lock
from tune.engine.log import Log
from tune.engine.requests import AskStop


def settings(**fields: Any) -> Config:
    """A config as it stands in a log."""
    return Config(search_space=SPACE, trial_command="true", trial_code_directory="/tmp", **fields)


START = 1_700_000_000_000_000
SPACE = {"lr": {"_type": "uniform", "_value": [0, 1]}}


class Story:
    """The facts of an experiment, told one by one, then written as a log."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.facts: list[Fact] = []
        self.numbers: dict[str, int] = {}
        self.name = name
        given = {"trial_command": "true", "trial_code_directory": "/tmp", "max_trial_number": 10, **settings}
        self.say(Experiment(name, Raw(config.encode(Config(search_space=SPACE, **given))), 7))
        self.say(EngineStarted("here", 4711, 0))
        self.say(Status("RUNNING"))
        self.say(Host("here", "connected", 0, 4712))

    def say(self, event: Event, trial: int | None = None, sender: str = "e1") -> None:
        number = self.numbers[sender] = self.numbers.get(sender, 0) + 1
        seq = len(self.facts) + 1
        self.facts.append(Fact(seq, 1, sender, number, trial, None, START + seq * 1_000_000, event))

    def trial(self, number: int, parameters: str, *reports: str, final: str = "", end: str = "SUCCEEDED") -> None:
        self.say(RequestParameter(number + 1), number)
        self.say(NewTrial(f"t{number:04}"), number)
        self.say(Parameter(number + 1, Raw(parameters.encode()), len(self.facts)), number)
        self.say(Launch(0, "here"), number)
        self.say(Launched(0, 5000 + number, 0, START + 60_000_000), number)
        for value in reports:
            self.say(Metric(Raw(value.encode())), number, f"t{number:04}.0.1")
        if final:
            self.say(Metric(Raw(final.encode()), final=True), number, f"t{number:04}.0.1")
        if end:
            code = 1 if end == "FAILED" else 0
            err = "Traceback\n\x1b[2JBoom\n" if code else ""
            reason = "exit code 1" if code else ""
            self.say(TrialEnd(0, end, code, reason, err, START + 90_000_000), number)

    def write(self) -> home.Folder:
        folder, _ = home.create(self.name)

        async def main() -> None:
            log = await Log.open(folder.events, create=True)
            log.take(1)
            await log.append([encode(fact) for fact in self.facts])
            await log.close()

        asyncio.run(main())
        return folder


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def digits() -> home.Folder:
    """Four trials: two good ones, one that failed, one that runs."""
    story = Story("digits", experiment_name="ein \x1b[31mName")
    story.trial(0, '{"lr":0.5,"net":{"size":3}}', "0.25", '"NaN"', final="0.5")
    story.trial(1, '{"lr":0.25,"net":{"size":5}}', "0.5", "0.625", final='{"default":0.75,"loss":1}')
    story.trial(2, '{"lr":0.125,"net":{"size":7}}', end="FAILED")
    story.trial(3, '{"lr":1.0,"net":{"size":9}}', "0.125", end="")
    return story.write()


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert not err and out.endswith("\n")
    return json.loads(out, parse_constant=pytest.fail)


def table_of(folder: home.Folder, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{folder.events}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


# -- status, list, best, trials ---------------------------------------------------------------------------------------
def test_status(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    status("dig", json=True)
    seen = said(capsys)
    assert (seen["id"], seen["status"], seen["engine_pid"], seen["log"]) == (
        "digits",
        "RUNNING",
        None,
        str(digits.events),
    )
    assert seen["best"] == {"trial": 1, "phase": 0, "value": 0.75, "parameters": {"lr": 0.25, "net": {"size": 5}}}
    status()
    out = capsys.readouterr().out
    assert "no engine runs: go on with tune resume digits" in out
    assert "4 of 10: 1 RUNNING, 2 SUCCEEDED, 1 FAILED" in out
    assert "0.75 (maximize) trial 1" in out
    assert "\x1b" not in out and "ein \\x1b[31mName" in out


def test_status_names_the_pid_of_who_holds_the_lock(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    lock = Lock.take(digits.lock)
    lock.write({"pid": 4242, "host": "here"})
    try:
        status("digits", json=True)
    finally:
        lock.release()
    assert said(capsys)["engine_pid"] == 4242


def test_an_unknown_id_is_a_usage_error(digits: home.Folder) -> None:
    for verb in (status, trials, best, logs, tail, export, verify):
        with pytest.raises(UsageError):
            verb("nothere")
    with pytest.raises(UsageError):
        update("nothere", concurrency=2)


def test_list_goes_on_after_a_log_that_cannot_be_read(
    digits: home.Folder, at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at_home / "broken").mkdir()
    (at_home / "broken" / "events.db").write_bytes(b"no log at all" * 100)
    list_verb(json=True)
    out, err = capsys.readouterr()
    seen = {one["id"]: one for one in json.loads(out)}
    assert seen["digits"]["status"] == "RUNNING" and seen["broken"]["status"] is None
    assert list(seen["broken"]) == list(seen["digits"])
    assert err.startswith("broken: ")
    list_verb()
    assert "unreadable" in capsys.readouterr().out


def test_list_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    list_verb(json=True)
    assert said(capsys) == []
    list_verb()
    assert "tune create CONFIG" in capsys.readouterr().out


def test_best(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    best("digits", json=True)
    assert said(capsys) == {"trial": 1, "phase": 0, "value": 0.75, "parameters": {"lr": 0.25, "net": {"size": 5}}}
    best("digits")
    assert capsys.readouterr().out == '0.75 trial 1\n{"lr": 0.25, "net": {"size": 5}}\n'


def test_best_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Story("empty").write()
    best("empty", json=True)
    assert said(capsys) is None


def test_trials_agree_with_the_log(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    trials("digits", json=True)
    seen = said(capsys)
    logged = table_of(
        digits, "SELECT trial, json_extract(body, '$.parameters') FROM event WHERE kind = 'PARAMETER' ORDER BY trial"
    )
    assert [(one["number"], one["parameters"]) for one in seen] == [(n, json.loads(p)) for n, p in logged]
    finals = table_of(
        digits, "SELECT trial, body FROM event WHERE kind = 'METRIC' AND json_extract(body, '$.final') ORDER BY trial"
    )
    assert [(one["number"], one["final"]) for one in seen if one["final"] is not None] == [
        (n, json.loads(body)["value"]) for n, body in finals
    ]
    assert seen[0]["intermediate"] == [0.25, "NaN"]
    ends = table_of(digits, "SELECT trial, json_extract(body, '$.status') FROM event WHERE kind = 'TRIAL_END'")
    assert {n: s for n, s in ends} == {one["number"]: one["status"] for one in seen if one["ended"]}  # noqa: C416
    assert (seen[3]["status"], seen[3]["pid"], seen[2]["exit_code"]) == ("RUNNING", 5003, 1)
    assert "Boom" in seen[2]["reason"]


def test_trials_for_people_show_no_control_characters(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    trials("digits")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[2JBoom" in out
    assert "(0.125)" in out and '{"lr": 0.25, "net": {"size": 5}}' in out


# -- export -----------------------------------------------------------------------------------------------------------
def test_export_agrees_with_the_log(digits: home.Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export("digits", format="json")
    rows = said(capsys)
    finals = table_of(
        digits,
        "SELECT trial, coalesce(json_extract(body, '$.value.default'), json_extract(body, '$.value')) FROM event "
        "WHERE kind = 'METRIC' AND json_extract(body, '$.final') ORDER BY seq",
    )
    assert [(row["trial"], row["value"]) for row in rows] == finals == [(0, 0.5), (1, 0.75)]
    export("digits", format="jsonl")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    export("digits")
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(table[0]) == [
        "trial",
        "phase",
        "status",
        "parameters.lr",
        "parameters.net.size",
        "value",
        "intermediate",
    ]
    assert [(row["parameters.lr"], row["value"], row["intermediate"]) for row in table] == [
        ("0.5", "0.5", '[0.25,"NaN"]'),
        ("0.25", "0.75", "[0.5,0.625]"),
    ]


def test_export_to_a_file_takes_its_suffix(
    digits: home.Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("json", "jsonl", "csv"):
        file = tmp_path / f"out.{suffix}"
        file.write_text("old")
        export("digits", output=file)
        capsys.readouterr()
        export("digits", format=suffix)  # type: ignore[arg-type]
        assert file.read_text() == capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.csv", "out.json", "out.jsonl"]
    with pytest.raises(UsageError):
        export("digits", output=tmp_path / "nowhere" / "out.csv")


def test_a_written_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"old")

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        write(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_export_writes_through_a_link_and_into_a_device(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    write(Path("/dev/null"), b"gone")


# -- tail, verify -----------------------------------------------------------------------------------------------------
def test_tail_is_the_log(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    tail("digits", json=True)
    seen = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = "seq epoch kind ver sender sender_seq trial cause wall_us body".replace(" ", ", ")
    logged = table_of(digits, f"SELECT {names} FROM event ORDER BY seq")
    assert [(*list(one.values())[:-1], one["body"]) for one in seen] == [
        (*row[:-1], json.loads(row[-1])) for row in logged
    ]
    assert [*seen[0]] == names.split(", ")
    tail("digits", lines=3, json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == seen[-3:]
    tail("digits", follow=True, lines=1)  # no engine: nothing will come
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UsageError):
        tail("digits", lines=-1)


def test_verify(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("digits", json=True) == 0
    [(count,)] = table_of(digits, "SELECT count(*) FROM event")
    assert said(capsys) == {"ok": True, "events": count, "first_bad_seq": None, "reason": ""}
    assert verify(str(digits.events)) == 0
    assert verify(str(digits.path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"ok: {count} events"] * 2
    assert all(line.startswith("checked: the chain over every column") for line in lines[1::2])
    assert all("events.head" in line for line in lines[1::2])


def test_verify_of_a_damaged_log(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    data = digits.events.read_bytes()
    at = data.index(b'{"lr":0.25')
    digits.events.write_bytes(data[:at] + b'{"lr":0.26' + data[at + 10 :])
    assert verify("digits", json=True) == 1
    seen = said(capsys)
    assert (seen["ok"], seen["first_bad_seq"], seen["events"]) == (False, 16, 15)  # trial 1's PARAMETER
    with pytest.raises(TuneError, match="damaged") as error:
        status("digits")
    assert error.value.exit_code == 1
    digits.events.write_bytes(b"x" + data[1:])
    for reference in ("digits", str(digits.events)):
        assert verify(reference) == 1
        assert capsys.readouterr().out.startswith("damaged: ")


# -- logs -------------------------------------------------------------------------------------------------------------
def output(folder: home.Folder, number: int, attempt: int = 0, **texts: str) -> Path:
    """What a trial's keeper would have made."""
    inner = folder.trials / f"t{number:04}" / str(attempt)
    inner.mkdir(parents=True)
    for name, text in texts.items():
        (inner / name).write_text(text)
        link = inner.parent / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"{attempt}/{name}")
    return inner.parent


def test_logs_of_a_trial(digits: home.Folder, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output(digits, 0, stdout="first\n", stderr="")
    output(digits, 0, 1, stdout="héllo\n\x1b[2Jbye", stderr="warned\n")
    for name in ("0", "t0000"):
        logs("digits", trial=name)
        assert capfdbinary.readouterr().out == "héllo\n\x1b[2Jbye".encode()  # a pipe gets it as it is
    logs("digits", trial="0", stderr=True, follow=True)  # it has ended: nothing will come
    assert capfdbinary.readouterr().out == b"warned\n"
    with pytest.raises(UsageError, match="no trial '9'"):
        logs("digits", trial="9")
    with pytest.raises(UsageError, match="belongs to a trial"):
        logs("digits", stderr=True)


def test_logs_of_a_trial_whose_files_are_elsewhere(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    logs("digits", trial="2", stderr=True)
    assert capsys.readouterr().out == "Traceback\n\\x1b[2JBoom\n"
    logs("digits", trial="1")
    out, err = capsys.readouterr()
    assert not out and "trial 1 (t0001) has no stdout here; it is SUCCEEDED" in err


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret", "0/../../secret", "0/stderr", "x/stdout"])
def test_logs_follow_no_link_out_of_the_folder(digits: home.Folder, target: str) -> None:
    folder = output(digits, 0, stdout="ok")
    (folder / "stdout").unlink()
    (folder / "stdout").symlink_to(target)
    with pytest.raises(TuneError, match="is not read"):
        open_output(folder, "stdout")


def test_logs_open_no_link_pipe_or_file_in_the_launch_folder(digits: home.Folder, tmp_path: Path) -> None:
    folder = output(digits, 0, stdout="ok")
    inner = folder / "0" / "stdout"
    inner.unlink()
    inner.symlink_to("/etc/passwd")
    with pytest.raises(TuneError):
        open_output(folder, "stdout")
    inner.unlink()
    os.mkfifo(inner)
    with pytest.raises(TuneError, match="no regular file"):
        open_output(folder, "stdout")
    (folder / "stdout").unlink()
    (folder / "stdout").write_text("not the keeper's link")
    with pytest.raises(TuneError):
        open_output(folder, "stdout")
    assert open_output(digits.trials / "zzzzz", "stdout") is None


def test_logs_of_the_engine(digits: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        '{"event":"host reached","host":"local","level":"info","timestamp":"2026-01-02T03:04:05Z"}',
        "no \x1b json",
    ]
    digits.engine_log.write_text("\n".join(["x"] * 60 + lines) + "\n")
    logs("digits")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 50 + 3
    assert out[48].endswith("info     host reached  host=local") and out[49] == "no \\x1b json"
    assert out[50:] == [
        "trial 2 (t0002) FAILED, exit code 1; the end of its stderr:",
        "    Traceback",
        "    \\x1b[2JBoom",
    ]
    digits.engine_log.unlink()
    logs("digits", follow=True)
    assert "engine.log: No such file" in capsys.readouterr().err


def test_an_engine_line_with_a_traceback() -> None:
    text = engine_line('{"event":"tuner","level":"error","exception":"Traceback\\n  x\\u001b"}')
    assert text.splitlines() == ["error    tuner", "    Traceback", "      x\\x1b"]
    assert engine_line("[1]") == "[1]"


def test_output_in_a_terminal_keeps_colours_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert visible("a\x1b[31mred\x1b[0m\x1b]0;title\x07\t|") == "a\x1b[31mred\x1b[0m\\x1b]0;title\\x07      |\x1b[0m"
    assert visible("10%\r20%\r") == "10%\n20%"
    shown = Shown(raw=False)
    for byte in "ä\nü".encode():
        shown.write(bytes([byte]))
    shown.end()
    assert capsys.readouterr().out == "ä\nü\n"


# -- the command line -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verb", "line", "expected"),
    [
        (status, "ab --json", {"id": "ab", "json": True}),
        (list_verb, "--json", {"json": True}),
        (trial, "kill 3 t0001 --id ab", {"action": "kill", "trials": ("3", "t0001"), "id": "ab"}),
        (logs, "--trial 3 --stderr -f", {"trial": "3", "stderr": True, "follow": True}),
        (tail, "ab -f -n 5", {"id": "ab", "follow": True, "lines": 5}),
        (export, "ab --format json -o x", {"id": "ab", "format": "json", "output": Path("x")}),
        (import_, "x.json ab", {"file": Path("x.json"), "id": "ab"}),
        (import_, "ab --from cd", {"file": Path("ab"), "from_": "cd"}),
        (trial, "add {} @x.json", {"action": "add", "trials": ("{}", "@x.json")}),
        (update, "--concurrency 2 --max-trials 5 --duration 2h", {"concurrency": 2, "max_trials": 5, "duration": "2h"}),
        (update, "--search-space x.json", {"search_space": Path("x.json")}),
        (verify, "/tmp/events.db", {"id": "/tmp/events.db"}),
    ],
)
def test_what_is_typed(verb: Any, line: str, expected: dict[str, Any]) -> None:
    app = App(result_action="return_value")
    app.default(verb)
    _, bound, _ = app.parse_args(line, exit_on_error=False, print_error=False)
    assert bound.arguments == expected


@pytest.mark.parametrize(("verb", "line"), [(status, "--no-json"), (trial, "revive 3"), (export, "--format xml")])
def test_what_is_typed_wrongly(verb: Any, line: str) -> None:
    app = App(result_action="return_value")
    app.default(verb)
    with pytest.raises(CycloptsError):
        app.parse_args(line, exit_on_error=False, print_error=False)


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys, tune.cli.status, tune.cli.trials, tune.cli.logs, tune.cli.export, tune.cli.tail; "
        "print([name for name in ('numpy', 'scipy', 'uvloop', 'structlog') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -- printing ---------------------------------------------------------------------------------------------------------
@given(st.text())
def test_printable_text_cannot_move_a_cursor(text: str) -> None:
    seen = reading.printable(text)
    assert all(one.isprintable() or one == "\N{NO-BREAK SPACE}" for one in seen)
    assert reading.width(seen) >= 0


def test_texts_for_people() -> None:
    assert [reading.span(s * 1_000_000) for s in (4.24, 59.99, 185, 7620, 273_600)] == [
        "4.2s",
        "1m 00s",
        "3m 05s",
        "2h 07m",
        "3d 04h",
    ]
    assert reading.moment(0) == "-" and reading.moment(1 << 62) == "-"
    assert reading.number_text(1 / 3) == "0.333333" and reading.number_text(None) == "-"
    assert reading.width("日本") == 4
    assert reading.json_text({"a": "\x1b", "b": [1, "x\ny"]}) == '{"a": "\\u001b", "b": [1, "x\\ny"]}'


def test_a_terminal_without_unicode_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    reading.say("größer")
    assert raw.getvalue() == b"gr\\xf6\\xdfer\n"


# -- without an engine ------------------------------------------------------------------------------------------------
def test_a_kill_needs_an_engine(digits: home.Folder) -> None:
    with pytest.raises(TuneError, match="no engine runs") as error:
        trial("kill", "3", id="digits")
    assert error.value.exit_code == 1 and "tune resume digits" in str(error.value.hint)
    with pytest.raises(UsageError, match="no trial '77'"):
        trial("kill", "3", "77", id="digits")
    with pytest.raises(UsageError, match="which trials"):
        trial("kill", id="digits")


def imports_of(folder: home.Folder) -> list[tuple[Any, Any]]:
    rows = table_of(folder, "SELECT body FROM event WHERE kind = 'IMPORT' ORDER BY seq")
    return [(body["parameters"], body["value"]) for body in (json.loads(text) for (text,) in rows)]


def test_results_outside_the_space_are_skipped_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Story("small", constraints=["lr < 0.75"], tuner=Algorithm(name="Random")).write()
    file = tmp_path / "results.jsonl"
    given = [({"lr": 0.5}, 1), ({"lr": 2}, 2), ({"lr": 0.875}, 3), ({"lr": 0.25}, "NaN"), ({"rate": 1}, 4)]
    file.write_text("\n".join(json.dumps({"parameter": p, "value": v}) for p, v in given))
    assert import_(file, "small") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "2 results imported into experiment small" and "tune resume small" in out
    assert "3 skipped: outside its search space (the first: lr: 2.0 is not in 0.0 <= x <= 1.0)" in err
    assert "1 of them have no finite number: they count as failed" in err
    assert imports_of(folder) == [({"lr": 0.5}, 1), ({"lr": 0.25}, "NaN")]
    assert verify("small") == 0
    file.write_text('{"parameter": {"lr": 7}, "value": 1}')
    assert import_(file, "small") == 1 and len(imports_of(folder)) == 2
    file.write_text("")
    assert import_(file, "small") == 0


def test_results_of_an_earlier_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = Story("earlier", optimize_mode="minimize")
    earlier.trial(0, '{"lr":0.5}', final='{"default":0.5,"latency":3}')
    earlier.trial(1, '{"lr":0.25}', final="0.75")
    earlier.trial(2, '{"lr":9}', final="1")
    earlier.trial(3, '{"lr":0.125}', final='"NaN"')
    earlier.trial(4, '{"lr":0.0625}', "1", end="FAILED")
    source = earlier.write()
    before = source.events.read_bytes()
    folder = Story("later", tuner=Algorithm(name="Random")).write()
    assert import_(Path("later"), from_="earlier") == 0
    out, err = capsys.readouterr()
    assert "2 results imported into experiment later" in out
    assert "1 skipped: no finite number" in err and "1 skipped: outside its search space" in err
    assert "note: earlier has optimize_mode minimize, this one maximize" in err
    assert imports_of(folder) == [({"lr": 0.5}, {"default": 0.5, "latency": 3}), ({"lr": 0.25}, 0.75)]
    assert source.events.read_bytes() == before
    two = {"default": "minimize", "latency": "minimize"}
    both = Story("both", objectives=two, tuner=Algorithm(name="Random")).write()
    assert import_(from_=str(source.events)) == 0  # into the newest one
    assert imports_of(both) == [({"lr": 0.5}, {"default": 0.5, "latency": 3})]
    assert "3 skipped: no finite number for default and latency" in capsys.readouterr().err


def test_an_import_that_can_not_be(digits: home.Folder, tmp_path: Path) -> None:
    for arguments, options, wrong in (
        ((), {}, "which results"),
        ((Path("x"), "digits"), {"from_": "digits"}, "exclude each other"),
        ((Path("digits"),), {"from_": "digits"}, "has its own results already"),
        ((Path("digits"),), {"from_": "nothere"}, "nothere"),
        ((tmp_path / "none.csv", "digits"), {}, "there is no file"),
    ):
        with pytest.raises(UsageError, match=wrong):
            import_(*arguments, **options)


def test_a_trial_is_added_without_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Story("small", constraints=["lr < 0.75"], tuner=Algorithm(name="Random"), max_trial_number=3).write()
    (tmp_path / "two.json").write_text('[{"lr": 0.25}, {"lr": 0.125}]')
    assert trial("add", '{"lr": 0.5}', f"@{tmp_path / 'two.json'}", id="small") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:3] == [f'queued: {{"lr":{lr}}}' for lr in (0.5, 0.25, 0.125)]
    assert "tune resume small" in out
    trials("small", json=True)
    assert [(one["number"], one["status"], one["parameters"]) for one in said(capsys)] == [
        (0, "WAITING", {"lr": 0.5}),
        (1, "WAITING", {"lr": 0.25}),
        (2, "WAITING", {"lr": 0.125}),
    ]
    before = folder.events.read_bytes()
    with pytest.raises(TuneError, match="max_trial_number is 3 and is reached") as error:
        trial("add", '{"lr": 0.5}', id="small")
    assert error.value.exit_code == 1
    for text, wrong in (
        ('{"lr": 0.875}', "the constraint 'lr < 0.75' is not met"),
        ('{"lr": 7}', "lr: 7.0 is not in"),
        ("lr=7", "this is not JSON"),
        ("@/nonexistent", "/nonexistent can't be read: No such file"),
    ):
        with pytest.raises(UsageError, match=wrong):
            trial("add", '{"lr": 0.5}', text, id="small")
    with pytest.raises(UsageError, match="which trials"):
        trial("add", id="small")
    assert folder.events.read_bytes() == before
    assert verify("small") == 0


def test_a_front_for_people_and_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    Story("empty", objectives={"accuracy": "maximize", "latency": "minimize"}).write()
    best("empty", json=True)
    assert said(capsys) == []
    best("empty")
    assert capsys.readouterr().out == "no result yet\n"
    story = Story("more", objectives={"accuracy": "maximize", "latency": "minimize"})
    story.trial(0, '{"lr":0.5}', final='{"accuracy":0.5,"latency":3}')
    story.trial(1, '{"lr":0.25}', final='{"accuracy":0.75,"latency":9}')
    story.trial(2, '{"lr":0.125}', final='{"accuracy":0.75,"latency":10}')
    story.write()
    best("more", json=True)
    assert [(one["trial"], one["values"]) for one in said(capsys)] == [
        (1, {"accuracy": 0.75, "latency": 9.0}),
        (0, {"accuracy": 0.5, "latency": 3.0}),
    ]
    best("more")
    assert capsys.readouterr().out.splitlines() == [
        "TRIAL  accuracy  latency  PARAMETERS",
        '    1      0.75        9  {"lr": 0.25}',
        '    0       0.5        3  {"lr": 0.5}',
    ]
    status("more")
    assert "2 results on the Pareto front of accuracy (maximize), latency (minimize)" in capsys.readouterr().out
    list_verb()
    assert "2 on the front" in capsys.readouterr().out
    trials("more")
    assert "accuracy=0.75,latency=9" in capsys.readouterr().out
    export("more")
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head == (
        "trial,phase,status,parameters.lr,value,intermediate,values.accuracy,values.latency,final.accuracy,final.latency"
    )
    assert first == "0,0,SUCCEEDED,0.5,,[],0.5,3.0,0.5,3"


def test_infeasible_results_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story("limited", outcome_constraints=["latency <= 10"])
    story.trial(0, '{"lr":0.5}', final='{"default":0.5,"latency":13}')
    story.write()
    best("limited")
    nearest = "no feasible result yet: trial 0 comes nearest, it fails the outcome constraints by 3"
    assert capsys.readouterr().out == nearest + "\n"
    best("limited", json=True)
    assert said(capsys) is None
    status("limited")
    assert nearest in capsys.readouterr().out
    trials("limited")
    assert "fails the outcome constraints by 3" in capsys.readouterr().out
    export("limited")
    assert capsys.readouterr().out.splitlines() == [
        "trial,phase,status,parameters.lr,value,intermediate,violation,final.default,final.latency",
        "0,0,SUCCEEDED,0.5,0.5,[],3.0,0.5,13",
    ]


def test_update_without_an_engine_is_written_for_the_next(
    digits: home.Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    update("digits", max_trials=50, duration="2h")
    out = capsys.readouterr().out
    assert "max_trial_number: 10 -> 50\nmax_experiment_duration: no limit -> 2h\n" in out
    assert "tune resume digits" in out
    status("digits", json=True)
    assert said(capsys)["max_trial_number"] == 50
    assert verify("digits") == 0


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, "nothing to change"),
        ({"concurrency": 0}, "--concurrency: 0"),
        ({"max_trials": -1}, "--max-trials: -1"),
        ({"duration": "soon"}, "--duration: 'soon' is no duration"),
        ({"duration": "0s"}, "--duration: '0s' is no time"),
    ],
)
def test_update_refuses_what_cannot_be(digits: home.Folder, options: dict[str, Any], wrong: str) -> None:
    before = digits.events.read_bytes()
    with pytest.raises(UsageError, match=wrong):
        update("digits", **options)
    assert digits.events.read_bytes() == before


def test_update_checks_the_search_space(digits: home.Folder, tmp_path: Path) -> None:
    file = tmp_path / "space.json"
    for text, wrong in (
        ('{"lr": {"_type": "uniform", "_value": [1, 0]}}', "lr"),
        ("[1]", "object of parameters"),
        ("{", "space.json:1"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=wrong):
            update("digits", search_space=file)
    with pytest.raises(UsageError, match="there is no file"):
        update("digits", search_space=tmp_path / "none.json")
    file.write_text(json.dumps({"x": {"_type": "choice", "_value": [1, 2]}}))
    update("digits", search_space=file)
    [(body,)] = table_of(digits, "SELECT body FROM event WHERE kind = 'UPDATE'")
    assert json.loads(body)["search_space"] == {"x": {"_type": "choice", "_value": [1, 2]}}


def test_any_object_is_a_space_for_a_users_tuner(tmp_path: Path) -> None:
    from tune.cli.update import read_space

    file = tmp_path / "space.json"
    file.write_text('{"anything": [1, 2]}')
    theirs = settings(tuner=Algorithm(class_name="mine.Tuner", code_directory="/tmp"))
    assert read_space(file, theirs) == '{"anything":[1,2]}'
    with pytest.raises(UsageError):
        read_space(file, settings(tuner=Algorithm(name="Random")))
    with pytest.raises(UsageError):
        read_space(file, msgspec.structs.replace(theirs, constraints=["x > 1"]))


# -- with an engine ---------------------------------------------------------------------------------------------------
@pytest.fixture
def running(tmp_path: Path) -> Iterator[home.Folder]:
    """An experiment whose two trials say hello and then wait for their end."""
    settings = {
        "search_space": SPACE,
        "trial_command": "echo hello; echo oops >&2; exec sleep 600",
        "trial_code_directory": str(tmp_path),
        "max_trial_number": 2,
        "trial_concurrency": 2,
        "tuner": {"name": "Random"},
    }
    (tmp_path / "code").mkdir()
    resolved, _ = config_load.from_mapping({**settings, "trial_code_directory": "code"}, tmp_path)
    folder, _ = home.create("running")
    folder.config.write_bytes(config.encode(resolved))
    # by a process that ends, as the command line does: here its Popen would be left over
    starts = "from tune.engine import client, home; client.start(home.at(home.root() / 'running'), actor='test')"
    subprocess.run([sys.executable, "-c", starts], check=True)
    try:
        wait_for(folder, lambda view: view.state.counts["RUNNING"] == 2)
        yield folder
    finally:
        asyncio.run(stop(folder))


def wait_for(folder: home.Folder, true: Any) -> None:
    """Wait until the log says so; the engine tells when there is more of it."""

    async def main() -> None:
        view, connected = client.View(folder), await client.Client.connect(folder)
        assert connected is not None
        try:
            async for seq in connected.watch():
                view.catch_up(seq)
                if true(view):
                    return
            pytest.fail("the engine has ended")
        finally:
            view.close()
            await connected.close()

    asyncio.run(main())


async def stop(folder: home.Folder) -> None:
    connected = await client.Client.connect(folder)
    if connected is not None:
        await connected.ask(AskStop("test", force=True))
        async for _ in connected.watch():
            pass
        await connected.close()


def test_changing_a_running_experiment(running: home.Folder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(
        '{"parameter": {"lr": 0.5}, "value": {"default": 0.25}}\n{"parameters": {"lr": 0.75}, "value": 2}\n'
    )
    import_(file, "running")
    update("running", max_trials=3, concurrency=1)
    assert trial("kill", "0", "0", id="running") == 0
    wait_for(running, lambda view: view.state.trial(0).over)
    out, err = capfd.readouterr()
    assert "2 results imported" in out and "trial_concurrency: 2 -> 1" in out and not err
    assert out.count("is being ended") == 1
    assert trial("kill", "0", id="running") == 1
    assert "has ended already: USER_CANCELED" in capfd.readouterr().err
    status("running", json=True)
    seen = json.loads(capfd.readouterr().out)
    assert (seen["max_trial_number"], seen["trial_concurrency"], seen["counts"]["USER_CANCELED"]) == (3, 1, 1)
    imported = table_of(running, "SELECT json_extract(body, '$.parameters'), sender FROM event WHERE kind = 'IMPORT'")
    assert [json.loads(text) for text, _ in imported] == [{"lr": 0.5}, {"lr": 0.75}]


def test_following_ends_with_what_is_followed(running: home.Folder) -> None:
    """`logs -f` of a trial, of the engine and `tail -f` are there while the experiment is stopped."""
    verbs = {
        "logs": "logs('running', trial='1', stderr=True, follow=True)",
        "engine": "logs('running', follow=True)",
        "tail": "tail('running', follow=True, json=True)",
    }
    followers = {
        name: subprocess.Popen(
            [sys.executable, "-c", f"from tune.cli.logs import logs; from tune.cli.tail import tail; {call}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, call in verbs.items()
    }
    # each has begun when its first line is there
    first = {name: process.stdout.readline() for name, process in followers.items() if process.stdout is not None}
    asyncio.run(stop(running))
    rest = {name: process.stdout.read() for name, process in followers.items() if process.stdout is not None}
    for process in followers.values():
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert (first["logs"], rest["logs"]) == ("oops\n", "")
    assert "ended" in rest["engine"].splitlines()[-1]
    events = [json.loads(line) for line in (first["tail"] + rest["tail"]).splitlines()]
    [(count,)] = table_of(running, "SELECT count(*) FROM event")
    assert [event["seq"] for event in events] == list(range(1, count + 1))
    assert events[-1]["body"]["status"] == "STOPPED"


def test_files_of_a_log_are_private(digits: home.Folder) -> None:
    assert stat.S_IMODE(digits.events.stat().st_mode) == 0o600
