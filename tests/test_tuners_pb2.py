"""PB2: as PBT, with a model of the next step's improvement that forgets and spreads what runs at once."""

from __future__ import annotations

import numpy as np
from promotion_search import SPACE, Search

from tune.engine.space import parse
from tune.tuners.pb2 import PB2, Bandit, Known


def climb(search: Search) -> None:
    """Each step gains the more, the closer x is to 0.3."""
    number = search.open[0]
    answer, gained = search.answers[number], 0.0
    if answer.continues is not None:
        gained = search.results[answer.continues] or 0.0
    search.end(number, "completed", gained + 1 - abs(answer.parameters["x"] - 0.3))


def test_members_move_to_where_a_step_gains_most() -> None:
    search = Search(PB2())
    search.run(150, 5, climb)
    search.check()
    explored = [a for a in search.answers[60:] if a.decision["rule"] == "exploit"]
    assert len(explored) > 8 and all(a.decision["model"] == "gp" for a in explored)
    assert np.median([abs(a.parameters["x"] - 0.3) for a in explored]) < 0.15  # by chance: about 0.24


def known(points: list[float], steps: list[float], gains: list[float], pending: tuple[float, ...] = ()) -> Known:
    return Known(
        np.array(points)[:, None],
        np.array(steps),
        np.array(gains),
        np.array(pending).reshape(-1, 1),
        np.full(len(pending), 9.0),
    )


GRID = np.linspace(0, 1, 11)[:, None]


def test_the_bound_is_highest_where_gains_were() -> None:
    x = np.linspace(0, 1, 20)
    bandit = Bandit(known(x.tolist(), [8.0] * 20, (-((x - 0.7) ** 2)).tolist()))
    assert np.argmax(bandit.bound(GRID, 9)) in (6, 7, 8) and bandit.omega == 0.0


def test_what_is_newer_counts_more() -> None:
    x = np.tile(np.linspace(0, 1, 10), 2)
    gains = np.concatenate([-np.abs(x[:10] - 0.1), -np.abs(x[10:] - 0.9)])
    bandit = Bandit(known(x.tolist(), [0.0] * 10 + [30.0] * 10, gains.tolist()))
    assert bandit.omega > 0
    assert GRID[np.argmax(bandit.bound(GRID, 31)), 0] >= 0.7


def test_steps_that_run_lower_the_bound_around_them() -> None:
    points = [0.1, 0.2, 0.8, 0.9]
    free = Bandit(known(points, [8.0] * 4, [0.1, 0.2, 0.2, 0.1])).bound(GRID, 9)
    busy = Bandit(known(points, [8.0] * 4, [0.1, 0.2, 0.2, 0.1], (0.5,))).bound(GRID, 9)
    assert busy[5] < free[5] and np.all(busy <= free + 1e-9)


def test_gains_of_any_size_and_none_at_all() -> None:
    for gains in ([0.0] * 4, [1e308, -1e308, 1e308, 0.0], [5e-324, 0.0, 0.0, 0.0]):
        assert np.all(np.isfinite(Bandit(known([0.1, 0.4, 0.6, 0.9], [1.0] * 4, gains)).bound(GRID, 2)))


def test_a_space_of_choices_is_searched_as_in_pbt() -> None:
    search = Search(PB2(), parse({"x": {"_type": "choice", "_value": [0.1, 0.2, 0.3, 0.4, 0.5]}}))
    search.run(60, 3)
    explored = [a for a in search.answers if a.decision["rule"] == "exploit"]
    assert explored and all(a.decision["model"] is None for a in explored)


def test_arguments() -> None:
    assert "PB2 itself" in str(PB2.refuse(parse({"TRIAL_BUDGET": SPACE.raw["x"]})))
    assert PB2(all_checkpoint_dir="/data").folder == "/data"
