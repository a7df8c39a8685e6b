"""nni.py and tuners/_nni.py, _nni_alias.py: the names for code in NNI's style, also under NNI's own."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

import tune.nni as nni

CODE = """
import sys, tune.nni
tune.nni.install(); tune.nni.install()
import nni
from nni.tuner import Tuner
from nni.assessor import Assessor, AssessResult
from nni.multi_phase_tuner import MultiPhaseTuner
from nni.multi_phase.multi_phase_tuner import MultiPhaseTuner as Again
from nni.utils import OptimizeMode, extract_scalar_reward
from nni.runtime.msg_dispatcher_base import MsgDispatcherBase
from nni.runtime.protocol import CommandType, send
assert Tuner is tune.nni.Tuner and Again is MultiPhaseTuner is nni.MultiPhaseTuner
assert nni.get_next_parameters is tune.nni.get_next_parameter and nni.NoMoreTrialError
try:
    import nni.nothing
except ModuleNotFoundError as error:
    print(error)
"""


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_nnis_own_names_are_found_when_they_are_asked_for(tmp_path: Path) -> None:
    done = run(tmp_path, CODE)
    assert (done.returncode, done.stdout) == (0, "No module named 'nni.nothing'\n"), done.stderr
    assert run(tmp_path, "import tune.nni, nni").returncode == 1  # not unasked


def test_an_nni_that_is_there_wins(tmp_path: Path) -> None:
    (tmp_path / "nni").mkdir()
    (tmp_path / "nni" / "__init__.py").write_text("mine = True\n")
    done = run(tmp_path, "import tune.nni; tune.nni.install(); import nni; print(nni.mine); import nni.tuner")
    assert done.stdout == "True\n" and "No module named 'nni.tuner'" in done.stderr


def test_a_trial_needs_neither_engine_nor_numpy_for_it(tmp_path: Path) -> None:
    code = "import sys, tune.nni as nni; print(nni.get_next_parameter()); print([m for m in sys.modules if m in "
    code += "('numpy', 'asyncio', 'tune.engine')])"
    done = run(tmp_path, code)
    assert done.stdout == "{}\n[]\n"


def test_scalars() -> None:
    assert nni.extract_scalar_reward({"default": 3, "more": 1}) == 3 and nni.extract_scalar_reward(0.5) == 0.5
    assert nni.extract_scalar_history([1, {"default": 2}]) == [1, 2]
    with pytest.raises(RuntimeError, match="allowed: a number, or a dict whose key 'default' is one"):
        nni.extract_scalar_reward({"loss": 1})


def test_parameters_are_merged_with_their_types() -> None:
    base = Namespace(lr=0.1, layers=2, name=None)
    assert nni.merge_parameter(base, {"lr": 1, "name": "x"}) is base and (base.lr, base.name) == (1, "x")
    assert nni.merge_parameter({"a": 1}, {"a": 2}) == {"a": 2}
    with pytest.raises(ValueError, match="'b' is not among the base's: a"):
        nni.merge_parameter({"a": 1}, {"b": 2})
    with pytest.raises(TypeError, match="layers is int"):
        nni.merge_parameter(base, {"layers": 2.5})


def test_the_defaults_of_the_base_classes() -> None:
    class Mine(nni.Tuner):
        def generate_parameters(self, parameter_id, **kwargs):
            if parameter_id > 1:
                raise nni.NoMoreTrialError
            return {"id": parameter_id}

    assert Mine().generate_multiple_parameters([0, 1, 2, 3]) == [{"id": 0}, {"id": 1}]
    for method in (nni.Tuner().generate_parameters, nni.MultiPhaseTuner().generate_parameters):
        with pytest.raises(TypeError, match="no generate_parameters of its own"):
            method(0)
    with pytest.raises(RuntimeError, match="belongs to an advisor"):
        nni.send(nni.CommandType.NewTrialJob, "{}")
    assert nni.OptimizeMode("minimize") is nni.OptimizeMode.Minimize
