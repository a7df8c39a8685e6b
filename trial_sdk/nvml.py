"""The GPUs of this host as NVIDIA's management library tells them; a binding of the few calls that this needs.

By ctypes, so that a host needs no more than its driver. https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import ctypes
from typing import Any

from msgspec import Struct

LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
_NOT_SUPPORTED, _INSUFFICIENT_SIZE = 3, 7
_TEXT = 96  # bytes, at least what NVML wants for a name or a uuid


class NvmlError(Exception):
    """NVML is not here, or a call of it failed; the message says which."""


class Gpu(Struct, frozen=True):
    """One GPU. `memory` in bytes; `pids` are the processes that compute on it (a display does not count)."""

    index: int
    uuid: str
    name: str
    memory: int
    pids: list[int]


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):  # nvmlProcessInfo_t, its second version
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _OldProcess(ctypes.Structure):  # the first version, of drivers before 510
    _fields_ = (("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong))


class Nvml:
    """The library, opened by the first look and kept open: opening it may take seconds."""

    def __init__(self) -> None:
        self._library: Any = None

    def look(self) -> tuple[list[Gpu], str]:
        """All GPUs that can be asked, and what is wrong with the others ("" for nothing). `NvmlError`: none can."""
        if self._library is None:
            self._library = _opened()
        try:
            count = ctypes.c_uint()
            self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        except NvmlError:
            self._library.nvmlShutdown()  # a driver that was replaced is found by opening it anew
            self._library = None
            raise
        found: list[Gpu] = []
        wrong: list[str] = []
        for index in range(count.value):
            try:
                found.append(self._gpu(index))
            except NvmlError as error:
                wrong.append(f"GPU {index}: {error}")
        return found, "; ".join(wrong)

    def _gpu(self, index: int) -> Gpu:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory), but=_NOT_SUPPORTED)
        uuid, name = self._text("nvmlDeviceGetUUID", handle), self._text("nvmlDeviceGetName", handle)
        return Gpu(index, uuid, name, int(memory.total), self._pids(handle))

    def _text(self, function: str, handle: ctypes.c_void_p) -> str:
        buffer = ctypes.create_string_buffer(_TEXT)
        self._call(function, handle, buffer, ctypes.c_uint(_TEXT))
        return buffer.value.decode(errors="replace")

    def _pids(self, handle: ctypes.c_void_p) -> list[int]:
        function, kind = "nvmlDeviceGetComputeRunningProcesses_v3", _Process
        if not hasattr(self._library, function):
            function, kind = "nvmlDeviceGetComputeRunningProcesses", _OldProcess
        room = 64
        while True:
            count, infos = ctypes.c_uint(room), (kind * room)()
            code = self._call(function, handle, ctypes.byref(count), infos, but=_INSUFFICIENT_SIZE)
            if code == 0:
                return sorted({int(info.pid) for info in infos[: count.value]})
            if code == _NOT_SUPPORTED:
                return []
            room = max(room, count.value) * 2

    def _call(self, function: str, *arguments: Any, but: int = 0) -> int:
        """The code of a call; `NvmlError` unless it is 0, `but`, or says that this GPU can't tell such things."""
        code = int(getattr(self._library, function)(*arguments))
        if code in (0, but) or (code == _NOT_SUPPORTED and but):
            return code
        raise NvmlError(f"{function}: {_told(self._library, code)}")


def _opened() -> Any:
    library: Any = None
    why = ""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            break
        except OSError as error:
            why = why or str(error)
    if library is None:
        raise NvmlError(f"no NVIDIA driver: {why}")
    try:
        code = int(library.nvmlInit_v2())
        if code:
            raise NvmlError(f"nvmlInit_v2: {_told(library, code)}")
    except AttributeError as error:
        raise NvmlError(f"no NVML: {error}") from None
    return library


def _told(library: Any, code: int) -> str:
    function = library.nvmlErrorString
    function.restype = ctypes.c_char_p
    return (function(code) or b"").decode(errors="replace") or f"error {code}"
