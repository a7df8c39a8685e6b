"""The devices of a host that trials can be given: its NVIDIA GPUs, or what its owner describes in a file.

The file is `~/.tune/devices.toml`, for devices that NVML does not know; where it is there, NVML is not asked:

    variable = "HIP_VISIBLE_DEVICES"   # tells a process which devices it may use; CUDA_VISIBLE_DEVICES if left out
    [[device]]
    name = "MI210"
    memory = "64gb"                    # optional, for people
    value = "0"                        # what the variable gets for it; its place in this file, from 0, if left out

What other processes do on described devices is not seen. Where CUDA_VISIBLE_DEVICES is set for the keeper (by a batch
system, say), only the GPUs that it names are there to be given; their indices stay those of the host.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from .nvml import Gpu, Nvml, NvmlError

CUDA = "CUDA_VISIBLE_DEVICES"
DESCRIPTION = Path(".tune") / "devices.toml"  # relative to the home


class Found(Struct, frozen=True):
    """One device. `value` is what the host's variable gets for it, `pids` who computes on it; `memory` in bytes."""

    index: int
    uuid: str
    name: str = ""
    memory: int = 0
    value: str = ""
    pids: list[int] = []


class Look(Struct, frozen=True):
    """What a host has, and what is wrong with the rest, or with all of it."""

    devices: list[Found] = []
    reason: str = ""
    variable: str = CUDA


class _Described(Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    memory: str = ""
    value: str = ""


class _Description(Struct, frozen=True, forbid_unknown_fields=True):
    variable: str = CUDA
    device: list[_Described] = []


class Finder:
    """Looks at the devices, as often as it is asked; any thread, one at a time."""

    def __init__(self) -> None:
        self._nvml = Nvml()

    def look(self, environ: Mapping[str, str], home: Path) -> Look:
        """The devices now; never raises."""
        path = home / DESCRIPTION
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return self._by_nvml(environ)
        except OSError as error:
            return Look(reason=f"{path}: {error.strerror}")
        try:
            return described(text)
        except ValueError as error:
            return Look(reason=f"{path}: {error}")

    def _by_nvml(self, environ: Mapping[str, str]) -> Look:
        try:
            gpus, wrong = self._nvml.look()
        except NvmlError as error:
            return Look(reason=str(error))
        return Look([_found(gpu) for gpu in visible(gpus, environ.get(CUDA))], wrong)


def described(text: bytes) -> Look:
    """The devices that a description names; `ValueError` when it is none."""
    import tomllib

    try:
        content = msgspec.convert(tomllib.loads(text.decode()), _Description)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from None
    host = socket.gethostname()
    return Look(
        [
            Found(index, f"{host}-{index}", one.name, _bytes(one.memory), one.value or str(index))
            for index, one in enumerate(content.device)
        ],
        "" if content.device else "no device is described",
        content.variable,
    )


def visible(gpus: list[Gpu], names: str | None) -> list[Gpu]:
    """The GPUs that a CUDA_VISIBLE_DEVICES names, by index or by (the beginning of) a uuid; all of them for None."""
    if names is None:
        return gpus
    chosen = [name.strip() for name in names.split(",")]
    return [
        gpu
        for gpu in gpus
        if any(name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name)) for name in chosen)
    ]


def environment(chosen: list[Found], variable: str) -> dict[str, str]:
    """What a trial with these devices gets into its environment; with none it sees none."""
    found = {variable: ",".join(device.value for device in sorted(chosen, key=lambda device: device.index))}
    if not chosen:
        found[CUDA] = ""
    elif variable == CUDA:
        found["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # CUDA's own order is by speed: its 0 may be another one's 0
    return found


def _found(gpu: Gpu) -> Found:
    return Found(gpu.index, gpu.uuid, gpu.name, gpu.memory, str(gpu.index), gpu.pids)


def _bytes(size: str) -> int:
    """A size such as "64gb"; 0 for none."""
    text = size.strip().lower()
    if not text:
        return 0
    number, unit = text[:-2], text[-2:]
    powers = {"mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
    if unit not in powers or not number.strip().isdecimal():
        raise ValueError(f"memory: found {size!r}; allowed: a number and mb, gb or tb, such as 64gb")
    return int(number) * powers[unit]
