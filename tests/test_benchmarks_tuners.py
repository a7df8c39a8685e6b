"""The tuner benchmark: its problems are sound, it runs tuners, goes on where it ended, and reports."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOM = Path(__file__).parent.parent / "benchmarks" / "tuners"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the room by name."""
    monkeypatch.syspath_prepend(str(ROOM))
    names = ("run", "problems", "peers", "ours", "report", "grids", "parameters")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def run(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["run.py", *options])
    assert bench("run").main() == 0
    return str(capsys.readouterr().out)


def test_every_problem_has_a_reference_and_no_point_beats_its_optimum(bench: Any) -> None:
    problems, parameters = bench("problems"), bench("parameters")
    for problem in [*problems.public(), *problems.check(), *problems.large()]:
        known = problems.KNOWN[problem.name]
        assert known["random50"] > known["optimum"]
        if problem.group == "bbob":
            continue  # needs a package that isn't installed for tests
        draw = np.random.default_rng(0)
        for _ in range(20):
            point = parameters.sample(problem.space, draw)
            assert problem.true(point) >= known["optimum"] - 1e-9
            assert problem.true(parameters.pruned(problem.space, point)) == problem.true(point)


def test_a_measured_grid_is_itself_at_its_nodes(bench: Any) -> None:
    grids = bench("grids")
    for name, task in grids.TASKS.items():
        losses = grids.table(name)
        place = tuple(size // 2 for size in losses.shape)
        point = {p.name: nodes[i] for (p, _), nodes, i in zip(task.axes, task.grid, place, strict=True)}
        assert grids.interpolate(losses, task.axes, point) == pytest.approx(losses[place])


def test_our_space_has_the_same_points(bench: Any) -> None:
    problems, parameters, ours = bench("problems"), bench("parameters"), bench("ours")
    for problem in problems.check():
        space = ours.space_of(problem.space)
        assert {p.name for p in space.params} == {p.name for p in problem.space}
        draw = np.random.default_rng(1)
        adapter = ours.Ours("Random", problem.space, 1, 10, 1)
        for _ in range(10):
            point = adapter._configuration(space.sample(draw.random))
            assert point == parameters.pruned(problem.space, point)
            for p in problem.space:
                assert p.name not in point or p.clip(point[p.name]) == point[p.name]


def test_it_goes_on_where_it_ended_and_reports(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    few = (
        "--suite",
        "check",
        "--only",
        "mix_hpo",
        "real_rf",
        "--budget",
        "20",
        "--at",
        "20",
        "--results",
        str(tmp_path),
    )
    for name in ("Random", "random"):
        run(bench, monkeypatch, capsys, *few, "--seeds", "1", "--worker", name)
    first = (tmp_path / "Random.csv").read_text()
    run(bench, monkeypatch, capsys, *few, "--seeds", "2", "--worker", "Random")
    second = (tmp_path / "Random.csv").read_text()
    assert second.startswith(first)
    rows = list(csv.DictReader(second.splitlines()))
    assert {(row["problem"], row["seed"], row["n"]) for row in rows} == {
        (problem, seed, n)
        for problem in ("mix_hpoplateau_1_n0.03", "real_rf_iris")
        for seed in "01"
        for n in ("10", "20")
    }
    assert len(rows) == 8
    text = run(bench, monkeypatch, capsys, *few, "--tuners", "Random", "random", "--report-only", "--versus", "random")
    assert "at 20 evaluations, 2 problems" in text
    assert "difference of mean regret to random at 20" in text


def test_many_pending_at_a_time(bench: Any) -> None:
    run_, problems = bench("run"), bench("problems")
    problem = problems.network(1, 0.03)
    asked: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.pending = 0

        def ask(self) -> Any:
            self.pending += 1
            asked.append(self.pending)
            return None, {"lr": 1e-3, "wd": 1e-4, "depth": 3, "width": 64, "act": "relu"}

        def tell(self, token: Any, configuration: Any, value: float) -> None:
            self.pending -= 1

    run_.make = lambda *_: Counting()
    rows = run_.one_run("x", problem, 0, 20, 4)
    assert asked == [1, 2, 3, *[4] * 17]
    assert [row["n"] for row in rows] == [10, 20]


def test_ranks_are_shared_by_equals(bench: Any) -> None:
    ranks = bench("report")._statistics(np.array([[0.1, 0.5], [0.1, 0.2], [0.3, 0.9]]))[0]
    assert ranks.tolist() == [1.75, 1.25, 3.0]
