"""portal/figures.py: every figure of every kind of experiment is one that Plotly takes, or says why there is none."""

from __future__ import annotations

import json
import math
from typing import Any

import plotly.graph_objects as go
import pytest
from msgspec import Raw

from tune.engine import config, views
from tune.engine.config import Config
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
)
from tune.engine.reduce import reduce
from tune.engine.state import State
from tune.portal import figures

EVIL = "</script><img src=x onerror=alert(1)>"
FLAT = {
    "lr": {"_type": "loguniform", "_value": [1e-4, 1]},
    "n": {"_type": "randint", "_value": [0, 8]},
    "kind": {"_type": "choice", "_value": ["a", "b"]},
}
NESTED = {
    "layer": {
        "_type": "choice",
        "_value": [
            {"_name": "Empty"},
            {
                "_name": "Conv",
                "size": {"_type": "choice", "_value": [3, 5]},
                "rate": {"_type": "uniform", "_value": [0, 1]},
            },
        ],
    },
    "lr": {"_type": "uniform", "_value": [0, 1]},
}
HOSTILE = {EVIL: {"_type": "uniform", "_value": [0, 1]}, "<b>k</b>": {"_type": "choice", "_value": [EVIL, "b"]}}


def told(space: dict[str, Any], results: list[tuple[dict[str, Any], list[Any]]], **settings: Any) -> State:
    """The state of an experiment with these trials: parameters, and what each reported; the last is the final."""
    state = State()
    facts = 0

    def say(event: Event, trial: int | None = None, sender: str = "e1") -> None:
        nonlocal facts
        facts += 1
        reduce(state, Fact(facts, 1, sender, facts, trial, None, 1_700_000_000_000_000 + facts * 1_000_000, event))

    given: dict[str, Any] = {"trial_command": "true", "trial_code_directory": "/tmp", "search_space": space, **settings}
    say(Experiment("story", Raw(config.encode(Config(**given))), 7))
    say(EngineStarted("here", 4711, 0))
    say(Status("RUNNING"))
    say(Host("here", "connected", 0, 4712))
    for number, (parameters, reports) in enumerate(results):
        say(RequestParameter(number + 1), number)
        say(NewTrial(f"t{number:04}"), number)
        say(Parameter(number + 1, Raw(json.dumps(parameters).encode()), facts), number)
        say(Launch(0, "here"), number)
        say(Launched(0, 5000 + number, 0, 1_700_000_000_000_000 + facts * 1_000_000), number)
        for value in reports:
            final = value is reports[-1]
            say(Metric(Raw(json.dumps(value).encode()), final=final), number, f"t{number:04}.0.1")
        say(TrialEnd(0, "SUCCEEDED", 0), number)
    return state


def flat(count: int) -> list[tuple[dict[str, Any], list[Any]]]:
    return [
        ({"lr": 10 ** -(index % 4), "n": index % 8, "kind": "ab"[index % 2]}, [0.1 * index, 0.2 * index, index / 10])
        for index in range(count)
    ]


STATES: dict[str, State] = {}


def states() -> dict[str, State]:
    if not STATES:
        conv = [{"_name": "Conv", "size": size, "rate": 1 / size} for size in (3, 5)]
        branches = [{"_name": "Empty"}, *conv]
        nested = [({"layer": branches[i % 3], "lr": i / 12}, [i / 2, i]) for i in range(12)]
        hostile = [({EVIL: i / 9, "<b>k</b>": [EVIL, "b"][i % 2]}, [i / 3, i]) for i in range(9)]
        two = [({"lr": 0.1, "n": i % 8, "kind": "a"}, [{"up": i, EVIL: (i - 3) ** 2}]) for i in range(8)]
        point = {"lr": 0.5, "n": 1, "kind": "a"}
        odd = [*flat(6), (point, ["NaN"]), (point, ["NaN", "Infinity"])]
        STATES.update(
            flat=told(FLAT, flat(20)),
            least=told(FLAT, flat(20), optimize_mode="minimize"),
            nested=told(NESTED, nested),
            hostile=told(HOSTILE, hostile),
            several=told(FLAT, two, objectives={"up": "maximize", EVIL: "minimize"}),
            odd=told(FLAT, odd),
            one=told(FLAT, flat(1)),
            empty=told(FLAT, []),
        )
    return STATES


@pytest.mark.parametrize("name", figures.TITLES)
@pytest.mark.parametrize("kind", ["flat", "least", "nested", "hostile", "several", "odd", "one", "empty"])
def test_plotly_takes_it_or_it_says_why_not(kind: str, name: str) -> None:
    state = states()[kind]
    try:
        drawn = figures.draw(state, name)
    except figures.FigureError as error:
        assert kind in ("one", "empty") or (kind, name) in {
            *((other, "pareto") for other in ("flat", "least", "nested", "hostile", "odd")),
            ("several", "intermediate"),
            ("hostile", "contour"),
        }, error
        assert str(error)
        return
    assert kind != "empty"
    figure = go.Figure(data=drawn["data"], layout=drawn["layout"])  # it refuses names and values that Plotly lacks
    assert len(figure.data) == len(drawn["data"]) > 0
    text = views.to_json(drawn).decode()  # which has no NaN
    assert "<img" not in text and "<b>" not in text.replace("<br>", "")


def test_every_figure_of_many_results_can_be_drawn() -> None:
    for name in figures.TITLES:
        if name != "pareto":
            assert figures.draw(states()["flat"], name)["data"]


def test_an_experiment_without_results_says_so() -> None:
    with pytest.raises(figures.FigureError, match="there are 0 results; this figure needs 1"):
        figures.draw(states()["empty"], "history")
    with pytest.raises(figures.FigureError, match="two parameters that are numbers"):
        figures.draw(states()["hostile"], "contour")
    with pytest.raises(KeyError):
        figures.draw(states()["flat"], "nonsense")


@pytest.mark.parametrize(("kind", "best"), [("flat", 1.9), ("least", 0.0)])
def test_the_best_so_far_follows_the_mode(kind: str, best: float) -> None:
    results, line = figures.draw(states()[kind], "history")["data"]
    assert results["y"] == [index / 10 for index in range(20)]
    assert line["y"][-1] == pytest.approx(best)


def test_what_is_not_finite_leaves_a_gap() -> None:
    curves = {one["name"]: one["y"] for one in figures.draw(states()["odd"], "intermediate")["data"]}
    assert curves["trial 0"] == [0.0, 0.0] and "trial 7" not in curves
    assert len(figures.draw(states()["odd"], "history")["data"][0]["y"]) == 6
    assert all(math.isfinite(value) for value in figures.draw(states()["odd"], "edf")["data"][0]["x"])


def test_several_objectives_show_the_first_or_the_named_one() -> None:
    state = states()["several"]
    assert figures.draw(state, "history")["data"][1]["y"] == list(range(8))
    other = figures.draw(state, "history", {"objective": EVIL})
    assert other["data"][1]["y"] == [9, 4, 1, 0, 0, 0, 0, 0]
    assert "&lt;img" in other["layout"]["yaxis"]["title"]["text"]
    with pytest.raises(figures.FigureError, match="no objective 'nope'; allowed: up"):
        figures.draw(state, "history", {"objective": "nope"})
    with pytest.raises(figures.FigureError, match="has one objective"):
        figures.draw(states()["flat"], "history", {"objective": "up"})


def test_the_pareto_front() -> None:
    beaten, front = figures.draw(states()["several"], "pareto")["data"]
    assert (sorted(beaten["x"]), sorted(front["x"])) == ([0, 1, 2], [3, 4, 5, 6, 7])
    turned = figures.draw(states()["several"], "pareto", {"x": EVIL, "y": "up"})
    assert sorted(turned["data"][1]["y"]) == [3, 4, 5, 6, 7]


def test_results_that_fail_the_outcome_constraints_are_never_the_best() -> None:
    finals = [{"default": 1.0, "size": 5}, {"default": 9.0, "size": 50}, {"default": 2.0, "size": 5}]
    state = told(FLAT, [(flat(3)[i][0], [final]) for i, final in enumerate(finals)], outcome_constraints=["size <= 10"])
    results, line = figures.draw(state, "history")["data"]
    assert (results["y"], line["y"]) == ([1.0, 9.0, 2.0], [1.0, 1.0, 2.0])
    assert "fails the outcome constraints" in results["text"][1]


def test_inactive_parameters_have_no_value() -> None:
    drawn = figures.draw(states()["nested"], "slice")
    titles = [axis["title"]["text"] for key, axis in sorted(drawn["layout"].items()) if key.startswith("xaxis")]
    assert len(drawn["data"]) == len(titles) == 4
    rate = next(i for i, title in enumerate(titles) if "rate" in title)
    assert drawn["data"][rate]["x"].count(None) == 4


def test_the_page_is_told_which_options_there_are() -> None:
    shown = {one["name"]: [option["name"] for option in one["options"]] for one in figures.listed(states()["flat"])}
    assert shown["contour"] == ["x", "y"] and shown["history"] == [] and "pareto" not in shown
    shown = {one["name"]: [option["name"] for option in one["options"]] for one in figures.listed(states()["several"])}
    assert shown["contour"] == ["x", "y", "objective"] and shown["pareto"] == ["x", "y"] and shown["timeline"] == []
    for name, options in shown.items():
        assert set(options) <= set(figures.options_of(name))


def test_a_contour_of_other_parameters() -> None:
    drawn = figures.draw(states()["nested"], "contour", {"x": "lr", "y": "layer/Conv/rate"})
    assert drawn["layout"]["xaxis"]["title"]["text"] == "lr"
    plain = figures.draw(states()["flat"], "parallel", {"lines": "plain", "share": "50 %"})
    assert {one["type"] for one in plain["data"]} == {"scatter"} and len(plain["data"]) == 10
