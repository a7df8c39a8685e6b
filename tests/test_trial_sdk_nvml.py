"""trial_sdk/nvml.py: the binding, against a library in Python that keeps NVML's calling conventions."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from tune.trial_sdk import nvml
from tune.trial_sdk.nvml import Gpu, Nvml, NvmlError


class Function:
    """A function of a library: it can be called, and has a `restype`."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class Library:
    """libnvidia-ml with so many GPUs; `codes` are what functions answer instead of 0."""

    def __init__(self, count: int = 2, pids: int = 0, *, old: bool = False) -> None:
        self.count, self.pids = count, pids
        self.codes: dict[str, int] = {}
        self.opened = self.closed = 0
        self.lost: set[int] = set()
        processes = "nvmlDeviceGetComputeRunningProcesses" + ("" if old else "_v3")
        functions = {
            "nvmlInit_v2": self.init,
            "nvmlShutdown": self.shutdown,
            "nvmlErrorString": lambda code: f"error {code} of NVML".encode(),
            "nvmlDeviceGetCount_v2": lambda out: self.put(out, self.count),
            "nvmlDeviceGetHandleByIndex_v2": self.handle,
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetUUID": lambda handle, out, size: self.text(out, f"GPU-{handle.value - 100}"),
            "nvmlDeviceGetName": lambda handle, out, size: self.text(out, "NVIDIA H100"),
            processes: self.processes,
        }
        for name, call in functions.items():
            setattr(self, name, Function(self.coded(name, call)))

    def coded(self, name: str, call: Any) -> Any:
        return lambda *arguments: self.codes.get(name) or call(*arguments)

    def init(self) -> int:
        self.opened += 1
        return 0

    def shutdown(self) -> int:
        self.closed += 1
        return 0

    @staticmethod
    def put(out: Any, value: int) -> int:
        out._obj.value = value
        return 0

    def handle(self, index: Any, out: Any) -> int:
        return 15 if index.value in self.lost else self.put(out, 100 + index.value)

    @staticmethod
    def memory(handle: Any, out: Any) -> int:
        out._obj.total = 80 << 30
        return 0

    @staticmethod
    def text(out: Any, value: str) -> int:
        out.value = value.encode()
        return 0

    def processes(self, handle: Any, count: Any, infos: Any) -> int:
        room, count._obj.value = count._obj.value, self.pids
        if self.pids > room:
            return 7
        for index in range(self.pids):
            infos[index].pid = 1000 + index
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return opened(monkeypatch, Library())


def opened(monkeypatch: pytest.MonkeyPatch, library: Library) -> Library:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_gpus_with_name_uuid_and_memory(library: Library) -> None:
    found, wrong = Nvml().look()
    assert found == [Gpu(index, f"GPU-{index}", "NVIDIA H100", 80 << 30, []) for index in range(2)] and not wrong


@pytest.mark.parametrize(("pids", "old"), [(3, False), (500, False), (3, True)])
def test_who_computes_on_them(monkeypatch: pytest.MonkeyPatch, pids: int, old: bool) -> None:
    opened(monkeypatch, Library(1, pids, old=old))
    [gpu], _ = Nvml().look()
    assert gpu.pids == list(range(1000, 1000 + pids))


def test_it_is_opened_once_and_anew_after_an_error(library: Library) -> None:
    looks = Nvml()
    looks.look()
    looks.look()
    assert library.opened == 1
    library.codes["nvmlDeviceGetCount_v2"] = 18  # the driver was replaced
    with pytest.raises(NvmlError, match="nvmlDeviceGetCount_v2: error 18 of NVML"):
        looks.look()
    library.codes.clear()
    assert len(looks.look()[0]) == 2 and (library.opened, library.closed) == (2, 1)


def test_a_gpu_that_is_lost_does_not_hide_the_others(library: Library) -> None:
    library.lost = {0}
    found, wrong = Nvml().look()
    assert [gpu.index for gpu in found] == [1]
    assert wrong == "GPU 0: nvmlDeviceGetHandleByIndex_v2: error 15 of NVML"


def test_a_gpu_that_can_t_tell_its_memory_or_processes_is_there(library: Library) -> None:
    library.codes = {"nvmlDeviceGetMemoryInfo": 3, "nvmlDeviceGetComputeRunningProcesses_v3": 3}
    found, wrong = Nvml().look()
    assert [(gpu.memory, gpu.pids) for gpu in found] == [(0, []), (0, [])] and not wrong


def test_a_driver_that_does_not_start_is_told(library: Library) -> None:
    library.codes = {"nvmlInit_v2": 9}
    with pytest.raises(NvmlError, match="nvmlInit_v2: error 9 of NVML"):
        Nvml().look()


def test_a_host_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", ("libthere-is-none.so.1",))
    with pytest.raises(NvmlError, match=r"no NVIDIA driver: libthere-is-none\.so\.1"):
        Nvml().look()
