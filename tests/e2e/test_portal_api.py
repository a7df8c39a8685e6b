"""Requests made from /openapi.json against the real portal, with an engine and without: none of them makes it fail.

TUNE_REQUESTS (8) is how many of each kind are made for each route; they are the same ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from harness import Bench
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from visitor import Browser, interrupted, opened, started

EXAMPLES = int(os.environ.get("TUNE_REQUESTS", "8"))  # to each route, of each of three kinds
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
KNOWN: dict[str, dict[str, Any]] = {  # what is there: the rest of such a request is generated
    "GET /api/trials/{number}": {"path_parameters": {"number": 0}},
    "GET /api/trials/{number}/why": {"path_parameters": {"number": 1}},
    "GET /api/trials/{number}/log/{stream}": {"path_parameters": {"number": 0, "stream": "stdout"}},
    "GET /api/figures/{name}": {"path_parameters": {"name": "timeline"}},
    "POST /api/trials": {"body": {"parameters": {"x": 0.5, "n": 5}}},
    "POST /api/import": {"body": [{"parameter": {"x": 0.5, "n": 5}, "value": 1.5}]},
    "POST /api/trials/{number}/kill": {"path_parameters": {"number": 0}},
    "POST /api/update": {"body": {"concurrency": 2, "duration": "2h"}},
    "POST /api/notes": {"body": {"text": "seen"}},
}
LAST = ("/api/trials/{number}/kill", "/api/update", "/api/stop")  # with them an experiment can end


def harmless(case: Any) -> None:
    """No machine has room for 99,999 trials at a time; and nothing here may take long."""
    if case.path == "/api/update" and isinstance(case.body, dict):
        for name, most in (("concurrency", 3), ("max_trials", 9)):
            if isinstance(case.body.get(name), int):
                case.body[name] = min(case.body[name], most)


class Client:
    """Sends what is generated, and holds the answers against the description."""

    def __init__(self, browser: Browser, token: str) -> None:
        self.base = f"http://127.0.0.1:{browser.port}"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.schema = schemathesis.openapi.from_dict(browser.get("/openapi.json"))
        self.known = {**KNOWN, "GET /api/compare": {"query": {"with": browser.get("/api/status")["id"]}}}
        self.codes: dict[str, set[int]] = {}

    def operations(self) -> list[Any]:
        """All of them, those last with which an experiment can end."""
        found = [result.ok() for result in self.schema.get_all_operations()]
        return sorted(found, key=lambda one: LAST.index(one.path) if one.path in LAST else -1)

    def ask(self, case: Any) -> None:
        """Send one request and check its answer; of a stream only how it begins."""
        harmless(case)
        if case.path.endswith("stream"):
            sent = case.as_transport_kwargs(self.base)
            with self.session.request(**sent, stream=True, timeout=20) as response:
                self.note(case, response.status_code)
                assert response.status_code in (200, 400), (case.query, response.status_code)
                assert response.status_code == 400 or next(response.iter_content(6)) == b"retry:"
            return
        response = case.call(base_url=self.base, session=self.session, timeout=20)
        self.note(case, response.status_code)
        case.validate_response(response, checks=CHECKS)

    def note(self, case: Any, code: int) -> None:
        """Remember what came."""
        self.codes.setdefault(f"{case.method.upper()} {case.path}", set()).add(code)

    def all(self, operation: Any, alive: Callable[[], bool]) -> None:
        """Many requests of one route, good ones and bad ones; they end when the portal does."""
        route = f"{operation.method.upper()} {operation.path}"
        good, bad = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
        for mode, known in ((good, self.known.get(route, {})), (good, {}), (bad, {})):

            @hypothesis.settings(
                max_examples=EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(operation.as_strategy(generation_mode=mode, **known))
            def many(case: Any) -> None:
                if alive():
                    self.ask(case)

            try:
                many()
            except hypothesis.errors.Unsatisfiable:
                pass  # a route without parameters has no bad requests


@pytest.mark.timeout(300)
def test_no_request_makes_the_portal_fail_while_an_engine_runs(bench: Bench) -> None:
    experiment, browser = started(
        bench, trial_command=bench.fake(steps=100_000, sleep=0.05), trial_concurrency=2, max_trial_number=6
    )
    experiment.until(lambda state: state.counts["RUNNING"] == 2)
    client = Client(browser, "token")
    for operation in client.operations():
        client.all(operation, lambda: experiment.state().status == "RUNNING")
    codes = client.codes
    assert not [route for route, found in codes.items() if min(found) >= 300]
    assert all(code < 500 for found in codes.values() for code in found), codes
    assert len(codes) == len(client.operations()) >= 20
    log = experiment.folder.path / "portal.log"
    assert "a request failed" not in log.read_text()
    assert experiment.finish().status == "STOPPED"


@pytest.mark.timeout(300)
def test_no_request_makes_a_portal_fail_that_only_shows(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=2), max_trial_number=3)
    before = experiment.run()
    process = bench.spawn("view", experiment.id, "--port", "0")
    port, token = opened(process)
    client = Client(Browser(port, token), token)
    for operation in client.operations():
        client.all(operation, lambda: True)
    for route, codes in client.codes.items():
        assert all(code < 500 for code in codes), (route, codes)
        assert not route.startswith("POST") or min(codes) >= 400, (route, codes)
    assert "a request failed" not in (experiment.folder.path / "portal.log").read_text()
    assert interrupted(process) == 130
    assert experiment.state().seq == before.seq
