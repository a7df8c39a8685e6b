"""The recorder: facts of any thread are durable when `wait` returns, many to a commit; errors reach everybody."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tune.engine.client import engine_pid
from tune.engine.errors import TuneError
from tune.engine.events import Fact, Tick
from tune.engine.home import Folder
from tune.engine.lock import peek
from tune.engine.log import Log, LogIO, Reader
from tune.engine.recorder import Recorder, hold
from tune.engine.requests import PersonsRequest


def fact(seq: int, epoch: int = 1) -> Fact:
    return Fact(seq, epoch, f"e{epoch}", seq, None, None, seq, Tick(seq))


def nobody(request: PersonsRequest) -> int:
    raise AssertionError("nobody asks here")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder("it", tmp_path, tmp_path)


@pytest.fixture
def recorder(folder: Folder) -> Iterator[Recorder]:
    made = Recorder(folder, hold(folder), nobody)
    made.start(1, None)
    yield made
    made.finish()
    made._thread.join()


def written(folder: Folder) -> list[int]:
    with Reader(folder.events) as reader:
        return [row.seq for row in reader.rows()]


def test_what_was_waited_for_is_in_the_log(recorder: Recorder, folder: Folder) -> None:
    for seq in (1, 2, 3):
        recorder.put([fact(seq)])
        recorder.wait(seq)
        assert written(folder) == list(range(1, seq + 1)) and recorder.last_seq == seq


def test_intermediates_linger_but_come(recorder: Recorder, folder: Folder) -> None:
    recorder.put([fact(1)], urgent=False)
    recorder.put([fact(2)], urgent=False)
    recorder.wait(2)
    assert written(folder) == [1, 2]


def test_what_queues_up_is_one_commit(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    append = Log.append

    async def counted(self: Log, rows: list[object]) -> None:
        sizes.append(len(rows))
        await append(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Log, "append", counted)
    for seq in range(1, 201):
        recorder.put([fact(seq)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(recorder.wait, range(1, 201)))
    assert sum(sizes) == 200 and len(sizes) < 200


def test_the_lock_says_who_and_where_and_is_given_back(recorder: Recorder, folder: Folder) -> None:
    content = peek(folder.lock)
    assert content is not None and Path(content["socket"]).is_socket() and engine_pid(folder) == content["pid"]
    with pytest.raises(TuneError, match="this very process"):
        hold(folder)
    recorder.put([fact(1)])
    recorder.close()
    recorder.close()
    assert peek(folder.lock) is None and written(folder) == [1]
    assert not Path(content["socket"]).exists()
    again = Recorder(folder, hold(folder), nobody)
    with Reader(folder.events) as reader:
        list(reader.rows())
        last = reader.last
    again.start(2, last)
    again.put([fact(2, epoch=2)])
    again.close()
    assert written(folder) == [1, 2]


def test_an_error_reaches_everybody_who_waits_and_all_who_come(
    recorder: Recorder, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Log, rows: object) -> None:
        raise LogIO("no such disk")

    monkeypatch.setattr(Log, "append", broken)
    recorder.put([fact(1)])
    with ThreadPoolExecutor(4) as pool:
        for waiting in [pool.submit(recorder.wait, 1) for _ in range(4)]:
            with pytest.raises(TuneError, match="no such disk"):
                waiting.result(60)
    with pytest.raises(TuneError, match="no such disk"):
        recorder.put([fact(1)])
    with pytest.raises(TuneError, match="no such disk"):
        recorder.close()
    assert peek(folder.lock) is None and written(folder) == []


def test_a_log_that_is_there_already_is_not_made_anew(folder: Folder) -> None:
    folder.events.write_bytes(b"something")
    made = Recorder(folder, hold(folder), nobody)
    with pytest.raises(TuneError, match="can't make the log"):
        made.start(1, None)
    assert peek(folder.lock) is None and folder.events.read_bytes() == b"something"
