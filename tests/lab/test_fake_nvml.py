"""The stand-in for NVML, read by the real binding: devices, processes, a broken driver, and the same on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.fake_nvml import FakeGpus, Gpu, why_not
from lab.network import Lab

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be made")

# Answers each line of input with what there is.
READER = """
import json, sys, pynvml
def look():
    pynvml.nvmlInit()
    found = {"driver": pynvml.nvmlSystemGetDriverVersion(), "devices": []}
    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        newer = pynvml.nvmlDeviceGetMemoryInfo(device, pynvml.nvmlMemory_v2)
        rates, pci = pynvml.nvmlDeviceGetUtilizationRates(device), pynvml.nvmlDeviceGetPciInfo(device)
        assert (memory.total, memory.free, memory.used) == (newer.total, newer.free, newer.used)
        uuid = pynvml.nvmlDeviceGetUUID(device)
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == index
        assert pynvml.nvmlDeviceGetMinorNumber(device) == index
        compute = pynvml.nvmlDeviceGetComputeRunningProcesses(device)
        graphics = pynvml.nvmlDeviceGetGraphicsRunningProcesses(device)
        found["devices"].append([
            uuid, pynvml.nvmlDeviceGetName(device), memory.total, memory.free, memory.used, rates.gpu, rates.memory,
            pci.busId, [[one.pid, one.usedGpuMemory] for one in compute],
            [[one.pid, one.usedGpuMemory] for one in graphics],
        ])
    pynvml.nvmlShutdown()
    return found
for _ in sys.stdin:
    try:
        print(json.dumps(look()), flush=True)
    except pynvml.NVMLError as error:
        print(json.dumps(type(error).__name__), flush=True)
"""


class Reader:
    """A process with the real binding."""

    def __init__(self, gpus: FakeGpus) -> None:
        self.gpus = gpus
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **gpus.environment},
        )

    def look(self) -> Any:
        """What it sees now."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """The binding over devices that a test makes up."""
    made = Reader(FakeGpus(tmp_path))
    with made.process:
        yield made
        assert made.process.stdin is not None
        made.process.stdin.close()
        assert made.process.wait(30) == 0


def test_devices_are_told_and_change(reader: Reader) -> None:
    assert reader.look() == {"driver": "550.54.15", "devices": []}
    running = ((11, 2 << 30), (12, None))
    busy = Gpu("GPU-a", "Tesla T4", 16 << 30, 3 << 30, 97, 12, processes=running, graphics=((13, 5),))
    reader.gpus.tell(busy, Gpu(), driver="999.1")
    seen = reader.look()
    assert seen["driver"] == "999.1"
    assert seen["devices"] == [
        [
            *("GPU-a", "Tesla T4", 16 << 30, 13 << 30, 3 << 30, 97, 12, "00000000:01:00.0"),
            *([[11, 2 << 30], [12, None]], [[13, 5]]),
        ],
        [
            *("GPU-00000001-0000-4000-8000-000000000001", "NVIDIA H100 80GB HBM3", 80 << 30, 80 << 30, 0, 0, 0),
            *("00000000:02:00.0", [], []),
        ],
    ]
    reader.gpus.tell(Gpu(processes=[(pid, pid) for pid in range(1, 41)]))
    assert len(reader.look()["devices"][0][8]) == 40


def test_a_broken_driver(reader: Reader) -> None:
    reader.gpus.tell(Gpu(), errors={"nvmlInit": 18})
    assert reader.look() == "NVMLError_LibRmVersionMismatch"
    reader.gpus.tell(Gpu(), errors={"nvmlDeviceGetUtilizationRates": 3})
    assert reader.look() == "NVMLError_NotSupported"
    reader.gpus.tell(Gpu(), errors={"*": 15})
    assert reader.look() == "NVMLError_GpuIsLost"
    reader.gpus.tell(Gpu())
    assert len(reader.look()["devices"]) == 1
    reader.gpus.file.unlink()
    assert reader.look() == "NVMLError_DriverNotLoaded"


def test_a_host_has_devices(lab: Lab, tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    gpus.tell(Gpu(), Gpu(), Gpu())
    host = lab.host("with-gpus", environment=gpus.environment, visible=(gpus.folder,))
    program = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())"
    command = host.login.ssh(f'python -c "{program}"')
    assert subprocess.run(command, capture_output=True, timeout=30, check=True).stdout == b"3\n"
    gpus.tell(Gpu())
    assert host.run("python", "-c", program) == "1\n"
