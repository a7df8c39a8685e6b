"""portal/files.py: no link is followed anywhere on the way, and what is no plain file of ours is not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tune.engine.home import Folder
from tune.portal import files
from tune.portal.shapes import MAX_NOTES

NOTHING = {"offset": 0, "size": 0, "next": 0, "text": ""}
PARTS = ("abcde", "0", "stdout")


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    place = tmp_path / "trials" / "abcde" / "0"
    place.mkdir(parents=True)
    (place / "stdout").write_bytes(b"0123456789")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "stdout").write_text("nobody's")
    return tmp_path / "trials"


@pytest.mark.parametrize(
    ("offset", "limit", "start", "text"),
    [
        (0, 100, 0, "0123456789"),
        (2, 3, 2, "234"),
        (-3, 100, 7, "789"),
        (-99, 2, 0, "01"),
        (10, 5, 10, ""),
        (2**53, 1, 10, ""),
    ],
)
def test_a_piece_is_what_stands_there(trials: Path, offset: int, limit: int, start: int, text: str) -> None:
    expected = {"offset": start, "size": 10, "next": start + len(text), "text": text}
    assert files.piece(trials, PARTS, offset, limit) == expected


def test_bytes_that_are_no_text_are_shown_as_such(trials: Path) -> None:
    (trials / "abcde" / "0" / "stdout").write_bytes(b"a\xff\x00b")
    assert files.piece(trials, PARTS, 0, 9)["text"] == "a\ufffd\x00b"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_link_anywhere_on_the_way_is_not_followed(trials: Path, depth: int) -> None:
    place = trials.joinpath(*PARTS[: depth + 1])
    place.rename(trials / "away")
    place.symlink_to(trials / "away" if depth < 2 else trials.parent / "secret" / "stdout")
    assert files.piece(trials, PARTS, 0, 100) == NOTHING


def test_what_is_no_plain_file_is_not_there_and_does_not_make_one_wait(trials: Path) -> None:
    path = trials / "abcde" / "0" / "stdout"
    path.unlink()
    assert files.piece(trials, PARTS, 0, 100) == NOTHING
    os.mkfifo(path)  # opened without O_NONBLOCK it would wait for a writer
    assert files.piece(trials, PARTS, 0, 100) == NOTHING
    path.unlink()
    path.mkdir()
    assert files.piece(trials, PARTS, 0, 100) == NOTHING


def test_notes_are_private_and_replace_what_was_there_and_no_link(tmp_path: Path) -> None:
    folder = Folder("it", tmp_path, tmp_path)
    assert files.notes(folder) == ""
    for text in ("first", "zweite Notiz <b>\n", ""):
        files.write_notes(folder, text)
        assert files.notes(folder) == text
    assert stat.S_IMODE((tmp_path / "notes.md").stat().st_mode) == 0o600
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    for name in ("notes.md.new", "notes.md"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(target)
        if name == "notes.md":
            assert files.notes(folder) == ""
        files.write_notes(folder, "written")
        assert target.read_text() == "mine" and files.notes(folder) == "written"
    (tmp_path / "notes.md").write_text("x" * (5 * MAX_NOTES))
    assert len(files.notes(folder)) == MAX_NOTES


def test_the_pages_own_files_are_found() -> None:
    assert {"index.html", "app.js"} <= files.own_names()
    found = files.plotly()
    assert found is not None and found.is_file()
