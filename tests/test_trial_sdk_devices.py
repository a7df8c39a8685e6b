"""trial_sdk/devices.py: what a host's devices are, by NVML or by a description, and what a trial gets to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.trial_sdk import devices, nvml
from tune.trial_sdk.devices import Finder, Found, Look, described, environment, visible
from tune.trial_sdk.nvml import Gpu, NvmlError

GPUS = [Gpu(index, f"GPU-{index}{index}aa-bb", "H100", 80 << 30, []) for index in range(4)]


class Nvml:
    """NVML with four GPUs, or with a fault."""

    fault = ""

    def look(self) -> tuple[list[Gpu], str]:
        if self.fault:
            raise NvmlError(self.fault)
        return GPUS, "GPU 4: it fell off the bus"


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> Finder:
    monkeypatch.setattr(devices, "Nvml", Nvml)
    return Finder()


def test_nvml_tells_the_devices(finder: Finder, tmp_path: Path) -> None:
    look = finder.look({}, tmp_path)
    assert [one.uuid for one in look.devices] == [gpu.uuid for gpu in GPUS]
    assert look.devices[2] == Found(2, "GPU-22aa-bb", "H100", 80 << 30, "2", [])
    assert look.reason == "GPU 4: it fell off the bus" and look.variable == "CUDA_VISIBLE_DEVICES"


def test_without_nvml_the_reason_is_told(finder: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nvml, "fault", "no NVIDIA driver: libnvidia-ml.so.1 is not there")
    assert finder.look({}, tmp_path) == Look(reason="no NVIDIA driver: libnvidia-ml.so.1 is not there")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("1,3", [1, 3]),
        (" 3 , 1 ", [1, 3]),
        ("GPU-2", [2]),
        ("GPU-22aa-bb,0", [0, 2]),
        ("", []),
        ("-1", []),
        ("MIG-1", []),
    ],
)
def test_the_keeper_s_own_environment_limits_what_is_there(names: str | None, expected: list[int]) -> None:
    assert [gpu.index for gpu in visible(GPUS, names)] == expected


def test_a_description_takes_the_place_of_nvml(finder: Finder, tmp_path: Path) -> None:
    path = tmp_path / ".tune" / "devices.toml"
    path.parent.mkdir()
    path.write_text('variable = "HIP_VISIBLE_DEVICES"\n[[device]]\nname = "MI210"\nmemory = "64gb"\n[[device]]\n')
    look = finder.look({}, tmp_path)
    assert [(one.index, one.name, one.memory, one.value) for one in look.devices] == [
        (0, "MI210", 64 << 30, "0"),
        (1, "", 0, "1"),
    ]
    assert look.variable == "HIP_VISIBLE_DEVICES" and len({one.uuid for one in look.devices}) == 2
    path.write_text("[[device]]\nnmae = 1\n")
    look = finder.look({}, tmp_path)
    assert look.devices == [] and look.reason.startswith(f"{path}: ") and "nmae" in look.reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"device = 3", "Expected `array`"),
        (b"[[device]\n", "Expected"),
        (b"\xff", "invalid start byte"),
        (b'[[device]]\nmemory = "many"', "memory: found 'many'; allowed: a number and mb, gb or tb"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(text: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        described(text)


def test_a_trial_sees_its_devices_and_no_others() -> None:
    chosen = [Found(3, "c", value="3"), Found(0, "a", value="0")]
    assert environment(chosen, "CUDA_VISIBLE_DEVICES") == {
        "CUDA_VISIBLE_DEVICES": "0,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert environment([], "CUDA_VISIBLE_DEVICES") == {"CUDA_VISIBLE_DEVICES": ""}
    assert environment(chosen, "HIP_VISIBLE_DEVICES") == {"HIP_VISIBLE_DEVICES": "0,3"}
    assert environment([], "HIP_VISIBLE_DEVICES") == {"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": ""}


def test_a_host_without_a_driver_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", (str(tmp_path / "libnvidia-ml.so.1"),))
    look = Finder().look({}, tmp_path)
    assert look.devices == [] and look.reason.startswith("no NVIDIA driver: ") and "libnvidia-ml.so.1" in look.reason
