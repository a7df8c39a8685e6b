"""trial_sdk/leases.py: a lease lives as long as its launch, and keeps others off its devices."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune.trial_sdk.launches import Folder
from tune.trial_sdk.leases import Claim, Lease, Leases, refusals, yielded


def launched(tmp_path: Path, name: str) -> tuple[str, int]:
    """A launch folder whose `alive` is held by the descriptor."""
    folder = tmp_path / name
    folder.mkdir()
    return os.fspath(folder), Folder(folder).lock()


def test_a_lease_ends_with_its_launch(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    assert leases.held() == []
    folder, fd = launched(tmp_path, "one")
    lease = Lease("/exp/a", folder, ["u0", "u1"])
    with leases.alone():
        leases.add(lease)
    assert leases.held() == [lease]
    os.close(fd)
    assert leases.held() == [] and not list(leases.folder.glob("*.json"))


def test_a_descriptor_that_a_child_has_holds_it(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    folder, fd = launched(tmp_path, "one")
    with leases.alone():
        leases.add(Lease("/exp/a", folder, ["u0"]))
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=[fd], stdin=subprocess.PIPE
    )
    os.close(fd)
    assert len(leases.held()) == 1
    child.communicate()
    assert leases.held() == []


def test_one_at_a_time(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    with leases.alone():
        fd = os.open(leases.folder / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_what_is_no_lease_does_no_harm(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    with leases.alone():
        (leases.folder / "x.json").write_text("{")
    assert leases.held() == []
    with pytest.raises(OSError, match="no UTF-8"):
        leases.add(Lease("/exp/a", os.fsdecode(b"/exp/\xff"), ["u0"]))


def test_a_folder_that_can_t_be_used_is_an_error_of_taking_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    leases = Leases(tmp_path / "file" / "leases")
    assert leases.held() == []
    with pytest.raises(OSError, match="Not a directory"), leases.alone():
        pass


OURS = [Lease("/exp/a", "/exp/a/trials/x/0", ["u0", "u1"])]
THEIRS = [Lease("/exp/b", "/exp/b/trials/y/0", ["u1"])]


@pytest.mark.parametrize(
    ("held", "share", "most", "refused"),
    [
        ([], False, 1, []),
        (OURS, False, 1, ["u0", "u1"]),
        (OURS, False, 2, []),
        (THEIRS, False, 5, ["u1"]),
        (THEIRS, True, 1, ["u1"]),
        (THEIRS, True, 2, []),
        (OURS + THEIRS, True, 2, ["u1"]),
        (OURS + THEIRS, False, 3, ["u1"]),
    ],
)
def test_who_may_have_a_device(held: list[Lease], share: bool, most: int, refused: list[str]) -> None:
    found = refusals(held, "/exp/a", ["u0", "u1", "u2"], share=share, most=most)
    assert list(found) == refused and all(found.values())


# -- claims -----------------------------------------------------------------------------------------------------------
def test_a_claim_is_held_until_it_is_withdrawn_or_its_keeper_dies(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    assert leases.claims() == []
    first, second = Claim("/exp/a", 5.0, ["u0"], 1), Claim("/exp/b", 3.0, ["u0", "u1"], 2)
    fd = leases.lay(first)
    other = leases.lay(second)
    assert leases.claims() == [second, first]
    again = leases.lay(Claim("/exp/a", 5.0, ["u1"], 1))
    os.close(fd)
    assert [claim.devices for claim in leases.claims()] == [["u0", "u1"], ["u1"]]
    leases.withdraw("/exp/a", again)
    assert leases.claims() == [second]
    os.close(other)
    assert leases.claims() == [] and not list(leases.folder.glob("*.claim"))


FOUR = [f"u{index}" for index in range(4)]


@pytest.mark.parametrize(
    ("leased", "claims", "wanted", "left"),
    [
        ([], [], ["u0"], []),
        ([], [Claim("/exp/b", 1.0, FOUR, 1)], ["u0"], []),  # there are three more
        (["u1", "u2", "u3"], [Claim("/exp/b", 1.0, FOUR, 1)], ["u0"], ["u0"]),
        ([], [Claim("/exp/b", 1.0, FOUR, 4)], ["u0"], ["u0"]),
        ([], [Claim("/exp/b", 1.0, ["u1"], 1)], ["u0"], []),
        ([], [Claim("/exp/b", 1.0, ["u1"], 1)], ["u0", "u1"], ["u1"]),
        ([], [Claim("/exp/a", 1.0, FOUR, 4)], ["u0"], []),  # its own
        ([], [Claim("/exp/a", 1.0, FOUR, 4), Claim("/exp/b", 2.0, FOUR, 4)], ["u0"], []),  # it came first
        ([], [Claim("/exp/b", 1.0, FOUR, 4), Claim("/exp/a", 2.0, FOUR, 4)], ["u0"], ["u0"]),
    ],
)
def test_who_waits_gets_its_turn(leased: list[str], claims: list[Claim], wanted: list[str], left: list[str]) -> None:
    held = [Lease("/exp/a", "/exp/a/trials/x/0", leased)] if leased else []
    assert list(yielded(held, claims, "/exp/a", wanted)) == left
