"""engine/config.py, config_file.py, config_load.py: what a config file may say, and how a wrong one is answered."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.engine import config_fields, config_file, config_load, registry
from tune.engine.config import Config, decode, encode, seconds, size
from tune.engine.errors import TuneError, UsageError
from tune.training_services.local import Local

SPACE = {"lr": {"_type": "uniform", "_value": [0.0, 1.0]}}


class Fake:
    """A tuner that stands for a built-in one, so that these tests need none."""

    def __init__(self, *, optimize_mode: str = "maximize", gamma: float = 0.25, n: int | None = None) -> None:
        if gamma > 1:
            raise ValueError(f"gamma is {gamma}; allowed: at most 1")

    def suggest(self, ask: Any) -> None: ...
    def observe(self, fact: Any) -> None: ...


class FakeStop:
    def observe(self, fact: Any) -> None: ...
    def verdict(self, trial: int) -> None: ...


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known plug-ins: a tuner TPE and an assessor Medianstop."""
    known: dict[str, dict[str, Any]] = {"tuner": {"TPE": Fake}, "assessor": {"Medianstop": FakeStop}}

    def find(kind: str, name: str) -> tuple[str, Any]:
        for right, cls in known[kind].items():
            if registry.fold(right) == registry.fold(name):
                return right, cls
        raise UsageError(f"unknown {kind} {name!r}", "allowed: " + ", ".join(known[kind]))

    monkeypatch.setattr(registry, "find", find)
    monkeypatch.setattr(registry, "names", lambda kind: ["Local"] if kind == "training_service" else list(known[kind]))


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def made(**fields: Any) -> Config:
    return config_load.from_mapping({"search_space": SPACE, "trial_command": "true", **fields}, Path.cwd())[0]


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        config_load.load(path)
    assert caught.value.exit_code == 2
    return caught.value.message.replace(str(path.parent) + "/", "")


def wrong(**fields: Any) -> str:
    with pytest.raises(UsageError) as caught:
        made(**fields)
    return caught.value.message


TOML = """
experiment_name = "digits"   # a comment
trial_command = "python train.py"
trial_concurrency = 2
max_trial_number = 10
max_experiment_duration = "1.5h"
seed = 7

[tuner]
name = "tpe"
class_args = { optimize_mode = "minimize", gamma = 1 }

[assessor]
name = "Median_Stop"

[search_space]
lr = { _type = "loguniform", _value = [1e-4, 0.1] }
[search_space.features]
_type = "choice"
_value = [128, 256]
"""
YAML = """
experimentName: digits
trialCommand: python train.py
trial_concurrency: 2
maxTrialNumber: 10
maxExperimentDuration: 1.5h
seed: 7
tuner:
  name: TPE
  classArgs:
    optimize_mode: minimize
    gamma: 1
assessor: {name: medianstop}
searchSpace:
  lr: {_type: loguniform, _value: [1e-4, 0.1]}
  features:
    _type: choice
    _value: [128, 256]
"""


def test_toml_and_yaml_mean_the_same(tmp_path: Path) -> None:
    config, notes = config_load.load(write(tmp_path, "config.toml", TOML))
    assert notes == []
    assert config_load.load(write(tmp_path, "config.yml", YAML)) == (config, [])
    assert config.tuner.name == "TPE" and config.assessor and config.assessor.name == "Medianstop"
    assert config.optimize_mode == "minimize"
    assert config.trial_code_directory == str(tmp_path)
    assert list(config.search_space) == ["lr", "features"]
    assert config.search_space["lr"]["_value"] == [1e-4, 0.1]
    assert (config.stop_grace, config.engine_lease, config.max_failures, config.max_retries) == ("10s", "40m", 3, 0)


def test_json_config_is_taken_too(tmp_path: Path) -> None:
    data = {"trialCommand": "true", "SEARCH_space": SPACE, "max_trial_number": 3}
    config, _ = config_load.load(write(tmp_path, "c.json", json.dumps(data)))
    assert config.max_trial_number == 3


def test_defaults_and_the_drawn_seed() -> None:
    config, notes = config_load.from_mapping({"search_space": SPACE, "trial_command": "true"}, Path.cwd())
    assert config.tuner.name == "TPE" and config.assessor is None and config.trial_concurrency == 1
    assert config.optimize_mode == "maximize" and config.training_service.platform == "local"
    assert 0 <= config.seed < 2**31
    assert any("until it is stopped" in note for note in notes)
    assert made(seed=0).seed == 0


def test_encode_round_trips_and_is_canonical() -> None:
    config = made(seed=1, assessor={"name": "medianstop"}, max_silence=90)
    assert decode(encode(config)) == config
    assert encode(decode(encode(config))) == encode(config)
    assert config.max_silence == "90s"
    assert json.loads(encode(config))["max_retries"] == 0  # defaults are written out
    for garbage in (b"{}", b"[1]", b"\xff", b"[" * 100_000):
        with pytest.raises(ValueError, match="not a config"):
            decode(garbage)


V1 = """
authorName: nni
experimentName: naive
trialConcurrency: 3
maxExecDuration: 1h
maxTrialNum: 10
trainingServicePlatform: local
searchSpacePath: search_space.json
useAnnotation: false
multiPhase: true
multiThread: false
tuner:
  codeDir: .
  classFileName: naive_tuner.py
  className: NaiveTuner
  classArgs: {optimize_mode: maximize}
assessor: {codeDir: ., classFileName: naive_assessor.py, className: NaiveAssessor}
trial: {command: python3 naive_trial.py,
  codeDir: ., gpuNum: 0}
localConfig: {maxTrialNumPerGpu: 2, gpuIndices: "0,1"}
"""


def test_nni_1x_file_is_translated(tmp_path: Path) -> None:
    write(tmp_path, "search_space.json", '{"x": [1, 100]}')  # any space is right for a user's own tuner
    write(tmp_path, "naive_tuner.py", "raise SystemExit('must not be imported here')")
    write(tmp_path, "naive_assessor.py", "")
    config, notes = config_load.load(write(tmp_path, "local.yml", V1))
    assert config.trial_command == "python3 naive_trial.py"
    assert config.search_space == {"x": [1, 100]}
    assert (config.max_trial_number, config.max_experiment_duration, config.multi_phase) == (10, "1h", True)
    assert (config.tuner.class_name, config.tuner.code_directory) == ("naive_tuner.NaiveTuner", str(tmp_path))
    assert config.assessor and config.assessor.class_name == "naive_assessor.NaiveAssessor"
    assert config.training_service.max_trial_number_per_gpu == 2 and config.training_service.gpu_indices == [0, 1]
    assert notes == [
        "authorName: not used (NNI dropped it too)",
        "max_trial_number_per_gpu: not used without trial_gpu_number",
    ]


def test_nni_v2_file_of_a_users_tuner(tmp_path: Path) -> None:
    write(tmp_path, "naive_tuner.py", "")
    path = write(
        tmp_path,
        "v2.yml",
        "searchSpace: {x: [1, 100]}\ntrialCommand: a\ntrialGpuNumber: 0\nmaxTrialNumber: 2\nassessor: null\n"
        "tuner: {codeDirectory: ., className: naive_tuner.NaiveTuner, classArgs: {optimize_mode: maximize}}\n"
        "trainingService: {platform: local, useActiveGpu: false}\n",
    )
    config, notes = config_load.load(path)
    assert config.tuner.is_users and not notes and config.training_service.use_active_gpu is False


def test_multi_thread_is_for_a_users_tuner(tmp_path: Path) -> None:
    write(tmp_path, "naive_tuner.py", "")
    text = "searchSpace: {x: [1, 100]}\ntrialCommand: a\nmaxTrialNumber: 2\nmultiThread: true\n"
    theirs = f"{text}tuner: {{codeDirectory: ., className: naive_tuner.NaiveTuner}}\n"
    config, notes = config_load.load(write(tmp_path, "theirs.yml", theirs))
    assert config.multi_thread and not notes
    ours = text.replace("[1, 100]", "{_type: uniform, _value: [0, 1]}")
    config, notes = config_load.load(
        write(tmp_path, "ours.yml", f"{ours}optimizeMode: maximize\ntuner: {{name: TPE}}\n")
    )
    assert config.multi_thread and notes == ["multi_thread: not used by TPE, whose answers wait for no trial"]


def test_nni_own_default_of_optimize_mode_is_written_in(tmp_path: Path) -> None:
    text = "trialCommand: a\nmaxTrialNumber: 2\ntuner: {name: TPE}\nsearchSpace: {lr: {_type: uniform, _value: [0, 1]}}"
    config, notes = config_load.load(write(tmp_path, "a.yml", text))
    assert config.optimize_mode == "minimize" and "NNI" in notes[0]
    snake = text.replace("trialC", "trial_c").replace("maxTrialN", "max_trial_n").replace("searchS", "search_s")
    assert config_load.load(write(tmp_path, "b.yml", snake))[0].optimize_mode == "maximize"


def test_advisor_is_folded_into_the_tuner() -> None:
    assert made(advisor={"builtinAdvisorName": "TPE"}).tuner.name == "TPE"
    assert "advisor" in wrong(advisor={"name": "TPE"}, tuner={"name": "TPE"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trial_comand = 'x'\nsearch_space = {}", "c.toml:1: trial_comand: unknown field; did you mean trial_command?"),
        ("a = 1\nb = = 2", "c.toml:2: not TOML:"),
        ("trial_concurrency = -1", "c.toml:1: trial_concurrency: found -1; allowed: an integer, 1 to 99999"),
        ("\n\nmax_trial_number = true", "c.toml:3: max_trial_number: found true; allowed: an integer, 1 or more"),
        ("max_trial_number = '3'", "max_trial_number: found '3'; allowed: an integer"),
        ("max_experiment_duration = '5 parsecs'", "found '5 parsecs'; allowed: a number and s, m, h or d"),
        ("max_trial_duration = '0s'", "allowed: more than 0"),
        ("stop_grace = -1", "stop_grace: found -1"),
        ("debug = 1", "debug: found 1; allowed: true or false"),
        ("[tuner]\nnme = 'TPE'", "c.toml:2: tuner.nme: unknown field; did you mean name?"),
        ("[tuner]\nname = 'TPX'", "tuner.name: unknown tuner 'TPX'; allowed: TPE"),
        ("tuner = 'TPE'", "tuner: found 'TPE'; allowed: a table of fields"),
        ("[tuner]\nname = 'TPE'\n[tuner.class_args]\ngama = 1", "c.toml:4: tuner.class_args.gama: unknown argument"),
        ("[tuner]\nname = 'TPE'\nclass_args = { n = 1.5 }", "tuner.class_args.n: found 1.5"),
        ("[tuner]\nname = 'TPE'\nclass_args = { gamma = 2 }", "gamma is 2; allowed: at most 1"),
        ("[tuner]\nname = 'TPE'\nclass_args.optimize_mode = 'max'", "found 'max'; allowed: maximize, minimize"),
        ("[tuner]\nclass_name = 'x.Y'\ncode_directory = 'no'", "c.toml:3: tuner.code_directory: the folder"),
        ("[tuner]\nclass_name = 'x.Y'", "tuner.class_name: there is no module x.py"),
        ("[tuner]\ncode_directory = '.'", "found without class_name"),
        ("[assessor]\nname = 'x'", "unknown assessor"),
        ("trial_code_directory = 'gone'", "trial_code_directory: "),
        ("trial_gpu_number = -1", "trial_gpu_number: found -1; allowed: an integer, 0 to 1024"),
        (
            "trial_gpu_number = 2\ntraining_service = { platform = 'local', gpu_indices = [3] }",
            "trial_gpu_number: found 2; allowed: at most 1, since gpu_indices allows no host more",
        ),
        ("multi_thread = 1", "multi_thread: found 1; allowed: true or false"),
        ("use_annotation = true", "use_annotation: found true: not yet"),
        ("training_service = { platform = 'kubeflow' }", "found 'kubeflow': not yet; allowed: local"),
        ("training_service = { platform = 'loco' }", "found 'loco': unknown platform; allowed: local"),
        (
            "shared_storage = { storage_type = 'NFZ' }",
            "storage_type: found 'NFZ'; allowed: nfs, azureblob",
        ),
        ("shared_storage = { nfs_server = 'x' }", "shared_storage: storage_type is missing"),
        ("shared_storage = { storage_type = 'NFS' }", "shared_storage: local_mount_point is missing"),
        (
            "shared_storage = { storage_type = 'NFS', local_mounted = 'nomount' }",
            "shared_storage.local_mounted: found nomount, but trials run on this host too",
        ),
        (
            "shared_storage = { storage_type = 'NFS', local_mount_point = 'x', local_mounted = 'tunemount' }",
            "shared_storage: nfs_server is missing",
        ),
        (
            "[shared_storage]\nstorage_type = 'NFS'\nexported_directory = 'x'",
            "exported_directory: found 'x'",
        ),
        ("[shared_storage]\nstorage_type = 'NFS'\nnfs_server = '-o x'", "shared_storage.nfs_server: found '-o x'"),
        ("[shared_storage]\nstorage_type = 'AzureBlob'", "container_name is missing"),
        ("[shared_storage]\nstorage_type = 'AzureBlob'\ncontainer_name = 'X'", "container_name: found 'X'; allowed: 3"),
        (
            "[shared_storage]\nstorage_type = 'AzureBlob'\ncontainer_name = 'abc'\nstorage_account_name = 'a'",
            "storage_account_key is missing; allowed: it, or a connection_string",
        ),
        (
            "[shared_storage]\nstorage_type = 'AzureBlob'\nstorage_account_key = 'c2VjcmV0'",
            "storage_account_key: found it written out",
        ),
        ("log_level = 'inof'", "did you mean info?"),
        ("python = 'no/such/python'", "python: "),
        ("seed = 99999999999999999999", "seed: the integer needs more than 64 bits"),
        ("tuner_gpu_indices = '0,x'", "tuner_gpu_indices: found '0,x'"),
        ("search_space_file = 'x.json'\nsearch_space = {}", "both search_space and search_space_file"),
        ("optimize_mode = inf", "optimize_mode: inf is no finite number"),
    ],
)
def test_bad_fields_are_named_with_file_line_and_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    rest = {"trial_command": "'true'", "search_space": "{ lr = { _type = 'uniform', _value = [0, 1] } }"}
    missing = [f"{name} = {value}" for name, value in rest.items() if name not in text and "comand" not in text]
    if text.startswith("["):  # tables end a file: what is missing comes before them, on the line that they start at
        message = refused(write(tmp_path, "c.toml", "\n".join([*missing, text])))
        shift = len(missing)
        said = re.sub(r"(?<=c\.toml:)\d+", lambda line: str(int(line[0]) + shift), said)
    else:
        message = refused(write(tmp_path, "c.toml", "\n".join([text, *missing])))
    assert said in message


def test_all_errors_come_at_once_and_none_is_said_twice(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "c.toml", "trial_comand = 'x'\nmax_retries = -1\nsearch_spce = {}\n"))
    assert len(message.splitlines()) == 3  # the misspelt ones are not missing as well


def test_required_fields() -> None:
    with pytest.raises(UsageError, match=r"trial_command is missing"):
        config_load.from_mapping({"search_space": SPACE}, Path.cwd())
    with pytest.raises(UsageError, match=r"search_space is missing"):
        config_load.from_mapping({"trial_command": "x"}, Path.cwd())
    assert "empty" in wrong(trial_command="  ")


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("c.toml", b"a = 1\nb = '\xff'", "c.toml:2: not text"),
        ("c.yml", b"a: 1\nb: \0", "c.yml:2: not text"),
        ("c.yml", b"a: [1\nb: 2", "c.yml:2: not YAML"),
        ("c.yml", b"a: 1\na: 2", "c.yml:2: a: the key is there twice"),
        ("c.yml", b"a: !!python/object:os.system x", "the tag"),
        ("c.yml", b"a: &x [1]\nb: *x", "c.yml:2: the alias *x"),
        ("c.yml", b"- 1", "allowed: a table of fields"),
        ("c.yml", b"", "allowed: a table of fields"),
        ("c.json", b'{"a": 1,\n"a": 2}', "the key 'a' is there twice"),
        ("c.json", b'{"a": NaN}', "NaN is no JSON number"),
        ("c.json", b'{\n"a": }', "c.json:2: not JSON"),
        ("c.json", b'{"a": "\\ud800"}', "half a character"),
        ("c.ini", b"a", "allowed: .toml, .yaml, .yml, .json"),
    ],
)
def test_files_that_can_not_be_read(tmp_path: Path, name: str, raw: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(raw)
    assert said in refused(tmp_path / name)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "no.toml")
    assert "is a folder" in refused(tmp_path)


def test_search_space_errors_name_parameter_and_line(tmp_path: Path) -> None:
    space = '{\n"lr": {"_type": "uniform", "_value": [1, 0]},\n"b": {"_type": "chioce", "_value": [1]}\n}'
    write(tmp_path, "s.json", space)
    message = refused(write(tmp_path, "c.toml", "trial_command = 'x'\nsearch_space_file = 's.json'"))
    first, second = message.splitlines()
    assert first.startswith("s.json:2: search_space: lr") and second.startswith("s.json:3: search_space: b")
    inline = "trial_command = 'x'\n[search_space]\nlr = { _type = 'uniform', _value = [1, 0] }"
    assert refused(write(tmp_path, "d.toml", inline)).startswith("d.toml:3: search_space: lr")
    assert "there is no file" in refused(write(tmp_path, "e.toml", "trial_command='x'\nsearch_space_file='no.json'"))


RICH = """
trial_command = "true"
constraints = [
  "batch * width <= 4096",
  "not (opt == 'sgd' and lr > 0.5)",
]
outcomeConstraints = ["latency <= 10"]
initial_parameters = [
  { batch = 8, width = 16, opt = "sgd", lr = 0.1 },
]
[objectives]
accuracy = "MAXIMIZE"
latency = "minimize"
[tuner]
name = "Several"
[search_space]
batch = { _type = "choice", _value = [8, 64] }
width = { _type = "randint", _value = [1, 100] }
opt = { _type = "choice", _value = ["sgd", "adam"] }
lr = { _type = "uniform", _value = [0, 1] }
"""


class Several(Fake):
    multi_objective = True


@pytest.fixture
def several(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more known tuner, which takes several objectives."""
    known = {"several": ("Several", Several), "tpe": ("TPE", Fake)}
    monkeypatch.setattr(registry, "find", lambda kind, name: known[registry.fold(name)])
    monkeypatch.setattr(registry, "names", lambda kind: ["Local"] if kind == "training_service" else ["Several", "TPE"])
    monkeypatch.setattr(registry, "tuner_class", lambda name: known[registry.fold(name)][1])


@pytest.mark.usefixtures("several")
def test_constraints_objectives_and_first_trials(tmp_path: Path) -> None:
    config, notes = config_load.load(write(tmp_path, "c.toml", RICH + "[training_service]\nplatform = 'local'"))
    assert config.constraints == ["batch * width <= 4096", "not (opt == 'sgd' and lr > 0.5)"]
    assert (config.outcome_constraints, config.optimize_mode) == (["latency <= 10"], "maximize")
    assert list(config.objectives.items()) == [("accuracy", "maximize"), ("latency", "minimize")]
    assert config.initial_parameters == [{"batch": 8, "width": 16, "opt": "sgd", "lr": 0.1}]
    assert decode(encode(config)) == config and len(notes) == 1
    swapped = RICH.replace('accuracy = "MAXIMIZE"\nlatency = "minimize"', 'latency = "minimize"\naccuracy = "maximize"')
    assert config_load.load(write(tmp_path, "d.toml", swapped))[0].optimize_mode == "minimize"
    assert config_load.resolve(config) == config
    by_hand = msgspec.structs.replace(config, optimize_mode="minimize")  # in Python nobody says it twice
    assert config_load.resolve(by_hand).optimize_mode == "maximize"


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"batch *',
            '"bacth *',
            "c.toml:3: constraints[0]: 'bacth * width <= 4096' names 'bacth'; allowed: batch, lr,",
        ),
        ("lr > 0.5)", "lr.x > 0.5)", "c.toml:3: constraints[1]: \"not (opt == 'sgd' and lr.x > 0.5)\" holds 'lr.x'"),
        ("<= 4096", "<= 4", "c.toml:3: constraints: none of 10000 random points of the search space meets the"),
        ("<= 10", "<= ", "c.toml:7: outcomeConstraints[0]: 'latency <= ' can't be read: "),
        (
            '["latency <= 10"]',
            "'latency <= 10'",
            "c.toml:7: outcomeConstraints: found 'latency <= 10'; allowed: a list",
        ),
        ('["latency <= 10"]', "[3]", "c.toml:7: outcomeConstraints[0]: found 3; allowed: text"),
        (
            "MAXIMIZE",
            "maximise",
            "c.toml:12: objectives.accuracy: found 'maximise'; allowed: maximize, minimize; did you",
        ),
        ('accuracy = "MAXIMIZE"', "", "objectives: found 1 objective; allowed: two or more"),
        ("[objectives]\n", "[objectives]\n[unknown]\n", "objectives: found no objective"),
        (
            "[objectives]\n",
            "optimize_mode = 'minimize'\n[objectives]\n",
            "c.toml:11: optimize_mode: found beside objectives",
        ),
        (
            '"Several"',
            '"several"\nclass_args = {optimize_mode="minimize"}',
            "class_args.optimize_mode: found beside obj",
        ),
        ('"Several"', '"TPE"', "objectives: TPE takes one objective only; tuners that take several: Several"),
        ("lr = 0.1", "lr = 7", "c.toml:8: initial_parameters[0]: outside the search space: lr: 7.0 is not in"),
        ("lr = 0.1", "lr = 0.7", "c.toml:8: initial_parameters[0]: outside the search space: the constraint"),
        ("initial_parameters = [", "initial_parameters = [3,", "initial_parameters[0]: found 3; allowed: a table"),
    ],
)
def test_what_constraints_and_objectives_can_not_be(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert RICH.count(old) == 1
    assert said in refused(write(tmp_path, "c.toml", RICH.replace(old, new)))


def test_a_condition_in_yaml_has_its_own_line(tmp_path: Path) -> None:
    text = "trialCommand: x\nsearchSpace: {lr: {_type: uniform, _value: [0, 1]}}\nconstraints:\n- lr < 1\n- rl < 1\n"
    assert "c.yaml:5: constraints[1]: 'rl < 1' names 'rl'" in refused(write(tmp_path, "c.yaml", text))


@pytest.mark.usefixtures("several")
def test_there_are_no_more_first_trials_than_trials() -> None:
    two = [{"lr": 0.25}, {"lr": 0.5}]
    assert made(initial_parameters=two, max_trial_number=2).initial_parameters == two
    for name in ("max_trial_number", "max_phase_number"):
        said = f"initial_parameters: found 2; allowed: 1, since {name} is 1"
        assert said in wrong(initial_parameters=two, **{name: 1})


def test_a_users_tuner_has_constraints_on_a_space_that_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "class Tuner: ...")
    tuner = {"class_name": "mine.Tuner", "code_directory": str(tmp_path)}
    assert made(tuner=tuner, search_space={"own": [1, 2]}).constraints == []
    assert made(tuner=tuner, constraints=["lr < 0.5"]).constraints == ["lr < 0.5"]
    assert "names 'rl'" in wrong(tuner=tuner, constraints=["rl < 0.5"])
    assert "search_space: own" in wrong(tuner=tuner, search_space={"own": [1, 2]}, constraints=["own < 3"])
    assert "the constraint" in wrong(tuner=tuner, constraints=["lr < 0.5"], initial_parameters=[{"lr": 0.75}])
    assert made(tuner=tuner, initial_parameters=[{"any": 1}]).initial_parameters == [{"any": 1}]


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "space.yaml").write_text("lr: {_type: uniform, _value: [0, 1e-3]}")
    path = write(
        tmp_path, "c.toml", "trial_command='x'\nsearch_space_file='code/space.yaml'\ntrial_code_directory='code'"
    )
    monkeypatch.chdir("/")
    config, _ = config_load.load(path)
    assert config.trial_code_directory == str(tmp_path / "code")
    assert config.search_space["lr"]["_value"] == [0, 1e-3]


def test_python_may_be_an_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert made(python=str(tmp_path)).python == str(tmp_path / "bin" / "python")
    assert made(python=sys.executable).python == sys.executable


def test_resolve_checks_a_config_made_in_python(tmp_path: Path) -> None:
    config = Config(search_space=SPACE, trial_command="x", trial_code_directory=str(tmp_path))
    assert config_load.resolve(config) == config
    with pytest.raises(UsageError, match="is no folder"):
        config_load.resolve(Config(search_space=SPACE, trial_command="x", trial_code_directory="/no/such"))


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=3e4, allow_nan=False), st.sampled_from("smhd"))
def test_durations(number: float, unit: str) -> None:
    text = f"{number:.6f}{unit}"
    assert math.isclose(seconds(text), float(f"{number:.6f}") * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit])


@pytest.mark.parametrize("text", ["", "5", "m", "-1s", "1e3s", "1y", "1.h", "٣s", "nan", "9" * 400 + "d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def test_sizes_and_numbers() -> None:
    assert (seconds(5), seconds("40m"), seconds("1.5H")) == (5.0, 2400.0, 5400.0)
    assert (size("2gb"), size("512 MB"), size(3)) == (2 << 30, 512 << 20, 3 << 20)
    with pytest.raises(ValueError, match="no size"):
        size("12")


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    )
)
def test_any_value_in_any_field_is_answered(value: Any) -> None:
    for name in config_fields.CHECKS:
        data = {"search_space": SPACE, "trial_command": "x", name: value}
        try:
            config, _ = config_load.from_mapping(data, Path("/"))
        except TuneError as error:
            assert error.exit_code == 2 and error.message
        else:
            assert decode(encode(config)) == config


@settings(deadline=None)
@given(st.text(alphabet="abc.=\"'[]{},#\n \\-1_", max_size=60), st.sampled_from([".toml", ".yaml", ".json"]))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_text(text, encoding="utf-8")
    try:
        config_file.read(path)
    except UsageError as error:
        assert str(path) in error.message


BOMBS = {
    "dots.toml": ".".join(["a"] * 32_000) + " = 1",
    "keys.toml": "\n".join(f"a{i}." + ".".join(["a"] * 31) + " = 1" for i in range(15_000)),
    "tables.toml": "\n".join(f"[a{i}." + ".".join(["a"] * 20) + "]" for i in range(15_000)),
    "nested.toml": "a = " + "[" * 500_000,
    "inline.toml": "a = " + "{a=" * 300_000,
    "values.toml": "a = [" + "1," * 500_000 + "]",
    "number.toml": "a = " + "9" * 1_000_000,
    "lines.toml": "\n" * 1_048_000,
    "comments.toml": "#\n" * 520_000,
    "text.toml": 'a = """' + '\\"""' * 250_000,
    "fields.toml": "\n".join(f"a{i} = 1" for i in range(24_000)),
    "fields.yaml": "\n".join(f"a{i}: 1" for i in range(24_000)),
    "alias.yaml": "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
    "nested.yaml": "[" * 1_000_000,
    "block.yaml": "- " * 500_000,
    "values.yaml": "[" + "1," * 500_000 + "]",
    "nested.json": "[" * 1_000_000,
    "values.json": "[" + "[]," * 300_000 + "1]",
    "escapes.json": '"\\' * 500_000,
    "large.json": " " * (1 << 20) + "{}",
}
GUARD = """
import pathlib, resource, sys
from tune.engine.config_load import UsageError, load
for name in sys.argv[1:]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    # far above what one takes (0.3 s), far below what a bomb that goes off takes (15 s): then it is the signal XCPU
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 6, 600))
    try:
        load(pathlib.Path(name))
    except UsageError as error:
        print(name, "refused")
status = pathlib.Path("/proc/self/status")
if status.exists():  # ru_maxrss would hold what the process that started this one took
    print(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_config_bombs_are_refused_before_they_go_off_and_within_100_mb(tmp_path: Path) -> None:
    names = [str(write(tmp_path, name, text)) for name, text in BOMBS.items()]
    done = subprocess.run([sys.executable, "-c", GUARD, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, most = done.stdout.split("\n")[:-1]
    assert lines == [f"{name} refused" for name in names]
    assert int(most) < 100 << 10  # KiB


# -- the TCP channel --------------------------------------------------------------------------------------------------
def service(**fields: Any) -> dict[str, Any]:
    return {"platform": "local", "channel": "tcp", "channel_address": "127.0.0.1", **fields}


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform local, which can be dialled."""
    monkeypatch.setattr(registry, "training_service_class", lambda name: Local)


def test_a_tcp_channel_is_off_unless_it_is_asked_for() -> None:
    where = made().training_services[0]
    assert (where.channel, where.channel_address, where.channel_port, where.channel_tls) == (None, None, 0, None)


@pytest.mark.usefixtures("dialled")
@pytest.mark.parametrize(
    ("address", "asked", "tls"),
    [
        ("127.0.0.1", None, False),
        ("127.8.8.8", None, False),
        ("::1", None, False),
        ("10.0.0.1", None, True),
        ("0.0.0.0", None, True),
        ("2001:db8::1", None, True),
        ("10.0.0.1", False, False),
        ("127.0.0.1", True, True),
    ],
)
def test_a_tcp_channel_is_under_tls_beyond_this_host_unless_that_is_refused(
    address: str, asked: bool | None, tls: bool
) -> None:
    fields = service(channel_address=address, channelPort=4000, **({} if asked is None else {"channel_tls": asked}))
    where = made(training_service=fields).training_services[0]
    assert (where.channel, where.channel_address, where.channel_port, where.secured) == ("tcp", address, 4000, tls)
    assert decode(encode(made(training_service=fields))).training_services == [where]


@pytest.mark.usefixtures("dialled")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (service(channel="udp"), "training_service.channel: found 'udp'; allowed: tcp"),
        ({"platform": "local", "channel": "tcp"}, "training_service.channel: channel_address is missing"),
        (
            service(channel_address="localhost"),
            "channel_address: found 'localhost'; allowed: an IP address of this host",
        ),
        (service(channel_address=1), "channel_address: found 1; allowed: text"),
        (service(channel_port=65536), "channel_port: found 65536; allowed: an integer, 0 to 65535"),
        (service(channel_tls="yes"), "channel_tls: found 'yes'; allowed: true or false"),
        ({"platform": "local", "channel_port": 80}, 'channel_port: not used without channel = "tcp"'),
        ({"platform": "local", "channel_tls": True}, 'channel_tls: not used without channel = "tcp"'),
    ],
)
def test_what_a_tcp_channel_can_not_be(fields: dict[str, Any], said: str) -> None:
    text = wrong(training_service=fields)
    assert said in text and len(text.splitlines()) <= 2, text


@pytest.mark.usefixtures("dialled")
def test_several_training_services_share_one_tcp_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.names
    monkeypatch.setattr(registry, "names", lambda kind: ["Local", "Far"] if kind == "training_service" else known(kind))
    same = made(training_service=[service(), service(platform="far")])
    assert [one.platform for one in same.training_services] == ["local", "far"]
    said = wrong(training_service=[service(), service(platform="far", channel_port=9)])
    assert "training_service: found several TCP channels; allowed: the same one for each" in said


def test_a_platform_that_knows_no_listener_has_no_tcp_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def __init__(self, folder: Path, *, lease: float, grace: float, lock: Path) -> None: ...

    monkeypatch.setattr(registry, "training_service_class", lambda name: Old)
    assert "channel: not yet on the platform local; allowed: to leave it out" in wrong(training_service=service())


def test_shared_storage_in_the_words_of_nni(tmp_path: Path) -> None:
    nfs = made(
        sharedStorage={
            "storageType": "NFS",
            "localMountPoint": str(tmp_path),
            "remoteMountPoint": "/mnt/tune/",
            "localMounted": "nnimount",
            "nfsServer": "10.0.0.3",
            "exportedDirectory": "/export",
        }
    )
    found = nfs.shared_storage
    assert found is not None and nfs.shares_files and decode(encode(nfs)) == nfs
    assert (found.local_mounted, found.remote_mounted, found.remote_mount_point) == (
        *("tunemount", "tunemount"),
        "/mnt/tune",
    )
    blobs, notes = config_load.from_mapping(
        {
            "search_space": SPACE,
            "trial_command": "true",
            "max_trial_number": 1,
            "sharedStorage": {
                "storageType": "AzureBlob",
                "localMounted": "nnimount",
                "storageAccountName": "account",
                "storageAccountKey": "env:KEY",
                "containerName": "trials",
            },
        },
        tmp_path,
    )
    assert blobs.shared_storage is not None and not blobs.shared_storage.is_mounted and blobs.shares_files
    assert any("sharedStorage.localMounted: not used" in note for note in notes)
    assert made().shares_files  # one host shares with itself
