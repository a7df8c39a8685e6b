"""portal/others.py: the experiments of this home, and two of them side by side."""

from __future__ import annotations

import asyncio
from pathlib import Path

import made_log
import pytest

from tune.engine import client
from tune.engine.client import View
from tune.engine.errors import TuneError, UsageError
from tune.portal import others


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))


def test_every_experiment_that_can_be_read_is_listed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        asyncio.run(made_log.write(tmp_path, 2, id=name))
    damaged = tmp_path / "bad"
    damaged.mkdir()
    (damaged / "events.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert sorted(one["id"] for one in client.statuses()) == ["one", "two"]


def test_two_are_compared_by_their_curves_and_configs(tmp_path: Path) -> None:
    first = asyncio.run(made_log.write(tmp_path, 4, id="one"))
    asyncio.run(made_log.write(tmp_path, 3, id="two", trial_concurrency=7))
    view = View(first)
    view.close()
    found = others.compared(first, view.state, "two")
    assert found["ids"] == ["one", "two"] and found["differences"]["trial_concurrency"] == [4, 7]
    assert "search_space" not in found["differences"]
    assert [len(curve) for curve in found["curves"]] == [4, 3]
    best = [point["best"] for point in found["curves"][0]]
    assert best == sorted(best) and best[-1] == found["best"][0]["value"]
    with pytest.raises(UsageError):
        others.compared(first, view.state, "three")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text("{}")
    with pytest.raises(TuneError):
        others.compared(first, view.state, "new")


def test_of_several_objectives_the_first_is_the_curve_and_infeasible_results_are_no_best(tmp_path: Path) -> None:
    async def make() -> None:
        fields = {
            "objectives": {"loss": "minimize", "size": "minimize"},
            "outcome_constraints": ["size <= 5"],
            "tuner": {"name": "NSGAII"},
        }
        async with made_log.begun(tmp_path, "two", **fields) as writer:
            for loss, size in ((3, 9), (2, 4), (1, 9), (2.5, 1)):
                writer.trial(reports=0, final={"loss": loss, "size": size})
        (tmp_path / "folder").mkdir()

    asyncio.run(make())
    first = asyncio.run(made_log.write(tmp_path, 1, id="one"))
    view = View(first)
    view.close()
    curve = others.compared(first, view.state, "two")["curves"][1]
    assert [(point["value"], point["best"]) for point in curve] == [(3, None), (2, 2), (1, 2), (2.5, 2)]
