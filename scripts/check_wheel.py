"""Check that a wheel holds every module of every room, its marker file and its scripts, and nothing else.

    python scripts/check_wheel.py dist/tune_engine-*.whl

A checkout without symbolic links builds a nearly empty wheel without an error: this is the guard. Exit 1 and a line
for each file that is missing or too much.
"""

# ruff: noqa: T201 -- a program that prints
from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("*.py", "py.typed", "static/*.*")  # the files of a room that belong into a wheel
SCRIPTS = {"tune = tune.cli:main", "tune-engine = tune.cli:main"}


def expected() -> set[str]:
    """What belongs into a wheel, from the links in src/tune."""
    package = ROOT / "src" / "tune"
    found: set[str] = set()
    for entry in sorted(package.iterdir()):
        if entry.name == "__pycache__":
            continue
        inside = [entry] if entry.is_file() else [path for kind in KINDS for path in entry.resolve().rglob(kind)]
        base = package if entry.is_file() else entry.resolve()
        prefix = "tune" if entry.is_file() else f"tune/{entry.name}"
        found |= {f"{prefix}/{path.relative_to(base).as_posix()}" for path in inside}
    return found


def problems(wheel: Path) -> list[str]:
    """What is wrong with a wheel, a line each."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = {name for name in names if ".dist-info/" in name}
        entries = [archive.read(name).decode() for name in metadata if name.endswith("/entry_points.txt")]
    wanted, here = expected(), names - metadata
    wrong = [f"missing: {name}" for name in sorted(wanted - here)]
    wrong += [f"too much: {name}" for name in sorted(here - wanted)]
    if not any(name.endswith("/licenses/LICENSE") for name in metadata):
        wrong.append("missing: the licence")
    lines = {line.strip() for text in entries for line in text.splitlines()}
    wrong += [f"missing script: {script}" for script in sorted(SCRIPTS - lines)]
    return wrong


def main() -> int:
    """Check the wheels that are named."""
    wheels = [Path(name) for name in sys.argv[1:]]
    wrong = [f"{wheel.name}: {line}" for wheel in wheels for line in problems(wheel)]
    for line in wrong or [f"{wheel.name}: complete" for wheel in wheels]:
        print(line)
    return 1 if wrong or not wheels else 0


if __name__ == "__main__":
    sys.exit(main())
