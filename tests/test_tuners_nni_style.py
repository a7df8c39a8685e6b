"""tuners/nni_style.py: classes in NNI's style, as the engine sees them."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest

import tune.nni as nni
from tune.engine.config import Config
from tune.engine.plugins import (
    Ask,
    Ended,
    Exhausted,
    Imported,
    Observation,
    Reported,
    SpaceChanged,
    Stopped,
    Suggested,
    Suggestion,
    TrialEnded,
    Wait,
)
from tune.engine.space import Space
from tune.tuners.nni_style import NniAdvisor, NniAssessor, NniStyle, NniTuner


def config(**fields: Any) -> Config:
    return Config(search_space={"x": [1, 100]}, trial_command="true", trial_code_directory="/", **fields)


def ask(number: int, trial: int | None = None, phase: int = 0, trial_id: str = "", attempt: int = 0) -> Ask:
    return Ask(number, attempt, number - 1 if trial is None else trial, trial_id, phase, Space({}, ()), 0, 7)


def begun(seq: int, trial: int, parameters: Any, number: int | None = None, phase: int = 0) -> Suggested:
    origin = "user" if number is None else "tuner"
    return Suggested(seq, trial, phase, parameters, f"t{trial:04}", number, origin)


class Told(nni.Tuner):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.none_left = False

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
        self.told.append(("generate", parameter_id, kwargs))
        if self.none_left:
            raise nni.NoMoreTrialError("empty")
        return {"x": parameter_id}

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        self.told.append(("result", parameter_id, parameters, value, kwargs))

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        self.told.append(("end", parameter_id, success, kwargs))

    def update_search_space(self, search_space: Any) -> None:
        self.told.append(("space", search_space))

    def import_data(self, data: Any) -> None:
        self.told.append(("import", data))


def fed(theirs: Any, *facts: Observation, **fields: Any) -> NniTuner:
    made = NniTuner(theirs, config(**fields))
    for fact in facts:
        made.observe(fact)
    return made


def test_a_tuner_hears_nnis_calls_in_their_order() -> None:
    theirs = Told()
    made = fed(theirs)
    assert made.suggest(ask(1)) == Suggestion({"x": 0})
    for fact in (
        begun(5, 0, {"x": 0}, 1),
        Ended(9, 0, 0, "completed", 0.5, raw='{"default":0.5,"loss":[1,2]}'),
        TrialEnded(11, 0, "SUCCEEDED"),
        Imported(12, {"x": 3}, 1.5),
        SpaceChanged(13, 1, {"y": 1}),
    ):
        made.observe(fact)
    assert theirs.told == [
        ("space", {"x": [1, 100]}),
        ("generate", 0, {"trial_job_id": None}),
        ("result", 0, {"x": 0}, {"default": 0.5, "loss": [1, 2]}, {"customized": False, "trial_job_id": "t0000"}),
        ("end", 0, True, {"trial_job_id": "t0000"}),
        ("import", [{"parameter": {"x": 3}, "value": 1.5}]),
        ("space", {"y": 1}),
    ]


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        (Ended(9, 0, 0, "failed", None, raw='"NaN"'), math.nan),
        (Ended(9, 0, 0, "failed", None, raw='{"loss":1}'), {"loss": 1}),
        (Ended(9, 0, 0, "stopped", 0.25), 0.25),
        (Ended(9, 0, 0, "failed", None), None),
        (Ended(9, 0, 0, "cancelled", None), None),
    ],
)
def test_what_was_reported_reaches_it_whatever_it_is(fact: Ended, value: Any) -> None:
    theirs = Told()
    fed(theirs, begun(5, 0, {"x": 0}, 1), fact, TrialEnded(10, 0, "FAILED"))
    results = [told[3] for told in theirs.told if told[0] == "result"]
    assert repr(results) == repr([] if value is None else [value])
    assert theirs.told[-1][:3] == ("end", 0, False)


def test_a_method_gets_only_the_keywords_that_it_takes() -> None:
    class Plain:
        """The signatures of NNI's tutorial on weight sharing, and no base class."""

        def generate_parameters(self, parameter_id):
            return {"id": parameter_id}

        def receive_trial_result(self, parameter_id, parameters, reward):
            self.got = (parameter_id, parameters, reward)

    theirs = Plain()
    assert NniStyle.adapter("tuner", Plain) is NniTuner
    made = fed(theirs)
    assert made.suggest(ask(3)) == Suggestion({"id": 2})
    made.observe(begun(4, 2, {"id": 2}, 3))
    made.observe(Ended(5, 2, 0, "completed", 1.0, raw="1"))
    made.observe(TrialEnded(6, 2, "SUCCEEDED"))
    assert theirs.got == (2, {"id": 2}, 1)


def test_a_multi_phase_tuner_knows_which_trial_asks() -> None:
    class Phases(nni.MultiPhaseTuner):
        def generate_parameters(self, parameter_id: int, trial_job_id: str | None = None) -> Any:
            return {"id": parameter_id, "by": trial_job_id}

        def receive_trial_result(self, parameter_id, parameters, value, trial_job_id):
            self.got = (parameter_id, value, trial_job_id)

    theirs = Phases()
    made = fed(theirs)
    assert made.suggest(ask(1)) == Suggestion({"id": 0, "by": None})
    made.observe(begun(4, 0, {"id": 0}, 1))
    made.observe(Ended(5, 0, 0, "completed", 1.0, raw="1"))
    assert theirs.got == (0, 1, "t0000")
    assert made.suggest(ask(2, 0, 1, "t0000")) == Suggestion({"id": 1, "by": "t0000"})
    made.observe(begun(7, 0, {"id": 1}, 2, 1))
    made.observe(Ended(8, 0, 1, "completed", 2.0, raw="2"))
    assert theirs.got == (1, 2, "t0000")


def test_no_more_is_not_yet_while_something_runs() -> None:
    theirs = Told()
    made = fed(theirs, begun(5, 0, {"x": 0}, 1))
    theirs.none_left = True
    assert made.suggest(ask(2)) == Wait("empty")
    assert made.suggest(ask(3, 0, 1, "t0000")) == Exhausted("empty", trial=True)
    made.observe(Ended(9, 0, 0, "completed", 0.5, raw="0.5"))
    assert made.suggest(ask(2, attempt=1)) == Exhausted("empty")


def test_a_real_nnis_no_more_trial_error_counts_too() -> None:
    other = type("NoMoreTrialError", (Exception,), {})

    class Theirs(Told):
        def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
            raise other

    assert fed(Theirs()).suggest(ask(1)) == Exhausted("NoMoreTrialError")


def test_parameters_may_come_by_the_callback_later() -> None:
    class Later(Told):
        def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> Any:
            self.send, self.wanted = kwargs["st_callback"], parameter_id_list
            return []

        def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
            self.send(self.wanted[0], {"x": value})

    made = fed(Later(), begun(5, 0, {"x": 0}, 1))
    assert isinstance(made.suggest(ask(2)), Wait)
    made.observe(Ended(9, 0, 0, "completed", 0.5, raw="0.5"))
    assert made.suggest(ask(2, attempt=1)) == Suggestion({"x": 0.5})


@pytest.mark.parametrize("way", ["nothing", "accepts", "overrides"])
def test_results_of_trials_queued_by_hand(way: str) -> None:
    class Overrides(Told):
        def receive_customized_trial_result(self, parameter_id, parameters, value):
            self.told.append(("customized", parameter_id, parameters, value))

    theirs = Overrides() if way == "overrides" else Told()
    if way == "accepts":
        theirs.accept_customized_trials()
    fed(theirs, begun(5, 4, {"x": 8}), Ended(9, 4, 0, "completed", 1.0, raw="1"), TrialEnded(10, 4, "SUCCEEDED"))
    more = {"customized": True, "trial_job_id": "t0004"}
    end = ("end", -5, True, {"trial_job_id": "t0004"})
    assert (
        theirs.told[1:]
        == {
            "nothing": [],
            "accepts": [("result", -5, {"x": 8}, 1, more), end],
            "overrides": [("customized", -5, {"x": 8}, 1), end],
        }[way]
    )


def test_the_global_generators_are_those_of_the_request() -> None:
    class Draws(Told):
        def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
            return {"x": random.random(), "y": float(np.random.random())}

    one, two = fed(Draws()), fed(Draws())
    first = one.suggest(ask(1))
    random.random()
    assert two.suggest(ask(1)) == first != two.suggest(ask(2))


def test_what_is_no_dict_is_refused() -> None:
    class Wrong(Told):
        def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
            return [1]

    with pytest.raises(TypeError, match=r"the parameters are \[1\]; allowed: a dict"):
        fed(Wrong()).suggest(ask(1))


class Judge(nni.Assessor):
    def __init__(self, opinions: list[Any]) -> None:
        self.opinions, self.told = opinions, list[Any]()

    def assess_trial(self, trial_job_id: str, trial_history: list[float]) -> Any:
        self.told.append((trial_job_id, trial_history))
        opinion = self.opinions.pop(0)
        if isinstance(opinion, Exception):
            raise opinion
        return opinion

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        self.told.append((trial_job_id, success))


def test_an_assessor_is_asked_with_the_history_and_hears_of_the_end() -> None:
    theirs = Judge([nni.AssessResult.Good, True, False, nni.AssessResult.Bad, "perhaps", ValueError("no")])
    made = NniAssessor(theirs, config())
    made.observe(begun(1, 0, {}, 1))
    verdicts: list[Any] = [made.verdict(0)]
    for step, value in enumerate([1.0, 2.0, 3.0, 4.0]):
        made.observe(Reported(2 + step, 0, 0, step, value))
        verdicts.append(made.verdict(0))
    bad = [Stopped("assessed as bad after 3 results"), Stopped("assessed as bad after 4 results")]
    assert verdicts == [None, None, None, *bad]
    assert theirs.told[-1] == ("t0000", [1.0, 2.0, 3.0, 4.0])
    made.observe(Reported(7, 0, 0, 0, 5.0))  # a retry begins anew
    assert theirs.told[-1] == ("t0000", [5.0])
    with pytest.raises(TypeError, match="assess_trial gave 'perhaps'"):
        made.verdict(0)
    made.observe(Reported(8, 0, 0, 1, 5.0))  # raises when the verdict is asked for, not in a rebuild
    with pytest.raises(ValueError, match="no"):
        made.verdict(0)
    made.observe(TrialEnded(9, 0, "EARLY_STOPPED"))
    assert theirs.told[-1] == ("t0000", False) and made.verdict(0) is None


class Advisor(nni.MsgDispatcherBase):
    """Hyperband's manner: ids of its own, more trials than asked for, a kill, a trial that comes later."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def handle_initialize(self, data: Any) -> None:
        self.told.append(("initialize", data))
        self.send(nni.CommandType.Initialized, "")

    def handle_request_trial_jobs(self, data: int) -> None:
        self.told.append(("request", data))
        if len(self.told) == 2:
            for name in ("a_0", "a_1"):
                new = {"parameter_id": name, "parameter_source": "algorithm", "parameters": {"name": name}}
                nni.send(nni.CommandType.NewTrialJob, json.dumps(new))
        else:
            self.send(nni.CommandType.NoMoreTrialJobs, json.dumps({"parameter_id": "1_0_1", "parameters": ""}))

    def handle_report_metric_data(self, data: Any) -> None:
        self.told.append(("metric", data))
        if data["type"] == "PERIODICAL":
            self.send(nni.CommandType.KillTrialJob, json.dumps(data["trial_job_id"]))
        elif data["type"] == "REQUEST_PARAMETER":
            more = {"x": 1} if data["parameter_index"] == 1 else ""
            answer = {"parameter_id": "b", "parameters": more, "trial_job_id": data["trial_job_id"]}
            self.send(nni.CommandType.SendTrialJobParameter, answer)

    def handle_trial_end(self, data: Any) -> None:
        self.told.append(("end", data))

    def handle_add_customized_trial(self, data: Any) -> None:
        self.told.append(("add", data))

    def handle_import_data(self, data: Any) -> None:
        self.told.append(("import", data))

    def handle_update_search_space(self, data: Any) -> None:
        self.told.append(("space", data))


def test_an_advisor_is_told_and_says_by_nnis_messages() -> None:
    theirs = Advisor()
    assert NniStyle.adapter("tuner", Advisor) is NniAdvisor
    made = NniAdvisor(theirs, config())
    assert made.suggest(ask(1)) == Suggestion({"name": "a_0"})
    made.observe(begun(3, 0, {"name": "a_0"}, 1))
    assert made.suggest(ask(2)) == Suggestion({"name": "a_1"})  # it had sent two
    made.observe(begun(4, 1, {"name": "a_1"}, 2))
    assert isinstance(made.suggest(ask(3)), Wait)
    assert isinstance(made.suggest(ask(3, attempt=1)), Wait)
    assert [told for told in theirs.told if told[0] == "request"] == [("request", 1)] * 3
    assert made.verdict(0) is None
    made.observe(Reported(5, 0, 0, 0, 0.5))
    metric = {"parameter_id": "a_0", "trial_job_id": "t0000", "type": "PERIODICAL", "sequence": 0, "value": "0.5"}
    assert theirs.told[-1] == ("metric", metric)
    assert made.verdict(0) == Stopped("the advisor ended it") and made.verdict(1) is None
    made.observe(Ended(6, 0, 0, "completed", 2.0, raw='{"default":2}'))
    assert theirs.told[-1][1] == {**metric, "type": "FINAL", "value": '{"default": 2}'}
    made.observe(TrialEnded(7, 0, "SUCCEEDED"))
    kind, event = theirs.told[-1]
    assert (kind, event["event"], json.loads(event["hyper_params"])["parameter_id"]) == ("end", "SUCCEEDED", "a_0")
    assert made.suggest(ask(4, 1, 1, "t0001")) == Suggestion({"x": 1})
    made.observe(begun(8, 1, {"x": 1}, 4, 1))
    assert made.suggest(ask(5, 1, 2, "t0001")) == Exhausted("the advisor has no more for this trial", trial=True)
    made.observe(begun(9, 2, {"q": 1}))
    assert theirs.told[-1] == ("add", {"parameter_id": -3, "parameters": {"q": 1}})
    made.observe(Imported(10, {"q": 1}, 2.0))
    assert theirs.told[-1] == ("import", [{"parameter": {"q": 1}, "value": 2.0}])
    made.observe(SpaceChanged(11, 1, {"z": 1}))
    assert theirs.told[-1] == ("space", {"z": 1})
    for trial in (1, 2):
        made.observe(TrialEnded(12, trial, "FAILED"))
    assert made.suggest(ask(6)) == Exhausted("the advisor says that there is no more")


def test_a_class_of_another_kind_is_none_of_this_style() -> None:
    assert NniStyle.adapter("tuner", int) is None and NniStyle.adapter("assessor", Told) is None
    assert NniStyle.adapter("assessor", Judge) is NniAssessor
