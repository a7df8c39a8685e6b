"""The golden logs: what older versions wrote is seen as it was seen then, verified, and gone on with (P15)."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent / "golden"))

import harness
import make

from tune.engine import log as log_module
from tune.engine.ask_tell import AskTell
from tune.engine.client import View
from tune.engine.decisions import check_decisions
from tune.engine.errors import TuneError
from tune.engine.events import Row
from tune.engine.home import Folder
from tune.engine.log import Reader, chain_of
from tune.engine.verify import verify

HERE = Path(__file__).parent
LOGS = sorted((HERE / "golden").glob("*.db"))
named = pytest.mark.parametrize("log", LOGS, ids=[log.stem for log in LOGS])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Bench]:
    """A place for whole experiments; when the test is over, nothing of them may be left."""
    make.CODE.mkdir(exist_ok=True)
    with harness.bench(tmp_path, monkeypatch.setenv) as made:
        yield made


def copied(log: Path, parent: Path) -> Folder:
    """An experiment's folder with a copy of this log; its id is the one that the log tells."""
    with Reader(log) as reader:
        body = json.loads(next(reader.rows(upto=1)).body)
    path = parent / body["id"]
    path.mkdir(parents=True)
    folder = Folder(path.name, path, path)
    shutil.copyfile(log, folder.events)
    folder.config.write_text(json.dumps(body["config"]))
    return folder


def test_each_case_has_a_log_of_each_format() -> None:
    assert {log.name for log in LOGS} == {
        f"{name}.{number}.db" for name in (*make.CASES, make.ASKED) for number in range(1, log_module.FORMAT + 1)
    }
    assert all(log.stat().st_size < 60_000 for log in LOGS)


@named
def test_P15_is_seen_as_it_was_seen_then(log: Path, tmp_path: Path) -> None:
    folder = copied(log, tmp_path)
    view = View(folder)
    view.close()
    assert make.seen(view.state) == json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))
    assert not view.unknown


@named
def test_P15_verifies(log: Path, tmp_path: Path) -> None:
    found = verify(copied(log, tmp_path).events)
    assert found.ok
    assert found.events == json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))["events"]


@named
def test_P15_its_decisions_come_out_again(log: Path, tmp_path: Path) -> None:
    found = check_decisions(copied(log, tmp_path))
    assert (found.ok, found.divergence) == (True, "")
    assert found.suggestions + found.others >= 2


def test_P15_a_study_is_gone_on_with(bench: harness.Bench) -> None:
    folder = copied(HERE / "golden" / f"{make.ASKED}.1.db", bench.home)
    view = View(folder)
    view.close()
    before = make.seen(view.state)["trials"]
    assert before[-1]["status"] == "SYS_CANCELED"
    with AskTell.resume(folder.id) as study:
        again = study.ask()
        assert (again.number, again.parameters) == (before[-1]["number"], before[-1]["parameters"])
        study.tell(again, 1.0)
        study.tell(study.ask(), 1.0)
    view = View(folder)
    view.close()
    assert make.seen(view.state)["trials"][:-2] == before[:-1]
    assert verify(folder.events).ok


@pytest.mark.parametrize("log", [log for log in LOGS if make.ASKED not in log.stem], ids=lambda log: log.stem)
def test_P15_is_gone_on_with(log: Path, bench: harness.Bench) -> None:
    experiment = bench.known(copied(log, bench.home))
    before = experiment.state()
    more = len(before.trials) + 2
    experiment.start(harness.limits(max_trial_number=more))
    state = experiment.finish()
    exhausted = "exhausted" in log.stem
    assert (state.status, len(state.made)) == ("DONE", len(before.made) if exhausted else more), state.reason
    for old, new in zip(make.seen(before)["trials"], make.seen(state)["trials"], strict=False):
        assert old == new or old["status"] == "SYS_CANCELED"
    assert verify(experiment.folder.events).ok


# -- logs of tomorrow -------------------------------------------------------------------------------------------------
def from_tomorrow(folder: Folder, change: Callable[[Row], Row], *, more: Row | None = None) -> None:
    """Forge the log of a version to come: some rows changed, one more at its end, the chain right."""
    with Reader(folder.events) as reader:
        rows = [change(row) for row in reader.rows()]
    rows += [more] if more is not None else []
    folder.events.unlink()
    connection = sqlite3.connect(folder.events, isolation_level=None)
    connection.execute(log_module._TABLE)
    chain = log_module.ZERO
    for seq, row in enumerate(rows, 1):
        row = msgspec.structs.replace(row, seq=seq)
        chain = chain_of(chain, row)
        values = [getattr(row, name) for name in Row.__struct_fields__]
        connection.execute(f"INSERT INTO event VALUES ({', '.join('?' * 11)})", [*values, chain])
    for sql in log_module._TRIGGERS.values():
        connection.execute(sql)
    connection.execute(f"PRAGMA application_id = {log_module.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {log_module.FORMAT}")
    connection.close()


TOMORROW = {
    "an unknown kind": (lambda row: row, Row(0, 1, "DREAM", 1, "someone", 1, None, None, 5, '{"of":"sheep"}')),
    "a known kind's next version": (
        lambda row: msgspec.structs.replace(row, ver=2) if row.kind == "LAUNCHED" else row,
        None,
    ),
}


@pytest.mark.parametrize(("change", "more"), TOMORROW.values(), ids=TOMORROW.keys())
def test_a_log_from_tomorrow_is_shown_and_not_gone_on_with(
    bench: harness.Bench, change: Callable[[Row], Row], more: Row | None
) -> None:
    folder = copied(HERE / "golden" / "single_phase.1.db", bench.home)
    from_tomorrow(folder, change, more=more)
    before = folder.events.read_bytes()
    view = View(folder)
    view.close()
    assert "newer version" in view.unknown
    assert len(view.state.made) == 8
    shown = bench.tune("status", folder.id)
    assert shown.returncode == 0 and "newer version" in shown.stderr
    for arguments in (["resume", folder.id, "--max-trials", "9"], ["update", folder.id, "--max-trials", "9"]):
        refused = bench.tune(*arguments)
        assert refused.returncode == 1 and "newer version" in refused.stderr, refused
        assert "Traceback" not in refused.stderr
    assert bench.tune("verify", folder.id).returncode == 1
    refused = bench.tune("recover", folder.id)
    assert refused.returncode == 1 and "newer version" in refused.stderr
    assert folder.events.read_bytes() == before


def test_a_log_of_which_too_much_is_unknown_is_shown_up_to_there(tmp_path: Path) -> None:
    folder = copied(HERE / "golden" / "single_phase.1.db", tmp_path)
    from_tomorrow(folder, lambda row: msgspec.structs.replace(row, ver=9) if row.kind == "NEW_TRIAL" else row)
    view = View(folder)
    view.close()
    assert "only up to event" in view.unknown
    assert view.state.made == []


def test_a_log_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = copied(HERE / "golden" / "single_phase.1.db", tmp_path)
    connection = sqlite3.connect(folder.events)
    connection.execute(f"PRAGMA user_version = {log_module.FORMAT + 1}")
    connection.close()
    with pytest.raises(TuneError, match="newer version"):
        View(folder)
