"""The fields of a config, one by one: which there are in each section, and what each of them may be.

Every check takes a value as a file or a program gives it, and gives it as a config holds it, or raises `Wrong`.
config_load.py makes a whole config of them.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from .config import seconds
from .config_file import is_list, is_table, not_plain, said
from .registry import fold


# -- one value --------------------------------------------------------------------------------------------------------
class Wrong(Exception):
    """A value that can't be: what was found, and what is allowed; `inside` leads to a part of the value."""

    def __init__(self, text: str, *inside: str | int) -> None:
        super().__init__(text)
        self.inside = inside


def shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 80 else text[:77] + "..."


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"found {shown(value)}; allowed: text")
    if not value.strip():
        raise Wrong("found an empty text; allowed: text")
    if "\0" in value:
        raise Wrong("found a zero byte; allowed: text")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"found {shown(value)}; allowed: true or false")
    return value


def _whole(least: int, most: int = 2**63 - 1) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            upper = "or more" if most > 10**12 else f"to {most}"
            raise Wrong(f"found {shown(value)}; allowed: an integer, {least} {upper}")
        return value

    return check


def _duration(value: Any, least: float = 1e-3) -> str:
    wrong = Wrong(f"found {shown(value)}; allowed: a number and s, m, h or d, e.g. 40m or 1.5h, or seconds")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong
    try:
        length = seconds(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if length < least:
        raise Wrong(f"found {shown(value)}; allowed: more than 0")
    return value.strip() if isinstance(value, str) else f"{value}s"


def _grace(value: Any) -> str:
    return _duration(value, 0.0)


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in allowed:
            near = difflib.get_close_matches(str(value).lower(), allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Wrong(f"found {shown(value)}; allowed: {', '.join(allowed)}{hint}")
        return value.lower()

    return check


def _table(value: Any) -> dict[str, Any]:
    if not is_table(value):
        raise Wrong(f"found {shown(value)}; allowed: a table of fields")
    return value


def _tables(value: Any) -> Any:
    """A table, or several in a list."""
    return _each(_table, "tables")(value) if is_list(value) else _table(value)


def _reference(value: Any) -> str:
    """A secret, by reference: what it is stands in no file of ours."""
    text = _text(value)
    kind, colon, name = text.partition(":")
    if not colon or kind not in ("env", "file") or not name:
        raise Wrong('found it written out, which every reader of the file would see; allowed: "env:NAME", "file:PATH"')
    return text


def _plain_word(value: Any) -> str:
    """A path or a name for another machine's shell, which may be any: nothing in it means anything to one."""
    text = _text(value)
    if not re.fullmatch(r"(~/)?[A-Za-z0-9_./@+=:,-]+", text) or text.startswith("-"):
        raise Wrong(f"found {shown(value)}; allowed: letters, digits and any of _ . / @ + = : , -")
    return text


def _address(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.:%-]{1,255}", text) or text.startswith("-"):
        raise Wrong(f"found {shown(value)}; allowed: a host's name or address")
    return text


def _ip(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise Wrong(f"found {shown(value)}; allowed: an IP address of this host, such as 127.0.0.1") from None


def _absolute(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/") or ".." in text.split("/") or any(ord(one) < 32 for one in text):
        raise Wrong(f"found {shown(value)}; allowed: an absolute path")
    return text.rstrip("/") or "/"


def _storage_type(value: Any) -> str:
    return {"nfs": "NFS", "azureblob": "AzureBlob"}[_one_of("nfs", "azureblob")(value)]


def _mounted(value: Any) -> str:
    chosen = _one_of("usermount", "tunemount", "nnimount", "nomount")(value)
    return "tunemount" if chosen == "nnimount" else chosen


def _mounted_there(value: Any) -> str:
    chosen = _one_of("usermount", "tunemount", "nnimount")(value)
    return "tunemount" if chosen == "nnimount" else chosen


def _container(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[a-z0-9](-?[a-z0-9]){2,62}", text):
        raise Wrong(f"found {shown(value)}; allowed: 3 to 63 small letters and digits, with single hyphens between")
    return text


def _jump(value: Any) -> str:
    text = _text(value)
    if not all(re.fullmatch(r"([A-Za-z0-9_.-]+@)?[A-Za-z0-9_.-]+(:[0-9]{1,5})?", one) for one in text.split(",")):
        raise Wrong(f"found {shown(value)}; allowed: [user@]host[:port], several separated by commas")
    return text


def _environment(value: Any) -> dict[str, str]:
    for name, one in _table(value).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith(("TUNE_", "NNI_")):
            raise Wrong("not a name of a variable that may be set", name)
        if not isinstance(one, str) or "\0" in one:
            raise Wrong(f"found {shown(one)}; allowed: text", name)
    return value


def _platforms(value: Any) -> Any:
    """A platform, or several in a list."""
    if not is_list(value):
        return _text(value)
    found: list[str] = _each(_text, "platforms")(value)
    if len({fold(one) for one in found}) < len(found) or not found:
        raise Wrong(f"found {shown(value)}; allowed: one or more platforms, each once")
    return found


def _indices(value: Any) -> list[int]:
    wrong = Wrong(f'found {shown(value)}; allowed: an index, a list of them, or a text such as "0,1"')
    found: list[Any] = value if is_list(value) else [value]
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"[0-9]{1,6}", part) for part in parts):
            raise wrong
        found = [int(part) for part in parts]
    if any(isinstance(index, bool) or not isinstance(index, int) or index < 0 for index in found):
        raise wrong
    if len(set(found)) < len(found):
        raise Wrong(f"found {shown(value)}; allowed: each index once")
    return list(found)


def _each(check: Callable[[Any], Any], what: str) -> Callable[[Any], list[Any]]:
    def check_all(value: Any) -> list[Any]:
        if not is_list(value):
            raise Wrong(f"found {shown(value)}; allowed: a list of {what}")
        for index, one in enumerate(value):
            try:
                check(one)
            except Wrong as wrong:
                raise Wrong(str(wrong), index, *wrong.inside) from None
        return value

    return check_all


def _objectives(value: Any) -> dict[str, str]:
    modes: dict[str, str] = {}
    for key, mode in _table(value).items():
        try:
            _text(key)
            modes[key] = _MODE(mode)
        except Wrong as wrong:
            raise Wrong(str(wrong), key) from None
    if len(modes) < 2:
        few = "1 objective" if modes else "no objective"
        raise Wrong(f"found {few}; allowed: two or more keys of a result (for one: leave it out, set optimize_mode)")
    return modes


def _not_yet_if_true(value: Any) -> bool:
    if _switch(value):
        raise Wrong("found true: not yet; allowed: false")
    return False


_MODE = _one_of("maximize", "minimize")
CHECKS: dict[str, Callable[[Any], Any]] = {
    "experiment_name": _text,
    "search_space": _table,
    "search_space_file": _text,
    "trial_command": _text,
    "trial_code_directory": _text,
    "trial_concurrency": _whole(1, 99_999),
    "max_trial_number": _whole(1),
    "max_experiment_duration": _duration,
    "max_trial_duration": _duration,
    "trial_gpu_number": _whole(0, 1024),
    "multi_phase": _switch,
    "multi_thread": _switch,
    "max_phase_number": _whole(1),
    "max_phases_per_trial": _whole(1),
    "max_retries": _whole(0, 1_000_000),
    "max_failures": _whole(0, 1_000_000_000),
    "max_silence": _duration,
    "stop_grace": _grace,
    "engine_lease": _duration,
    "seed": _whole(0),
    "python": _text,
    "debug": _switch,
    "log_level": _one_of("trace", "debug", "info", "warning", "error", "fatal"),
    "optimize_mode": _MODE,
    "objectives": _objectives,
    "constraints": _each(_text, "conditions on parameters"),
    "outcome_constraints": _each(_text, "conditions on results"),
    "initial_parameters": _each(_table, "tables of parameters"),
    "experiment_working_directory": _text,
    "experiment_type": _text,
    "tuner": _table,
    "assessor": _table,
    "advisor": _table,
    "training_service": _tables,
    "tuner_gpu_indices": _indices,
    "use_annotation": _not_yet_if_true,
    "nni_manager_ip": _text,
    "shared_storage": _table,
}
ALGORITHM: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "class_args": _table,
    "class_name": _text,
    "code_directory": _text,
}
SERVICE: dict[str, Callable[[Any], Any]] = {
    "platform": _platforms,
    "use_active_gpu": _switch,
    "max_trial_number_per_gpu": _whole(1),
    "gpu_indices": _indices,
    "reuse_mode": _switch,
    "slots": _whole(1, 99_999),
    "machine_list": _each(_table, "machines"),
    "channel": _one_of("tcp"),
    "channel_address": _ip,
    "channel_port": _whole(0, 65535),
    "channel_tls": _switch,
    "trial_gpu_number": _whole(0, 1024),
    "trial_command": _text,
    "trial_code_directory": _text,
}
MACHINE: dict[str, Callable[[Any], Any]] = {
    "host": _address,
    "name": _address,
    "port": _whole(1, 65535),
    "user": _plain_word,
    "ssh_key_file": _text,
    "ssh_passphrase": _reference,
    "password": _reference,
    "known_hosts": _text,
    "proxy_jump": _jump,
    "ssh_config": _switch,
    "python_path": _plain_word,
    "folder": _plain_word,
    "keepalive": _duration,
    "slots": _whole(1, 99_999),
    "use_active_gpu": _switch,
    "max_trial_number_per_gpu": _whole(1),
    "gpu_indices": _indices,
    "env": _environment,
}
STORAGE: dict[str, Callable[[Any], Any]] = {
    "storage_type": _storage_type,
    "local_mounted": _mounted,
    "remote_mounted": _mounted_there,
    "local_mount_point": _text,
    "remote_mount_point": _absolute,
    "nfs_server": _address,
    "exported_directory": _absolute,
    "storage_account_name": _address,
    "storage_account_key": _reference,
    "connection_string": _reference,
    "container_name": _container,
}


# -- by section -------------------------------------------------------------------------------------------------------
_SECTIONS: dict[str, Mapping[str, Callable[[Any], Any]]] = {
    "": CHECKS,
    "tuner": ALGORITHM,
    "training_service": SERVICE,
    "machine": MACHINE,
    "shared_storage": STORAGE,
}


def fields(section: str = "") -> tuple[str, ...]:
    """The names of the fields of a config, or of a section: "tuner" (assessor, advisor too) or "training_service"."""
    return tuple(_SECTIONS[section])


def check_field(section: str, name: str, value: Any) -> Any:
    """The value of one field as a config holds it; `ValueError` says what was found and what is allowed."""
    wrong = not_plain({name: value})
    if wrong is not None:
        raise ValueError(f"{said(wrong[0])}: {wrong[1]}")
    try:
        return _SECTIONS[section][name](value)
    except Wrong as error:
        raise ValueError(f"{name}: {error}") from None
