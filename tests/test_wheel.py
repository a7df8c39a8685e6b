"""The wheel: it is built from a copy of the checkout, holds every room, and works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "examples", "docs")


def built(checkout: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--wheel-dir", str(into), str(checkout)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout, into = tmp_path_factory.mktemp("checkout") / "it", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=LEFT_OUT)
    done = built(checkout, into)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl")
    return made


def check(wheel: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_wheel.py"), str(wheel)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_wheel_holds_all_rooms(wheel: Path) -> None:
    done = check(wheel)
    assert done.returncode == 0, done.stdout
    assert "complete" in done.stdout


def test_an_empty_wheel_is_noticed(wheel: Path, tmp_path: Path) -> None:
    hollow = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(hollow, "w") as less:
        for name in whole.namelist():
            if not name.startswith("tune/engine/"):
                less.writestr(name, whole.read(name))
    done = check(hollow)
    assert done.returncode == 1
    assert "missing: tune/engine/reduce.py" in done.stdout


def test_the_package_works_out_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import tune, tune.cli; from tune.engine import registry; print(tune.__file__, registry.names('tuner'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "site" / "tune") in done.stdout
    assert "TPE" in done.stdout


def test_a_checkout_without_links_is_refused(tmp_path: Path) -> None:
    checkout = tmp_path / "it"
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=LEFT_OUT)
    link = checkout / "src" / "tune" / "engine"
    link.unlink()
    link.write_text("../../engine")  # what git writes on a file system without symbolic links
    done = built(checkout, tmp_path)
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
