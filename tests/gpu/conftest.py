"""Tests that need a real GPU: they run only when they are asked for (`just gpu`), and then fail where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

import harness

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Left out of a run of all tests."""
    asked = [Path(str(argument).partition("::")[0]).absolute() for argument in config.invocation_params.args]
    return None if any(path == HERE or HERE in path.parents for path in asked) else True


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Bench]:
    """A place for whole experiments, whose user has a home of its own; nothing of them may be left."""
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with harness.bench(tmp_path, monkeypatch.setenv) as made:
        yield made
