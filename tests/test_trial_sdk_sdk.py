"""The SDK's functions: stand-alone, and in a launch folder with and without a keeper. Each test is its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tune import trial_sdk
from tune.trial_sdk import spool
from tune.trial_sdk.wire import Report


def python(script, env=None):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "NNI_"))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=clean | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def launch(tmp_path):
    """The environment of a trial whose keeper is not there."""
    folder = tmp_path / "trials" / "t1" / "2"
    folder.mkdir(parents=True)
    (folder / "parameters.json").write_text('{"phase":4,"parameters":{"lr":0.1,"n":[1,{"a":"Infinity"}]}}')
    return {
        "TUNE_LAUNCH_DIR": str(folder),
        "TUNE_SOCKET": str(tmp_path / "nobody"),
        "TUNE_EXPERIMENT_ID": "exp",
        "TUNE_TRIAL_ID": "t1",
        "TUNE_TRIAL_NUMBER": "5",
        "TUNE_ATTEMPT": "2",
        "TUNE_OUTPUT_DIR": str(tmp_path / "trials" / "t1"),
    }


def reports(launch):
    return [spool.parse(path.read_bytes()) for path in sorted(Path(launch["TUNE_LAUNCH_DIR"]).glob("*.spool"))]


def test_stand_alone():
    done = python(
        """
        from tune.trial_sdk import *
        print(get_current_parameter(), get_next_parameter(), get_next_parameters(), get_current_parameter())
        print(get_experiment_id(), get_trial_id(), get_sequence_id(), get_attempt(), should_stop())
        report_intermediate_result(0.5)
        report_intermediate_result({"default": float("nan")})
        report_final_result(1)
        """
    )
    assert done.stdout.splitlines() == [
        "None {} {} {}",
        "STANDALONE STANDALONE 0 0 False",
        "Intermediate result: 0.5  (Index 0)",
        'Intermediate result: {"default":"NaN"}  (Index 1)',
        "Final result: 1",
    ]
    assert done.stderr.count("RuntimeWarning") == 1


def test_stand_alone_refuses_what_a_trial_would():
    done = python("from tune.trial_sdk import *\nreport_final_result(2**64)")
    assert done.returncode == 1 and "ValueError: an integer of 65 bits" in done.stderr


def test_without_a_keeper_everything_is_in_the_spool(launch):
    done = python(
        """
        from tune.trial_sdk import *
        report_intermediate_result(0)
        print(get_next_parameter())
        print(get_next_parameter() is get_next_parameter(), get_current_parameter("lr"))
        print(get_experiment_id(), get_trial_id(), get_sequence_id(), get_attempt(), get_output_dir()[-2:])
        for i in range(1, 4): report_intermediate_result(i)
        report_final_result({"default": 4, "x": "y"})
        print(should_stop())
        """,
        launch,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "{'lr': 0.1, 'n': [1, {'a': 'Infinity'}]}",
        "False 0.1",
        "exp t1 5 2 t1",
        "False",
    ]
    assert reports(launch) == [
        [
            Report(1, "I", 0, "0"),  # before get_next_parameter: phase 0
            Report(2, "I", 4, "1"),
            Report(3, "I", 4, "2"),
            Report(4, "I", 4, "3"),
            Report(5, "F", 4, '{"default":4,"x":"y"}'),
        ]
    ]


def test_checkpoint_folders_are_where_the_trial_finds_them(launch, tmp_path):
    parameters = Path(launch["TUNE_LAUNCH_DIR"]) / "parameters.json"
    script = """
        import os
        from tune.trial_sdk import *
        p = get_next_parameter()
        print(p["load_checkpoint_dir"], p["save_checkpoint_dir"], p is get_current_parameter())
        print(os.path.isdir(p["load_checkpoint_dir"]), os.path.isdir(p["save_checkpoint_dir"]))
        """
    env = launch | {"TUNE_CHECKPOINT_DIR": f"{tmp_path}/checkpoints"}
    shared = tmp_path / "shared"
    for load, save, expected in (
        ("checkpoints/7", "checkpoints/12", (f"{tmp_path}/checkpoints/7", f"{tmp_path}/checkpoints/12")),
        (f"{shared}/0-1", f"{shared}/0-2", (f"{shared}/0-1", f"{shared}/0-2")),
    ):
        given = {"load_checkpoint_dir": load, "save_checkpoint_dir": save, "TRIAL_BUDGET": 3}
        parameters.write_text(json.dumps({"phase": 0, "parameters": given}))
        done = python(script, env)
        assert done.stdout.splitlines() == [f"{expected[0]} {expected[1]} True", "False True"], done.stderr
    for value in ('"warm"', '"checkpoints/"', '"checkpoints/.."', '"checkpoints/a/b"', "3"):  # somebody's own values
        parameters.write_text('{"phase":0,"parameters":{"load_checkpoint_dir":' + value + "}}")
        done = python("from tune.trial_sdk import *\nprint(get_next_parameter()['load_checkpoint_dir'])", env)
        assert done.stdout.strip() == value.strip('"')


def test_a_refused_value_costs_nothing(launch):
    done = python(
        """
        from tune.trial_sdk import *
        for value in (2**64, object(), "x" * 2**20):
            try:
                report_intermediate_result(value)
            except ValueError:
                print("refused")
        report_intermediate_result(1)
        """,
        launch,
    )
    assert done.stdout == "refused\n" * 3
    assert reports(launch) == [[Report(1, "I", 0, "1")]]


def test_multi_phase_waits_with_a_timeout_and_asks_once(launch):
    done = python(
        """
        from tune.trial_sdk import *
        print(get_next_parameter()["lr"])
        for _ in range(3):
            try:
                get_next_parameter(timeout=0.02)
            except TimeoutError as error:
                print(error)
        """,
        launch | {"TUNE_MULTI_PHASE": "1"},
    )
    assert done.stdout.splitlines() == ["0.1", *["no parameters yet"] * 3]
    assert reports(launch) == [[Report(1, "R", 4, "")]]


def test_an_attempt_that_begins_with_the_next_phase_asks_for_it(launch):
    """Its phases all had a final when the attempt before it was stopped: the launch knows no parameters yet."""
    Path(launch["TUNE_LAUNCH_DIR"], "parameters.json").write_text('{"phase":-1,"parameters":{}}')
    done = python(
        """
        from tune.trial_sdk import *
        for _ in range(2):
            try:
                get_next_parameter(timeout=0.02)
            except TimeoutError as error:
                print(error, get_current_parameter())
        """,
        launch | {"TUNE_MULTI_PHASE": "1"},
    )
    assert done.stdout.splitlines() == ["no parameters yet None"] * 2, done.stderr
    assert reports(launch) == [[Report(1, "R", 0, "")]]


def test_forked_and_threaded_reports_without_a_keeper(launch):
    done = python(
        """
        import os, threading
        from tune.trial_sdk import *
        get_next_parameter()
        report_intermediate_result(0)
        if not os.fork():
            report_intermediate_result("child")
            os._exit(0)
        os.wait()
        def work():
            for i in range(100): report_intermediate_result(i)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
        launch,
    )
    assert done.stderr == ""
    child, parent = sorted(reports(launch), key=len)
    assert child == [Report(1, "I", 4, '"child"')]
    assert [r.number for r in parent] == list(range(1, 402))


def test_a_report_from_a_signal_handler(launch):
    done = python(
        """
        import os, signal
        from tune.trial_sdk import *
        signal.signal(signal.SIGUSR1, lambda *_: report_final_result("handler"))
        report_intermediate_result(1)
        os.kill(os.getpid(), signal.SIGUSR1)
        report_intermediate_result(2)
        """,
        launch,
    )
    assert done.stderr == ""
    assert [r.value for r in reports(launch)[0]] == ["1", '"handler"', "2"]


def test_should_stop_takes_over_sigterm_in_the_main_thread_only(launch):
    done = python(
        """
        import os, signal, threading
        from tune.trial_sdk import *
        thread = threading.Thread(target=should_stop); thread.start(); thread.join()
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        print(should_stop())
        os.kill(os.getpid(), signal.SIGTERM)
        print(should_stop(), should_stop())
        """,
        launch,
    )
    assert done.stdout.split() == ["True", "False", "True", "True"]


def test_a_trial_that_never_asks_dies_of_term(launch):
    done = python("import os, signal\nfrom tune.trial_sdk import *\nos.kill(os.getpid(), signal.SIGTERM)", launch)
    assert done.returncode == -15


def test_what_a_trial_imports_is_little(launch):
    done = python(
        """
        import sys
        from tune.trial_sdk import *
        get_next_parameter()
        print(*sys.modules)
        report_final_result(1)
        print(*sys.modules)
        """,
        launch,
    )
    # What the interpreter's own start (an editable install's hook) and msgspec import is not ours.
    bare = set(python("import sys, msgspec; print(*sys.modules)").stdout.split())
    first, later = (set(line.split()) - bare for line in done.stdout.splitlines())
    assert not first & {"asyncio", "threading", "logging", "json", "pathlib", "socket", "signal", "subprocess"}
    assert not later & {"asyncio", "threading", "logging", "json", "pathlib", "numpy", "subprocess"}


def test_all_names_are_there():
    for name in trial_sdk.__all__:
        assert callable(getattr(trial_sdk, name))
    assert not hasattr(trial_sdk, "nothing")
