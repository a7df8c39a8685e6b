"""The config of an experiment as Python writes it: `experiment.config.trial_concurrency = 2`, checked at once.

The fields are those of a config file (docs/config.md), in snake_case. A name that is no field is an `AttributeError`, a
value that can't be is a `ValueError`; what can only be seen in the whole (a missing field, a space that the tuner can't
search) is said by `resolved`.
"""

from __future__ import annotations

import difflib
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import config_fields, config_load
from .config import Config


class _Fields:
    """Fields of one section: set, read and deleted by name. `_section` names the section in the config."""

    _section = ""

    def __init__(self, **fields: Any) -> None:
        object.__setattr__(self, "_values", {})
        for name, value in fields.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        self._known(name)
        self._values[name] = None if value is None else config_fields.check_field(self._section, name, _plain(value))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._known(name)
        return self._values.get(name)

    def __delattr__(self, name: str) -> None:
        self._known(name)
        self._values.pop(name, None)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *config_fields.fields(self._section)]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.mapping().items())
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.mapping() == cast("_Fields", other).mapping()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def _known(self, name: str) -> None:
        allowed = config_fields.fields(self._section)
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
            raise AttributeError(f"the config{self._of()} has no field {name!r}; {hint}", name=name, obj=self)

    def _of(self) -> str:
        return f" of the {self._section}" if self._section else ""

    def mapping(self) -> dict[str, Any]:
        """The fields that were set, as a config file would hold them."""
        return {name: value for name, value in self._values.items() if value is not None}

    if TYPE_CHECKING:
        _values: dict[str, Any]


class AlgorithmConfig(_Fields):
    """A tuner, an assessor or an advisor: `name`, or `class_name` in `code_directory`, and `class_args`."""

    _section = "tuner"

    def __init__(self, name: str | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        if name is not None:
            self.name = name
        self._values.setdefault("class_args", {})

    def mapping(self) -> dict[str, Any]:
        """The fields that were set; nothing when the algorithm is not chosen."""
        found = super().mapping()
        return found if set(found) - {"class_args"} or found.get("class_args") else {}


class TrainingServiceConfig(_Fields):
    """Where trials run: `platform`, and what belongs to it."""

    _section = "training_service"

    def __init__(self, platform: str | list[str] | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        if platform is not None:
            self.platform = platform


class RemoteMachineConfig(_Fields):
    """A machine of the platform remote, an entry of `training_service.machine_list`: `host`, and what belongs to it."""

    _section = "machine"

    def __init__(self, host: str | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        if host is not None:
            self.host = host


class ExperimentConfig(_Fields):
    """One experiment. `tuner`, `assessor`, `advisor` and `training_service` are there from the start."""

    def __init__(self, training_service_platform: str | list[str] | None = None, **fields: Any) -> None:
        super().__init__()
        self._values["training_service"] = TrainingServiceConfig(training_service_platform)
        for name in ("tuner", "assessor", "advisor"):
            self._values[name] = AlgorithmConfig()
        for name, value in fields.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = TrainingServiceConfig if name == "training_service" else AlgorithmConfig
        if name not in ("tuner", "assessor", "advisor", "training_service"):
            super().__setattr__(name, value)
        elif value is None:
            self._values[name] = kind()
        elif isinstance(value, kind):
            self._values[name] = value
        elif isinstance(value, str):
            self._values[name] = kind(value)
        elif isinstance(value, Mapping):
            self._values[name] = kind(**{str(key): one for key, one in cast("Mapping[Any, Any]", value).items()})
        else:
            raise ValueError(f"{name}: found {value!r}; allowed: a name, a mapping of fields, a {kind.__name__}")

    def mapping(self) -> dict[str, Any]:
        """The fields that were set, as a config file would hold them, sections included."""
        found: dict[str, Any] = {}
        for name, value in self._values.items():
            plain = value.mapping() if isinstance(value, _Fields) else value
            if plain is not None and (plain or not isinstance(value, _Fields)):
                found[name] = plain
        return found

    def resolved(self, base: Path | None = None) -> tuple[Config, list[str]]:
        """The config, complete and checked, and notes to be said; `UsageError` with all that is wrong with it.

        Relative paths are under `base`, by default the working directory.
        """
        return config_load.from_mapping(self.mapping(), base or Path.cwd())


def _plain(value: Any) -> Any:
    """A value of Python's as a config file would hold it: paths are texts, tuples lists."""
    if isinstance(value, _Fields):
        return value.mapping()
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)  # numpy's
    if isinstance(value, numbers.Real):
        return float(value)
    return value
