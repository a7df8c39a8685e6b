"""An experiment's config, resolved: every field that a config file can set, with its default, as it stands in the log.

Field names are snake_case. Paths are absolute; durations are kept as written ("40m", "1.5h"), `seconds` reads them.
The log's EXPERIMENT fact holds a config as JSON with all defaults written out. config_load.py makes one from a file.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([smhd])\s*", re.IGNORECASE | re.ASCII)
_SIZES = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(kb|mb|gb|tb)\s*", re.IGNORECASE | re.ASCII)
MAX_SECONDS = 100 * 366 * 86400.0


class Algorithm(Struct, frozen=True, kw_only=True):
    """A tuner or an assessor: a built-in or installed one by `name`, or `class_name` in the folder `code_directory`."""

    name: str = ""
    class_args: dict[str, Any] = {}
    class_name: str = ""  # "module.Class"
    code_directory: str = ""  # absolute

    @property
    def is_users(self) -> bool:
        """Whether it is a class of the user's own, which only the tuner host may import."""
        return bool(self.class_name)

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.class_name


class Machine(Struct, frozen=True, kw_only=True):
    """A host of the platform "remote", reached by SSH. Secrets are references: "env:NAME" or "file:PATH"."""

    host: str
    name: str  # in the log and everywhere; what tells it from the others
    port: int = 22
    user: str = ""  # "" for whom ssh would take: ~/.ssh/config's, or the user here
    ssh_key_file: str | None = None  # absolute; None: the agent and ~/.ssh/id_*
    ssh_passphrase: str | None = None  # a reference
    password: str | None = None  # a reference
    known_hosts: str | None = None  # absolute; None: ~/.ssh/known_hosts
    proxy_jump: str | None = None  # [user@]host[:port], several separated by commas
    ssh_config: bool = False  # whether ~/.ssh/config is read
    python_path: str | None = None  # a Python there, or the folder it is in; None: python3 in its PATH
    folder: str = ".tune"  # where everything lies there; relative to the home there
    keepalive: str = "5s"  # between two signs of life; when three stay away the link counts as lost
    slots: int | None = None  # how many trials it runs at once; None: no limit of its own
    use_active_gpu: bool | None = None  # None, here and below: what the training service says
    max_trial_number_per_gpu: int | None = None
    gpu_indices: list[int] | None = None
    env: dict[str, str] = {}  # set for its trials


class TrainingService(Struct, frozen=True, kw_only=True):
    """Where trials run."""

    platform: str = "local"
    use_active_gpu: bool | None = None
    max_trial_number_per_gpu: int = 1
    gpu_indices: list[int] | None = None
    reuse_mode: bool | None = None
    slots: int | None = None  # of this host, on the platform local
    machine_list: list[Machine] = []
    channel: Literal["tcp"] | None = None  # keepers dial out to the engine; None: the service's own way
    channel_address: str | None = None  # an IP address of this host, to listen at
    channel_port: int = 0  # any free one
    channel_tls: bool | None = None  # None: unless the address is loopback

    @property
    def secured(self) -> bool:
        """Whether what goes over the TCP channel is under TLS."""
        if self.channel_tls is not None:
            return self.channel_tls
        return self.channel_address is not None and not ipaddress.ip_address(self.channel_address).is_loopback


class Terms(Struct, frozen=True, kw_only=True):
    """How a host may be used: what its machine says, and for the rest its training service."""

    slots: int | None = None  # trials at once; None: as many as trial_concurrency allows
    use_active_gpu: bool = False
    max_trial_number_per_gpu: int = 1
    gpu_indices: list[int] | None = None  # None: all


class SharedStorage(Struct, frozen=True, kw_only=True):
    """Files that all hosts have in common: a directory that each of them mounts, or blobs that the engine carries.

    Secrets are references: "env:NAME" or "file:PATH".
    """

    storage_type: Literal["NFS", "AzureBlob"]
    local_mounted: Literal["usermount", "tunemount", "nomount"] = "usermount"  # by the user, by us, or not here at all
    remote_mounted: Literal["usermount", "tunemount"] = "tunemount"
    local_mount_point: str | None = None  # absolute
    remote_mount_point: str | None = None  # absolute, the same on all machines
    nfs_server: str | None = None
    exported_directory: str | None = None
    storage_account_name: str | None = None
    storage_account_key: str | None = None  # a reference
    connection_string: str | None = None  # a reference; instead of name and key
    container_name: str | None = None

    @property
    def is_mounted(self) -> bool:
        """Whether hosts see it as a directory."""
        return self.storage_type == "NFS"


class Config(Struct, frozen=True, kw_only=True):
    """One experiment, resolved. Durations are texts such as "40m"; None means no limit, or not given."""

    experiment_name: str | None = None
    search_space: dict[str, Any]
    trial_command: str
    trial_code_directory: str  # absolute
    trial_concurrency: int = 1
    max_trial_number: int | None = None
    max_experiment_duration: str | None = None
    max_trial_duration: str | None = None
    trial_gpu_number: int | None = None
    multi_phase: bool = False
    multi_thread: bool = False  # a class in NNI's style: each request in a thread of its own, which may block
    max_phase_number: int | None = None
    max_phases_per_trial: int | None = None
    max_retries: int = 0
    max_failures: int = 3
    max_silence: str | None = None
    stop_grace: str = "10s"
    engine_lease: str = "40m"
    seed: int = 0
    python: str | None = None  # an interpreter, absolute; its folder comes first in the trials' PATH
    debug: bool = False
    log_level: str = "info"
    optimize_mode: Literal["maximize", "minimize"] = "maximize"
    objectives: dict[str, Literal["maximize", "minimize"]] = {}  # by metric key; empty: one, the result itself
    constraints: list[str] = []  # conditions on parameters (engine/constraints.py)
    outcome_constraints: list[str] = []  # conditions on the keys of a final result
    initial_parameters: list[dict[str, Any]] = []  # of the first trials, in their order
    tuner: Algorithm = Algorithm(name="TPE")
    assessor: Algorithm | None = None
    training_service: TrainingService | list[TrainingService] = TrainingService()  # several: hybrid
    tuner_gpu_indices: list[int] | None = None
    shared_storage: SharedStorage | None = None

    @property
    def secret_variables(self) -> list[str]:
        """The environment variables that hold secrets: no trial gets them."""
        storage = self.shared_storage
        given = [] if storage is None else [storage.storage_account_key, storage.connection_string]
        for own in self.training_services:
            given += [one for machine in own.machine_list for one in (machine.password, machine.ssh_passphrase)]
        return sorted({one.removeprefix("env:") for one in given if one is not None and one.startswith("env:")})

    @property
    def training_services(self) -> list[TrainingService]:
        """Where trials run: one place, or several."""
        return [self.training_service] if isinstance(self.training_service, TrainingService) else self.training_service

    @property
    def terms(self) -> dict[str, Terms]:
        """How each host may be used, by its name; a service that is no machine list has one host, named as it is."""
        found: dict[str, Terms] = {}
        for service in self.training_services:
            for machine in service.machine_list or [None]:
                name = service.platform if machine is None else machine.name
                found[name] = _terms(service, machine)
        return found

    @property
    def shares_files(self) -> bool:
        """Whether a trial finds another one's checkpoint wherever it runs."""
        services = self.training_services
        return self.shared_storage is not None or (len(services) == 1 and services[0].platform == "local")

    @property
    def in_process(self) -> bool:
        """Whether a program asks and tells by itself (engine/ask_tell.py): no command is ever started."""
        return self.trial_command == IN_PROCESS


IN_PROCESS = "(AskTell)"  # the trial_command of a study that a program asks and tells: no shell could run it
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Config)


def _terms(service: TrainingService, machine: Machine | None) -> Terms:
    def said(name: str) -> Any:
        own = getattr(machine, name) if machine is not None else None
        return own if own is not None else getattr(service, name)

    return Terms(
        slots=machine.slots if machine is not None else service.slots,
        use_active_gpu=bool(said("use_active_gpu")),
        max_trial_number_per_gpu=said("max_trial_number_per_gpu"),
        gpu_indices=said("gpu_indices"),
    )


def only_in_process(name: str) -> tuple[str, str]:
    """Why no engine can run this experiment, and what to do: a message and its hint."""
    return (
        f"experiment {name} is asked and told by a Python program: there is no trial_command that an engine could run",
        f"Go on with it in Python: AskTell.resume({name!r})",
    )


def encode(config: Config) -> bytes:
    """The config as JSON, every field written out, in the order of the class; the same config gives the same bytes."""
    return _encoder.encode(config)


def decode(raw: bytes) -> Config:
    """The config that `encode` wrote, by this version or an older one; `ValueError` when it is none."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a config: {error}") from error


def seconds(duration: str | float) -> float:
    """A duration in seconds: "40m", "1.5h", "10s", "2d", or a number of seconds; `ValueError` otherwise."""
    if isinstance(duration, str):
        match = _DURATION.fullmatch(duration)
        if match is None:
            raise ValueError(f"{duration!r} is no duration; allowed: a number and s, m, h or d, e.g. 40m or 1.5h")
        found = float(match[1]) * _UNITS[match[2].lower()]
    else:
        found = float(duration)
    if not 0 <= found <= MAX_SECONDS:
        raise ValueError(f"{duration!r} is no duration; allowed: 0s to 36600d")
    return found


def size(text: str | int) -> int:
    """A size in bytes: "2gb", "512mb", or a number of megabytes; `ValueError` otherwise."""
    if isinstance(text, str):
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no size; allowed: a number and kb, mb, gb or tb, e.g. 512mb")
        return round(float(match[1]) * _SIZES[match[2].lower()])
    if text < 0:
        raise ValueError(f"{text} is no size; allowed: 0 or more megabytes")
    return text * _SIZES["mb"]
