"""engine/secret.py: what references lead to, and what is said where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.engine.errors import TuneError
from tune.engine.secret import secret


def test_what_references_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "canary")
    (tmp_path / "word").write_text("canary bird\n")
    assert secret("env:WORD", "host one") == "canary"
    assert secret(f"file:{tmp_path}/word", "host one") == "canary bird"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("env:NO_SUCH_WORD", "host one: the environment has no variable NO_SUCH_WORD"),
        ("file:/no/such/file", "host one: file:/no/such/file can't be read: No such file or directory"),
        ("file:/", "can't be read: Is a directory"),
    ],
)
def test_where_there_is_nothing(reference: str, said: str) -> None:
    with pytest.raises(TuneError) as caught:
        secret(reference, "host one")
    assert said in caught.value.message
