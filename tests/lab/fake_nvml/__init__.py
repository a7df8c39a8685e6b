"""GPUs that are not there: a library in NVML's place (nvml.c), compiled here, and the file that says what it tells.

    gpus = FakeGpus(tmp_path)
    gpus.tell(Gpu(used=2 << 30, processes=((1234, 2 << 30),)), Gpu())
    subprocess.run([...], env={**os.environ, **gpus.environment})

The real binding (nvidia-ml-py) loads it by LD_LIBRARY_PATH, so a process has to be started with that environment; for a
host of the lab give `environment=gpus.environment, visible=(gpus.folder,)`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
VARIABLE = "FAKE_NVML"


@dataclass(frozen=True)
class Gpu:
    """A device; memory in bytes, utilization in percent, processes as (pid, bytes or None where it is not told)."""

    uuid: str = ""  # "": one made from its index
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 << 30
    used: int = 0
    utilization: int = 0
    memory_utilization: int = 0
    processes: Sequence[tuple[int, int | None]] = ()
    graphics: Sequence[tuple[int, int | None]] = ()

    def lines(self, index: int) -> list[str]:
        """The lines of the file that stand for it."""
        uuid = self.uuid or f"GPU-{index:08x}-0000-4000-8000-{index:012x}"
        numbers = f"{self.total} {self.used} {self.utilization} {self.memory_utilization}"
        told = [("compute", *one) for one in self.processes] + [("graphics", *one) for one in self.graphics]
        return [
            f"device {uuid} {numbers} {self.name}",
            *(f"{kind} {pid} {'-' if size is None else size}" for kind, pid, size in told),
        ]


class FakeGpus:
    """The library and its file; at first there are no devices."""

    def __init__(self, place: Path) -> None:
        """Makes a folder in `place`, which everybody may enter."""
        self.folder = place / "fake-gpus"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.file = self.folder / "gpus.txt"
        compile_library(self.folder)
        self.tell()

    def tell(self, *gpus: Gpu, driver: str = "550.54.15", errors: Mapping[str, int] | None = None) -> None:
        """What there is from now on. `errors`: function without its "_v2" ("nvmlInit"; "*": all) -> return code.

        A process that asks meanwhile sees the old or the new, never a half.
        """
        lines = [f"driver {driver}", *(f"error {name} {code}" for name, code in (errors or {}).items())]
        lines += [line for index, gpu in enumerate(gpus) for line in gpu.lines(index)]
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process sees these devices."""
        return {"LD_LIBRARY_PATH": str(self.folder), VARIABLE: str(self.file)}


def why_not() -> str:
    """Why the library can't be made here; "" when it can."""
    return "" if os.name == "posix" and shutil.which("cc") else "needs a C compiler (cc)"


def compile_library(folder: Path) -> Path:
    """Compile the library into a folder; its path."""
    made = folder / LIBRARY
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared", "-fPIC"]
    done = subprocess.run([*command, "-o", str(made), str(SOURCE)], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr}")
    return made
