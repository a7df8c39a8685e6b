"""From a config file, or a mapping in Python, to a checked and resolved config.

Names are taken in snake_case and camelCase (case and underscores don't count). Files of NNI 1.x (`authorName`,
`trial: {command, codeDir}`, `builtinTunerName` ...) come in by the same door and are translated; what NNI itself
dropped is named in a note and left out. All that is wrong with a file is said at once, each as

    file:line: field: what was found; allowed: what is allowed; did you mean ...?

Reading is in config_file.py, what a single field may be in config_fields.py, the result in config.py.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from . import registry
from .config import Algorithm, Config, Machine, SharedStorage, TrainingService
from .config_fields import ALGORITHM, CHECKS, MACHINE, SERVICE, STORAGE, Wrong, shown
from .config_file import Place, Source, is_list, is_table, not_plain, read, said
from .errors import UsageError
from .registry import fold

_SHOWN = 20  # errors in one message
# optimize_mode where an NNI file leaves it out: NNI's own default for that tuner (all others: maximize)
_NNI_MODES = {"tpe": "minimize", "tpelegacy": "minimize", "anneal": "minimize"}
_PLATFORMS_TO_COME = frozenset(
    {"openpai", "pai", "paiyarn", "kubeflow", "frameworkcontroller", "dlts", "aml", "adl", "dlc"}
    | {"slurm", "ray", "kubernetes"}
)


def load(path: Path) -> tuple[Config, list[str]]:
    """The resolved config in a file (.toml, .yaml, .yml, .json) and notes to be said; `UsageError` with all errors.

    Relative paths in the file are relative to its folder.
    """
    source = read(path)
    reader = _Reader(source.data, path.absolute().parent, source)
    return reader.config(), reader.notes


def from_mapping(data: Mapping[str, Any], base: Path) -> tuple[Config, list[str]]:
    """The resolved config in a mapping with the fields of a config file, and notes; relative paths are under `base`."""
    wrong = not_plain(data)
    if wrong is not None:
        raise UsageError(f"{said(wrong[0])}: {wrong[1]}")
    reader = _Reader(dict(data), base.absolute(), None)
    return reader.config(), reader.notes


def resolve(config: Config) -> Config:
    """The same config, with its folders and plug-ins checked and named as they are written; `UsageError` otherwise."""
    reader = _Reader({}, Path.cwd(), None)
    checked = reader.resolved(config)
    reader.fail()
    return checked


def machine(fields: Mapping[str, Any], base: Path) -> Machine:
    """A machine from the fields of a machine_list; `UsageError` with all that is wrong with them."""
    reader = _Reader({}, base.absolute(), None)
    made = reader.machines([dict(fields)])
    reader.errors = [error.removeprefix("training_service.machine_list[0].") for error in reader.errors]
    reader.fail()
    return made[0]


# -- NNI's words ------------------------------------------------------------------------------------------------------
# NNI 1.x, folded, and where it stands today
_V1_TOP = {
    "maxexecduration": "max_experiment_duration",
    "maxtrialnum": "max_trial_number",
    "searchspacepath": "search_space_file",
    "logdir": "experiment_working_directory",
}
_V1_TRIAL = {"command": "trial_command", "codedir": "trial_code_directory", "gpunum": "trial_gpu_number"}
_V1_LOCAL = {"maxtrialnumpergpu": "max_trial_number_per_gpu"}
_V1_MACHINE = {
    **_V1_LOCAL,
    "ip": "host",
    "username": "user",
    "passwd": "password",
    "sshkeypath": "ssh_key_file",
    "passphrase": "ssh_passphrase",
}
_V1_ALGORITHM = {
    "builtintunername": "name",
    "builtinassessorname": "name",
    "builtinadvisorname": "name",
    "codedir": "code_directory",
}
_DROPPED = ("authorname", "description", "versioncheck", "logcollection")  # NNI 2 dropped them too
_V1_MARKS = {*_V1_TOP, *_DROPPED[:1], *_DROPPED[2:], "trial", "localconfig", "trainingserviceplatform"} | {
    *("machinelist", "remoteconfig")
}
_V1_SERVICES = re.compile(r"((pai|paiyarn|aml|dlts|adl|kubeflow|frameworkcontroller|hybrid)config)")


# -- a whole config ---------------------------------------------------------------------------------------------------
class _Found:
    """A field of the file: its value, and where it stands there, in the file's own spelling."""

    __slots__ = ("place", "value")

    def __init__(self, value: Any, place: Place) -> None:
        self.value = value
        self.place = place


class _Reader:
    """Goes through one mapping, gathers what is wrong with it, and makes the config of it."""

    def __init__(self, data: Any, base: Path, source: Source | None) -> None:
        self.data = data
        self.base = base
        self.source = source
        self.notes: list[str] = []
        self.errors: list[str] = []
        self.is_nni = False
        self.places: dict[tuple[str, ...], Place] = {}  # of the fields by their own names
        self.space_source: Source | None = None
        self.meant: set[str] = set()  # fields that a misspelt one was probably meant for

    # -- errors ---------------------------------------------------------------------------------------------------
    def wrong(self, place: Place, text: str, source: Source | None = None) -> None:
        """Note an error at a place of the file."""
        source = source or self.source
        before = f"{source.at(place)}: " if source is not None else ""
        name = said(place)
        self.errors.append(f"{before}{name}: {text}" if name else f"{before}{text}")

    def fail(self) -> None:
        """End with all errors, if there are any."""
        if not self.errors:
            return
        lines = self.errors[:_SHOWN]
        if len(self.errors) > _SHOWN:
            lines.append(f"and {len(self.errors) - _SHOWN} more")
        raise UsageError("\n".join(lines))

    def place(self, *names: str) -> Place:
        """Where a field, or its nearest parent that is there, stands in the file."""
        for length in range(len(names), 0, -1):
            if names[:length] in self.places:
                return (*self.places[names[:length]], *names[length:])
        return names

    # -- fields ---------------------------------------------------------------------------------------------------
    def config(self) -> Config:
        """The config; `UsageError` with everything that is wrong."""
        if not is_table(self.data):
            self.wrong((), f"found {shown(self.data)}; allowed: a table of fields")
            self.fail()
        fields = self.top()
        values = self.checked(fields, CHECKS, ())
        service = self.services(values.pop("training_service", None), values)
        storage = self.storage(values.pop("shared_storage", None), service)
        advisor = values.pop("advisor", None)
        if advisor is not None:
            clash = [name for name in ("tuner", "assessor") if name in values]
            if clash:
                self.wrong(self.place("advisor"), f"found beside {clash[0]}; allowed: an advisor alone")
            values["tuner"] = advisor
            self.places[("tuner",)] = self.places[("advisor",)]
        tuner = self.algorithm("tuner", values.pop("tuner", None), values) or Algorithm(name="TPE")
        assessor = self.algorithm("assessor", values.pop("assessor", None), values)
        mode = self.mode(values.pop("optimize_mode", None), tuner, values.get("objectives"))
        space = self.space(values.pop("search_space", None), values.pop("search_space_file", None))
        if not self.given("trial_command"):
            self.wrong((), "trial_command is missing; it is the shell command that runs one trial")
        code = self.folder(values.pop("trial_code_directory", "."))
        python = self.interpreter(values.pop("python", None))
        self.leave_out(values)
        self.fail()
        values.setdefault("seed", secrets.randbits(31))
        config = Config(
            search_space=space or {},
            trial_code_directory=code,
            python=python,
            tuner=tuner,
            assessor=assessor,
            training_service=service,
            shared_storage=storage,
            optimize_mode=mode,  # type: ignore[arg-type]  # mode() gives one of the two
            **values,
        )
        config = self.resolved(config)
        self.gpus(config)
        self.fail()
        if config.multi_thread and not config.tuner.is_users:
            self.notes.append(f"multi_thread: not used by {config.tuner.name}, whose answers wait for no trial")
        if not config.max_trial_number and not config.max_experiment_duration:
            self.notes.append(
                "no max_trial_number and no max_experiment_duration: the experiment runs until it is stopped"
            )
        return config

    def gpus(self, config: Config) -> None:
        """Whether some host may have as many GPUs as a trial wants, as far as the file says."""
        wants, several = config.trial_gpu_number or 0, list(config.terms.values())
        most = max((len(terms.gpu_indices) for terms in several if terms.gpu_indices is not None), default=0)
        if wants and all(terms.gpu_indices is not None for terms in several) and most < wants:
            place = self.place("trial_gpu_number")
            self.wrong(place, f"found {wants}; allowed: at most {most}, since gpu_indices allows no host more")
        if not wants and any(terms.max_trial_number_per_gpu > 1 for terms in several):
            self.notes.append("max_trial_number_per_gpu: not used without trial_gpu_number")

    def top(self) -> dict[str, _Found]:
        """The file's fields by today's names; 1.x sections are taken apart."""
        known = {fold(name): name for name in CHECKS}
        data: dict[str, Any] = self.data
        self.is_nni = any(fold(key) in _V1_MARKS or key != key.lower() for key in data)
        fields: dict[str, _Found] = {}

        def put(name: str, value: Any, place: Place) -> None:
            if name in fields and value is not None and fields[name].value is not None:
                self.wrong(place, f"found twice, also as {said(fields[name].place)}; allowed: once")
            elif name not in fields or value is not None:
                fields[name] = _Found(value, place)

        local: dict[str, _Found] = {}
        for key, value in data.items():
            folded, place = fold(key), (key,)
            if folded in known:
                put(known[folded], value, place)
            elif folded in _V1_TOP:
                put(_V1_TOP[folded], value, place)
            elif folded in _DROPPED:
                self.notes.append(f"{key}: not used (NNI dropped it too)")
            elif folded == "trainingserviceplatform":
                local["platform"] = _Found(value, place)
            elif folded == "trial" and is_table(value):
                for inner, inner_value in value.items():
                    if fold(inner) in _V1_TRIAL:
                        put(_V1_TRIAL[fold(inner)], inner_value, (key, inner))
                    elif fold(inner) in map(fold, _V1_TRIAL.values()):
                        put(known[fold(inner)], inner_value, (key, inner))
                    elif inner_value is not None:
                        self.unknown((key, inner), ["command", "codeDir", "gpuNum"])
            elif folded in ("localconfig", "remoteconfig") and is_table(value):
                for inner, inner_value in value.items():
                    renamed = "reuse_mode" if fold(inner) == "reuse" else inner
                    local[_V1_LOCAL.get(fold(inner), renamed)] = _Found(inner_value, (key, inner))
            elif folded == "machinelist":
                local["machine_list"] = _Found(value, place)
            elif folded in ("trial", "localconfig", "remoteconfig"):
                if value is not None:
                    self.wrong(place, f"found {shown(value)}; allowed: a table of fields")
            elif _V1_SERVICES.fullmatch(folded):
                if value is not None:
                    self.wrong(place, "not yet; allowed: the platform local")
            elif value is not None:
                self.unknown(place, list(CHECKS))
        if local and "training_service" not in fields:
            known_local = {fold(name): name for name in SERVICE}
            section: dict[str, Any] = {}
            for name, found in local.items():
                section[name] = found.value
                self.places[("training_service", known_local.get(fold(name), name))] = found.place
            first = next(iter(local.values()))
            fields["training_service"] = _Found(section, first.place[:1])
        elif local:
            self.wrong(next(iter(local.values())).place, "found beside trainingService; allowed: one of them")
        return fields

    def checked(
        self, fields: Mapping[str, _Found], checks: Mapping[str, Callable[[Any], Any]], above: tuple[str, ...]
    ) -> dict[str, Any]:
        """The values that are right; None counts as not given."""
        values: dict[str, Any] = {}
        for name, found in fields.items():
            if found.value is None:
                continue
            self.places.setdefault((*above, name), found.place)
            try:
                values[name] = checks[name](found.value)
            except Wrong as wrong:
                self.wrong((*self.places[(*above, name)], *wrong.inside), str(wrong))
        return values

    def unknown(self, place: Place, allowed: list[str]) -> None:
        """Note a field that nobody knows, with the nearest name that there is."""
        if len(self.errors) > _SHOWN:  # to look for near names takes long, and nobody reads on
            return self.wrong(place, "unknown field")
        name = str(place[-1])
        folded = {fold(candidate): candidate for candidate in allowed}
        near = difflib.get_close_matches(fold(name), folded, n=1, cutoff=0.6)
        camel = self.is_nni and "_" not in name
        if near:
            right = folded[near[0]]
            self.meant.add(right)
            self.wrong(place, f"unknown field; did you mean {_camel(right) if camel else right}?")
        else:
            self.wrong(place, f"unknown field; allowed: {', '.join(allowed)}")

    def section(
        self,
        name: str,
        data: Mapping[str, Any],
        checks: Mapping[str, Callable[[Any], Any]],
        renamed: Mapping[str, str],
        above: Place | None = None,
    ) -> dict[str, Any]:
        """The values of a table inside the file; `above` is where it stands, if not at its name."""
        known = {fold(field): field for field in checks}
        above, fields = self.place(name) if above is None else above, dict[str, _Found]()
        for key, value in data.items():
            field = known.get(fold(key)) or renamed.get(fold(key))
            place = self.places.get((name, field or key), (*above, key))
            if field is None:
                if value is not None:
                    self.unknown(place, list(checks))
            elif field in fields and value is not None:
                self.wrong(place, f"found twice, also as {said(fields[field].place)}; allowed: once")
            else:
                fields[field] = _Found(value, place)
        return self.checked(fields, checks, (name,))

    def given(self, name: str) -> bool:
        """Whether a field is there, if only wrong or misspelt: then it is not missing as well."""
        return (name,) in self.places or name in self.meant

    # -- sections -------------------------------------------------------------------------------------------------
    def algorithm(self, name: str, data: dict[str, Any] | None, values: dict[str, Any]) -> Algorithm | None:
        """The tuner or assessor of a section; 1.x's classFileName becomes the module of class_name."""
        if data is None:
            return None
        rest = dict(data)
        if any(key != key.lower() for key in rest):
            self.is_nni = True
        module = ""
        for key in list(rest):
            folded = fold(key)
            if folded == "classfilename":
                module = str(rest.pop(key) or "").removesuffix(".py").replace("/", ".")
            elif folded == "includeintermediateresults":
                if rest.pop(key):
                    self.notes.append(
                        f"{name}.{key}: not used; what a stopped trial reported last is always told to tuners"
                    )
            elif folded == "gpuindices":
                indices = rest.pop(key)
                if indices is not None and name == "tuner":
                    place = (*self.place(name), key)
                    found = self.checked({"tuner_gpu_indices": _Found(indices, place)}, CHECKS, ())
                    values.update(found)
            elif name == "tuner" and folded == "builtinassessorname":
                self.unknown((*self.place(name), key), list(ALGORITHM))
                rest.pop(key)
        known = self.section(name, rest, ALGORITHM, _V1_ALGORITHM)
        class_name, plug = known.get("class_name", ""), known.get("name", "")
        if module and class_name:
            class_name = f"{module}.{class_name}"
        if class_name and plug:
            self.wrong(self.place(name), "found name and class_name; allowed: one of them")
        elif "code_directory" in known and not class_name:
            self.wrong(
                self.place(name, "code_directory"), "found without class_name; allowed: class_name = module.Class"
            )
        elif not class_name and not plug:
            if (name, "name") not in self.places and not self.meant & {"name", "class_name"}:
                self.wrong(self.place(name), "neither name nor class_name is there; allowed: one of them")
            return None
        folder = str(self.path(known.get("code_directory", "."))) if class_name else ""
        return Algorithm(
            name="" if class_name else plug,
            class_args=known.get("class_args", {}),
            class_name=class_name,
            code_directory=folder,
        )

    def services(self, data: Any, values: dict[str, Any]) -> TrainingService | list[TrainingService]:
        """Where trials run: a training service, or several from a list of tables or of platforms."""
        if data is None:
            return TrainingService()
        found: list[TrainingService] = []
        for index, one in enumerate(data if is_list(data) else [data]):
            if is_list(data):
                for known in [places for places in self.places if places[:1] == ("training_service",) and places[1:]]:
                    del self.places[known]
            above = (*self.place("training_service"), index) if is_list(data) else self.place("training_service")
            found += self.service(one, above, values)
        if not found and not self.errors:
            self.wrong(self.place("training_service"), "found an empty list; allowed: one or more training services")
        twice = [one.platform for one in found if [other.platform for other in found].count(one.platform) > 1]
        if twice:
            self.wrong(self.place("training_service"), f"found {twice[0]} twice; allowed: each platform once")
        dialled = {(one.channel_address, one.channel_port, one.channel_tls) for one in found if one.channel is not None}
        if len(dialled) > 1:
            self.wrong(self.place("training_service"), "found several TCP channels; allowed: the same one for each")
        return found[0] if len(found) == 1 else found

    def service(self, data: Any, above: Place, values: dict[str, Any]) -> list[TrainingService]:
        """One table's training services: as many as it names platforms. Platforms to come are refused by name."""
        known = self.section("training_service", data, SERVICE, {**_V1_LOCAL, "name": "platform"}, above)
        for name in ("trial_gpu_number", "trial_command", "trial_code_directory"):
            if name in known:
                values.setdefault(name, known.pop(name))
                self.places.setdefault((name,), self.places[("training_service", name)])
                known.pop(name, None)
        given: str | list[str] = known.pop("platform", "local")
        allowed = registry.names("training_service") or ["local"]
        platforms: list[str] = []
        for platform in [given] if isinstance(given, str) else given:
            match = next((name for name in allowed if fold(name) == fold(platform)), None)
            if match is None:
                word = "not yet" if fold(platform) in _PLATFORMS_TO_COME else "unknown platform"
                at = self.place("training_service", "platform")
                self.wrong(at, f"found {shown(platform)}: {word}; allowed: {', '.join(map(str.lower, allowed))}")
            else:
                platforms.append(match.lower())
        if known.get("reuse_mode") is not None:
            name = said(self.place("training_service", "reuse_mode"))
            self.notes.append(f"{name}: not used; one keeper serves all trials of a host")
        machines = self.machines(known.pop("machine_list", None))
        at = self.place("training_service", "machine_list")
        if "remote" in platforms and not machines and not self.errors:
            self.wrong(at, "no machine is there; the platform remote needs a machine_list")
        elif machines and "remote" not in platforms and platforms:
            self.wrong(at, f"not used by the platform {platforms[0]}; allowed: platform = remote")
        self.check_channel(known, platforms)
        return [
            TrainingService(platform=platform, machine_list=machines if platform == "remote" else [], **known)
            for platform in platforms
        ]

    def check_channel(self, known: Mapping[str, Any], platforms: list[str]) -> None:
        """Note what is wrong with the TCP channel of a training service (engine/listener.py)."""
        given = [name for name in ("channel_address", "channel_port", "channel_tls") if known.get(name, 0) != 0]
        if "channel" not in known:
            for name in given:
                self.wrong(self.place("training_service", name), 'not used without channel = "tcp"')
            return
        if "channel_address" not in known and ("training_service", "channel_address") not in self.places:
            at = self.place("training_service", "channel")
            self.wrong(at, "channel_address is missing; it is the address of this host that keepers dial")
        for platform in platforms:
            if "listener" not in inspect.signature(registry.training_service_class(platform)).parameters:
                at = self.place("training_service", "channel")
                self.wrong(at, f"not yet on the platform {platform}; allowed: to leave it out")

    def machines(self, data: Any) -> list[Machine]:
        """The machines of a machine_list, each with a name of its own."""
        found: list[dict[str, Any]] = []
        for index, one in enumerate(data or []):
            above = (*self.place("training_service", "machine_list"), index)
            for known in [places for places in self.places if places[:1] == ("machine",)]:
                del self.places[known]
            fields = self.section("machine", one, MACHINE, _V1_MACHINE, above)
            if "host" not in fields:
                if ("machine", "host") not in self.places:
                    self.wrong(above, "host is missing; it is the machine's name or address")
                continue
            for name in ("ssh_key_file", "known_hosts"):
                if name in fields:
                    path = self.path(fields[name])
                    fields[name] = str(path)
                    if not path.is_file():
                        self.wrong(self.place("machine", name), f"{path} is no file; allowed: a file that exists")
            found.append(fields)
        made: list[Machine] = []
        unnamed = [fields for fields in found if "name" not in fields]
        names = [_machine_name(fields, [other for other in unnamed if other is not fields]) for fields in unnamed]
        for fields, name in zip(unnamed, names, strict=True):
            fields["name"] = name
        for index, fields in enumerate(found):
            if any(one.name == fields["name"] for one in made) or fields["name"] == "local":
                at = (*self.place("training_service", "machine_list"), index)
                self.wrong(at, f"found the name {fields['name']} twice; allowed: a name of its own (name = ...)")
                continue
            made.append(Machine(**fields))
        return made

    def storage(
        self, data: dict[str, Any] | None, service: TrainingService | list[TrainingService]
    ) -> SharedStorage | None:
        """What all hosts have in common."""
        if data is None:
            return None
        before = len(self.errors)
        known = self.section("shared_storage", data, STORAGE, {})
        if "storage_type" not in known:
            if ("shared_storage", "storage_type") not in self.places and "storage_type" not in self.meant:
                self.wrong(self.place("shared_storage"), "storage_type is missing; allowed: NFS, AzureBlob")
            return None
        if "local_mount_point" in known:
            known["local_mount_point"] = str(self.path(known["local_mount_point"]))
        found = SharedStorage(**known)
        if len(self.errors) == before:
            platforms = [one.platform for one in ([service] if isinstance(service, TrainingService) else service)]
            unable = [one for one in platforms if one not in ("local", "remote")]
            if unable:
                self.wrong(self.place("shared_storage"), f"not yet on the platform {unable[0]}; allowed: local, remote")
            elif found.is_mounted:
                self.mounts(found, platforms)
            else:
                self.blobs(found)
        return found

    def mounts(self, found: SharedStorage, platforms: list[str]) -> None:
        """Note what is missing for a directory that hosts mount."""

        def needs(name: str, why: str) -> None:
            if getattr(found, name) is None and name not in self.meant:
                self.wrong(self.place("shared_storage"), f"{name} is missing; {why}")

        here = found.local_mounted != "nomount"
        if here:
            needs("local_mount_point", "it is where the storage is mounted on this host (or local_mounted = nomount)")
        elif "local" in platforms:
            at = self.place("shared_storage", "local_mounted")
            self.wrong(at, "found nomount, but trials run on this host too; allowed: usermount, tunemount")
        ours = found.local_mounted == "tunemount"
        if "remote" in platforms:
            needs("remote_mount_point", "it is where the storage is mounted on the machines")
            ours = ours or found.remote_mounted == "tunemount"
        if ours:
            needs("nfs_server", "it is the server's name or address, for mount (or *_mounted = usermount)")
            needs("exported_directory", "it is what the server exports, for mount (or *_mounted = usermount)")
        for name in ("storage_account_name", "storage_account_key", "connection_string", "container_name"):
            if getattr(found, name) is not None:
                self.wrong(self.place("shared_storage", name), "not used by NFS; allowed: to leave it out")

    def blobs(self, found: SharedStorage) -> None:
        """Note what is missing for blobs; what says how to mount is left alone, since nothing is mounted."""
        at = self.place("shared_storage")
        if found.container_name is None and "container_name" not in self.meant:
            self.wrong(at, "container_name is missing; it is the container that holds the experiment's blobs")
        if found.connection_string is None:
            for name in ("storage_account_name", "storage_account_key"):
                if getattr(found, name) is None and name not in self.meant:
                    self.wrong(at, f"{name} is missing; allowed: it, or a connection_string")
        elif found.storage_account_key is not None:
            self.wrong(at, "found storage_account_key and connection_string; allowed: one of them")
        mounts = [name for name in found.__struct_fields__ if "mount" in name]
        places = [("shared_storage", name) for name in [*mounts, "nfs_server", "exported_directory"]]
        given = [said(self.places[place]) for place in places if place in self.places]
        if given:
            self.notes.append(f"{', '.join(given)}: not used; no host mounts blobs, the engine carries them")

    def mode(self, given: str | None, tuner: Algorithm, objectives: Mapping[str, str] | None) -> str:
        """What is better, larger or smaller: the tuner's argument, the field, NNI's default for its file, maximize.

        With several objectives it is the first one's.
        """
        said_by_tuner = tuner.class_args.get("optimize_mode")
        if objectives:
            twice = "found beside objectives, which say it for each; allowed: one of them"
            if given is not None:
                self.wrong(self.place("optimize_mode"), twice)
            if said_by_tuner is not None and not tuner.is_users:
                self.wrong(self.place("tuner", "class_args", "optimize_mode"), twice)
            return next(iter(objectives.values()))
        if said_by_tuner is not None:
            try:
                chosen = CHECKS["optimize_mode"](said_by_tuner)
            except Wrong as wrong:
                if not tuner.is_users:
                    self.wrong(self.place("tuner", "class_args", "optimize_mode"), str(wrong))
                return given or "maximize"
            if given is not None and given != chosen:
                self.wrong(self.place("optimize_mode"), f"found {given}, but the tuner's class_args say {chosen}")
            return str(chosen)
        if given is not None:
            return given
        if self.is_nni:
            mode = _NNI_MODES.get(fold(tuner.name))
            if mode is not None:
                self.notes.append(
                    f"optimize_mode = {mode}: NNI's own default for {tuner.name}, since the file has none"
                )
                return mode
        return "maximize"

    def space(self, inline: dict[str, Any] | None, file: str | None) -> dict[str, Any] | None:
        """The search space, from here or from its own file."""
        given = [name for name in ("search_space", "search_space_file") if (name,) in self.places]
        if not given and self.meant & {"search_space", "search_space_file"}:
            return None
        if len(given) != 1:
            found = "both search_space and search_space_file are there" if given else "search_space is missing"
            self.wrong(self.place(given[1]) if given else (), f"{found}; allowed: search_space or search_space_file")
            return None
        if file is None:
            return inline
        path = self.path(file)
        try:
            source = read(path)
        except UsageError as error:
            self.wrong(self.place("search_space_file"), error.message)
            return None
        self.space_source = source
        if not is_table(source.data):
            self.wrong((), f"found {shown(source.data)}; allowed: a table of parameters", source)
            return None
        return dict(source.data)

    def leave_out(self, values: dict[str, Any]) -> None:
        """Take away what is accepted but has no place in a config, saying so."""
        values.pop("use_annotation", None)
        if values.pop("nni_manager_ip", None) is not None:
            self.notes.append("nni_manager_ip: not used (no trial ever connects to the engine's host by its address)")
        if values.pop("experiment_working_directory", None) is not None:
            name = said(self.place("experiment_working_directory"))
            self.notes.append(f"{name}: not used; set TUNE_HOME to keep experiments elsewhere")
        kind = values.pop("experiment_type", None)
        if kind is not None and kind != "hpo":
            self.wrong(self.place("experiment_type"), f"found {shown(kind)}: not yet; allowed: hpo")

    # -- paths ----------------------------------------------------------------------------------------------------
    def path(self, text: str) -> Path:
        """An absolute path; a relative one is under the file's folder."""
        try:
            return (self.base / Path(text).expanduser()).absolute()
        except RuntimeError:  # ~nobody
            return self.base / text

    def folder(self, text: str) -> str:
        """The trials' code folder."""
        path = self.path(text)
        if not path.is_dir():
            what = "is no folder" if path.exists() else "doesn't exist"
            self.wrong(self.place("trial_code_directory"), f"{path} {what}; allowed: a folder that exists")
        return str(path)

    def interpreter(self, text: str | None) -> str | None:
        """An absolute path of the trials' Python: a path, a command's name, or the folder of an environment."""
        if text is None:
            return None
        path = self.path(text) if "/" in text or text.startswith("~") else Path(shutil.which(text) or self.path(text))
        if (path / "bin" / "python").is_file():
            path = path / "bin" / "python"
        if not path.is_file() or not os.access(path, os.X_OK):
            self.wrong(self.place("python"), f"{path} is no program; allowed: a Python interpreter or its environment")
        return str(path)

    # -- plug-ins -------------------------------------------------------------------------------------------------
    def resolved(self, config: Config) -> Config:
        """Check plug-ins and space, and write the plug-ins' names as they are written."""
        if not Path(config.trial_code_directory).is_dir():
            self.wrong(self.place("trial_code_directory"), f"{config.trial_code_directory} is no folder")
        tuner, tuner_class = self.plugin("tuner", config.tuner)
        assessor = config.assessor and self.plugin("assessor", config.assessor)[0]
        mode = next(iter(config.objectives.values()), config.optimize_mode)
        config = msgspec.structs.replace(config, tuner=tuner, assessor=assessor, optimize_mode=mode)
        self.check_space(config, tuner_class)
        self.check_results(config, tuner_class)
        if not self.errors:
            self.check_initial(config)
        return config

    def plugin(self, kind: registry.Kind, chosen: Algorithm) -> tuple[Algorithm, type[Any] | None]:
        """The tuner or assessor with its name as it is written, and its class unless that is the user's own."""
        if chosen.is_users:
            problem = registry.user_class_problem(chosen.code_directory, chosen.class_name)
            if problem is not None:
                field = "code_directory" if not Path(chosen.code_directory).is_dir() else "class_name"
                self.wrong(self.place(kind, field), problem)
            return chosen, None
        try:
            name, cls = registry.find(kind, chosen.name)
        except UsageError as error:
            self.wrong(self.place(kind, "name"), f"{error.message}; {error.hint}" if error.hint else error.message)
            return chosen, None
        for problem in registry.check_arguments(cls, chosen.class_args):
            argument, _, text = problem.partition(": ")
            self.wrong(self.place(kind, "class_args", argument), text)
        if not self.errors:
            try:
                registry.build(cls, chosen.class_args)
            except Exception as error:  # whatever a constructor finds wrong is wrong with its arguments
                self.wrong(self.place(kind, "class_args"), str(error) or type(error).__name__)
        return msgspec.structs.replace(chosen, name=name), cls

    def check_space(self, config: Config, cls: type[Any] | None) -> None:
        """The rules of the search space and its constraints, and what this tuner can't search.

        `cls` is None for a class of the user's own: it may have a space in its own words, on which nobody can check
        constraints.
        """
        from .points import unmet
        from .space import SpaceError, parse

        if cls is None and not config.constraints:
            return
        at, before = self.place("constraints"), len(self.errors)
        try:
            space = parse(config.search_space)
            names = {param.name for param in space.params}
            for index, text in enumerate(config.constraints):
                self.condition((*at, index), text, names)
            if config.constraints and len(self.errors) == before:
                space = parse(config.search_space, config.constraints)
        except SpaceError as error:
            for text in error.errors:
                if text.startswith("constraints: "):
                    self.wrong(at, text.removeprefix("constraints: "))
                else:
                    self.space_wrong(text)
            return
        if len(self.errors) > before:
            return
        refuse = getattr(cls, "refuse", None)
        reason = refuse(space) if callable(refuse) else None
        if reason:
            self.space_wrong(f"{config.tuner.title} can't search this space: {reason}")
        elif config.constraints and (why := unmet(space)) is not None:
            self.wrong(at, why)

    def condition(self, place: Place, text: str, names: Collection[str] | None) -> None:
        """Note what is wrong with a condition on these names; None: on any."""
        from .constraints import ConstraintError, parse

        try:
            parse(text, names)
        except ConstraintError as error:
            self.wrong(place, str(error))

    def check_results(self, config: Config, cls: type[Any] | None) -> None:
        """The conditions on results, and whether this tuner takes several objectives."""
        for index, text in enumerate(config.outcome_constraints):
            self.condition((*self.place("outcome_constraints"), index), text, None)
        if not config.objectives or cls is None or getattr(cls, "multi_objective", False):
            return
        able = ", ".join(filter(_takes_several, registry.names("tuner"))) or "none is installed"
        self.wrong(
            self.place("objectives"),
            f"{config.tuner.name} takes one objective only; tuners that take several: {able}",
        )

    def check_initial(self, config: Config) -> None:
        """The parameters of the first trials: points of the space, no more than there may be trials."""
        from .points import gate

        if not config.initial_parameters:
            return
        why_not = gate(config)
        for index, parameters in enumerate(config.initial_parameters):
            reason = why_not(parameters)
            if reason is not None:
                self.wrong((*self.place("initial_parameters"), index), f"outside the search space: {reason}")
        for name in ("max_trial_number", "max_phase_number"):
            most: int | None = getattr(config, name)
            if most is not None and len(config.initial_parameters) > most:
                found = f"found {len(config.initial_parameters)}; allowed: {most}, since {name} is {most}"
                self.wrong(self.place("initial_parameters"), found)

    def space_wrong(self, text: str) -> None:
        """Note an error of the space at its parameter, whose name comes first in the text."""
        source, above = self.space_source or self.source, Place()
        if self.space_source is None:
            above = self.place("search_space")
        parameter = re.split(r"[:./\[ ]", text, maxsplit=1)[0].strip("'\"`")
        before = f"{source.at((*above, parameter))}: " if source is not None else ""
        self.errors.append(f"{before}search_space: {text}")


def _machine_name(fields: Mapping[str, Any], others: list[dict[str, Any]]) -> str:
    """What tells a machine from the others: its host, with the port or the user where that is needed."""
    name = str(fields["host"])
    same = [other for other in others if other["host"] == name]
    if same and fields.get("port", 22) != 22:
        name = f"{name}:{fields['port']}"
        same = [other for other in same if other.get("port", 22) == fields["port"]]
    elif same:
        same = [other for other in same if other.get("port", 22) == 22]
    return f"{fields['user']}@{name}" if same and "user" in fields else name


def _takes_several(tuner: str) -> bool:
    try:
        return bool(getattr(registry.find("tuner", tuner)[1], "multi_objective", False))
    except UsageError:  # what can't be imported here can't be recommended
        return False


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
