"""engine/experiment_screen.py: which screen is chosen, and that nothing of somebody's is markup in a notebook."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from tune.engine.experiment_screen import Cell, Lines, bundle, choose
from tune.engine.state import State


@pytest.mark.parametrize(
    ("room", "kind"),
    [
        (None, Lines),
        (SimpleNamespace(get_ipython=lambda: None), Lines),
        (SimpleNamespace(get_ipython=lambda: SimpleNamespace()), Lines),  # IPython in a terminal
        (SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())), Cell),
    ],
)
def test_a_notebook_gets_an_output_that_updates(
    monkeypatch: pytest.MonkeyPatch, room: object, kind: type[object]
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", room)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=None))
    assert type(choose()) is kind


def test_texts_are_no_markup() -> None:
    shown = bundle([("best", "<script>alert(1)</script>"), ("", 'x" onload="y & z')])
    assert "<script>" not in shown["text/html"] and 'onload="' not in shown["text/html"]
    assert shown["text/plain"].splitlines() == ["best      <script>alert(1)</script>", '          x" onload="y & z']


def test_a_stdout_without_unicode_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Lines().say("größer ▁")
    assert raw.getvalue() == b"gr\\xf6\\xdfer \\u2581\n"


def test_nothing_is_drawn_before_there_is_an_experiment() -> None:
    Lines().show(State(), [])
    Lines().close(State())


class Display:
    """Stands for IPython's display: what was shown, and how often it was replaced."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self.updates = 0

    def __call__(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Display:
        assert raw and display_id
        self.shown.append(content)
        return self

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        self.shown[-1] = content
        self.updates += 1


def test_a_cell_has_one_output_however_often_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    from msgspec import Raw

    from tune.engine import config
    from tune.engine.events import Experiment, Fact
    from tune.engine.reduce import reduce

    display = Display()
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    state = State()
    screen = Cell()
    screen.show(state, [])
    assert not display.shown
    given = config.Config(search_space={}, trial_command="true", trial_code_directory="/tmp", experiment_name="<i>")
    fact = Fact(1, 1, "e1", 1, None, None, 1_000_000, Experiment("story", Raw(config.encode(given)), 7))
    reduce(state, fact)
    for _ in range(5):
        screen.show(state, [fact])
    screen.close(state)
    assert (len(display.shown), display.updates) == (1, 1)
    assert "&lt;i&gt;" in display.shown[0]["text/html"]
