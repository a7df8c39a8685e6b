"""The bench as a fixture, and the modules of tests/e2e for the tests to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

import harness


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Bench]:
    """A place for whole experiments; when the test is over, nothing of them may be left."""
    with harness.bench(tmp_path, monkeypatch.setenv) as made:
        yield made
