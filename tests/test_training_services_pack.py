"""What goes to a machine: the same files give the same bytes, ignored ones stay, and a msgspec that runs there."""

from __future__ import annotations

import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from tune.engine.errors import TuneError
from tune.training_services import _pack

LIKE_US: dict[str, Any] = {
    "msgspec": False,
    "soabi": sysconfig.get_config_var("SOABI"),
    "machine": "x86_64",
    "system": "Linux",
    "python": [3, 12, 1],
    "libc": ["glibc", "2.28"],
    "installed": {},
}


def unpacked(packed: _pack.Packed) -> dict[str, tuple[bytes, int]]:
    async def whole() -> bytes:
        return b"".join([piece async for piece in packed.pieces()])

    data = anyio.run(whole)
    assert len(data) == packed.size
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            files = [(one, archive.extractfile(one)) for one in archive.getmembers()]
            return {one.name: (file.read(), one.mode) for one, file in files if file is not None}


def test_code_is_packed_without_what_is_ignored(tmp_path: Path) -> None:
    for name in ("trial.py", "data/big.bin", "data/small.txt", "__pycache__/x.pyc", ".git/config", "run.sh", "ü b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "trial.py")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".tuneignore").write_text("data/*\n!data/small.txt\n")
    (tmp_path / ".nniignore").write_text("trial.py\n")
    found = unpacked(_pack.code(tmp_path))
    assert set(found) == {"trial.py", "data/small.txt", "run.sh", "ü b.txt", "link", ".tuneignore", ".nniignore"}
    assert found["run.sh"] == (b"run.sh", 0o755) and found["link"] == (b"trial.py", 0o644)
    (tmp_path / ".tuneignore").unlink()
    assert "trial.py" not in unpacked(_pack.code(tmp_path))


def test_the_same_files_have_the_same_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("two.py", "one.py"):
            (tmp_path / folder / name).write_text(name)
    first, second = _pack.code(tmp_path / "a"), _pack.code(tmp_path / "b")
    assert first.digest == second.digest and first.name == first.digest[:16]
    (tmp_path / "b" / "one.py").write_text("other")
    assert _pack.code(tmp_path / "b").digest != first.digest


def test_too_much_code_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(b"x" * 1000)
    monkeypatch.setattr(_pack, "MAX_FILES", 2)
    with pytest.raises(TuneError, match="3 files") as error:
        _pack.code(tmp_path)
    assert ".tuneignore" in (error.value.hint or "")
    monkeypatch.setattr(_pack, "MAX_FILES", 3)
    monkeypatch.setattr(_pack, "MAX_BYTES", 2999)
    with pytest.raises(TuneError, match="allowed"):
        _pack.code(tmp_path)


def test_the_sdk_is_ours_and_a_msgspec_where_there_is_none() -> None:
    found = unpacked(_pack.sdk(LIKE_US))
    assert {"tune/__init__.py", "tune/trial_sdk/keeper.py", "msgspec/__init__.py"} <= set(found)
    assert not any(name.startswith("tune/engine") or "__pycache__" in name for name in found)
    assert not any(name.startswith("msgspec") for name in unpacked(_pack.sdk({**LIKE_US, "msgspec": True})))


def wheel(folder: Path, tag: str, content: str) -> None:
    with zipfile.ZipFile(folder / f"msgspec-0.20.0-{tag}.whl", "w") as archive:
        archive.writestr("msgspec/__init__.py", content)
        archive.writestr("msgspec-0.20.0.dist-info/METADATA", "")


def test_the_wheel_that_fits_best_is_taken(tmp_path: Path) -> None:
    for tag in (
        "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp312-cp312-manylinux_2_34_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp312-cp312-manylinux_2_24_x86_64",
        "cp312-cp312-musllinux_1_1_x86_64",
        "cp312-cp312-macosx_11_0_arm64",
    ):
        wheel(tmp_path, tag, tag)
    (tmp_path / "msgspec-odd.whl").write_bytes(b"")

    def chosen(**other: Any) -> str:
        return unpacked(_pack.sdk({**LIKE_US, "soabi": "", **other}, tmp_path))["msgspec/__init__.py"][0].decode()

    assert chosen() == "cp312-cp312-manylinux_2_24_x86_64"
    assert chosen(libc=["glibc", "2.17"]).startswith("cp312-cp312-manylinux_2_17")
    assert chosen(libc=["", ""]) == "cp312-cp312-musllinux_1_1_x86_64"
    assert chosen(system="Darwin", machine="arm64", libc=["", ""]).endswith("macosx_11_0_arm64")
    assert chosen(python=[3, 11, 4]).startswith("cp311")
    with pytest.raises(TuneError, match=r"Python 3\.13"):
        chosen(python=[3, 13, 0])


@pytest.mark.parametrize(
    ("installed", "msgspec", "fits"),
    [
        ({"wire": str(_pack.VERSION), "version": "0.1.0"}, True, True),
        ({"wire": str(_pack.VERSION), "version": "0.1.0"}, False, False),
        ({"wire": "0", "version": "0.0.1"}, True, False),
        ({}, True, False),
    ],
)
def test_an_installed_engine_serves_when_it_speaks_the_same(installed: Any, msgspec: bool, fits: bool) -> None:
    assert _pack.fits({**LIKE_US, "installed": installed, "msgspec": msgspec}) is fits
