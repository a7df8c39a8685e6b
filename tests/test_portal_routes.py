"""portal/routes.py: what each route answers, in the shape that is described, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import made_log
import msgspec
import pytest

from tune.engine import client, views
from tune.engine.export_file import render
from tune.engine.requests import AskImport, AskKill, AskStop, AskTrial, AskUpdate, PersonsRequest, Refused
from tune.portal import shapes
from tune.portal.app import make_app
from tune.portal.guard import MAX_BODY
from tune.portal.source import COLUMNS, Source


class Engine:
    """What the portal asks of an engine, in place of one."""

    def __init__(self) -> None:
        self.asked: list[PersonsRequest] = []
        self.refuses = ""

    async def ask(self, request: PersonsRequest) -> None:
        if self.refuses:
            raise Refused(self.refuses)
        self.asked.append(request)


class Portal:
    """The application without its wall, and whoever asks it."""

    def __init__(self, source: Source) -> None:
        self.source, self.engine = source, Engine()
        self.app: Any = make_app(source, 8080)

    def run_engine(self) -> None:
        """From now on an engine can be asked."""
        self.source._client = cast("client.Client", self.engine)

    async def ask(
        self, method: str, path: str, body: Any = None, query: str = "", chunks: list[bytes] | None = None
    ) -> tuple[int, Any]:
        sent = chunks if chunks is not None else [b"" if body is None else json.dumps(body).encode()]
        left = list(sent)
        messages: list[Any] = []

        async def receive() -> Any:
            if left:
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"version": "3.0"},
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"x"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
            "state": {},
        }
        await asyncio.wait_for(self.app(scope, receive, send), 30)
        data = b"".join(message.get("body", b"") for message in messages[1:])
        kind = dict(messages[0]["headers"])[b"content-type"]
        return messages[0]["status"], json.loads(data) if kind == b"application/json" else data

    async def get(self, path: str, query: str = "") -> Any:
        code, found = await self.ask("GET", path, query=query)
        assert code == 200, (path, query, code, found)
        return found

    async def refused(self, method: str, path: str, code: int, body: Any = None, query: str = "") -> str:
        """What a refusal says."""
        found, said = await self.ask(method, path, body, query)
        assert found == code and set(said) == {"error", "hint"}, (path, body, found, said)
        return said["error"]


def on(tmp_path: Path, do: Callable[[Portal], Awaitable[None]], trials: int = 4, **fields: Any) -> None:
    """Do something with the portal of a made experiment."""

    async def main() -> None:
        folder = await made_log.write(tmp_path, trials, **fields)
        source = Source(folder)
        try:
            await do(Portal(source))
        finally:
            source.close()

    asyncio.run(main())


SHAPES: dict[str, Any] = {
    "/api/status": shapes.Now,
    "/api/trials": shapes.Trials,
    "/api/trials/1": shapes.Trial,
    "/api/trials/1/why": shapes.Why,
    "/api/trials/1/log/stderr": shapes.Output,
    "/api/events": list[shapes.Event],
    "/api/verify": shapes.Verified,
    "/api/export": list[shapes.Exported],
    "/api/figures": list[shapes.FigureName],
    "/api/figures/history": shapes.Figure,
    "/api/notes": shapes.Notes,
    "/api/experiments": list[shapes.Status],
    "/api/compare?with=made": shapes.Compared,
}


def test_every_answer_has_the_shape_that_is_described_and_nothing_besides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))

    async def do(portal: Portal) -> None:
        for address, shape in SHAPES.items():
            found = await portal.get(*address.split("?"))
            assert found, address
            described = msgspec.to_builtins(msgspec.convert(found, shape))
            if shape is shapes.Figure:
                found.setdefault("note", "")
            assert described == found, address
        described_paths = {path.replace("{number}", "1") for path in portal.app.openapi_schema.to_schema()["paths"]}
        assert {address.partition("?")[0] for address in SHAPES} - described_paths == {
            "/api/figures/history",
            "/api/trials/1/log/stderr",
        }

    on(tmp_path, do)


def test_the_description_is_whole_and_where_programs_look_for_it(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        found = await portal.get("/openapi.json")
        assert found["openapi"].startswith("3.")
        routes = {
            (path_of(route.path), method.lower())
            for route in portal.app.routes
            for method in route.methods
            if route.path.startswith("/api/") and method in ("GET", "POST")
        }
        assert routes == {(path, method) for path, item in found["paths"].items() for method in item}
        assert len(routes) >= 20
        for path, item in found["paths"].items():
            for method, operation in item.items():
                responses = operation["responses"]
                good = responses["200" if method == "get" else "201"]
                [content] = good["content"].values()
                schema = content["schema"]
                assert schema.get("$ref") or schema["type"] in ("array", "object", "string"), (path, schema)
                for code in responses:
                    if code not in ("200", "201"):
                        [error] = responses[code]["content"].values()
                        assert error["schema"]["$ref"].endswith("Fault"), (path, code)
                assert {"401", "403", "421"} <= set(responses)
                if method == "post":
                    assert "schema" in operation["requestBody"]["content"]["application/json"]
                    assert {"400", "409", "413", "415"} <= set(responses)
                assert operation["summary"]

    on(tmp_path, do)


def path_of(path: str) -> str:
    """A route's path as the description writes it."""
    return "/".join(part.partition(":")[0] + "}" if part.startswith("{") else part for part in path.split("/"))


def test_the_status_has_what_the_command_line_says_of_it(tmp_path: Path) -> None:
    objectives = {"accuracy": "maximize", "time": "minimize"}

    async def plain(portal: Portal) -> None:
        found = await portal.get("/api/status")
        told = [
            "id",
            "name",
            "status",
            "engine_pid",
            "reason",
            "counts",
            "best",
            "log",
            "folder",
            "optimize_mode",
            "max_trial_number",
        ]
        assert list(found)[:14] == [*told, "trial_concurrency", "port", "pareto"]
        assert (found["pareto"], found["port"], found["best"]["trial"]) == (None, 8080, 3)
        before = await portal.get("/api/status", "at=6")
        assert (before["seq"], before["best"]) == (6, None)

    on(tmp_path, plain)

    async def several() -> None:
        async with made_log.begun(tmp_path, "two", objectives=objectives, tuner={"name": "NSGAII"}) as writer:
            for accuracy, seconds in ((0.9, 10), (0.5, 1), (0.4, 5)):
                writer.trial(reports=0, final={"accuracy": accuracy, "time": seconds})
        source = Source(writer.folder)
        found = await Portal(source).get("/api/status")
        source.close()
        assert found["best"] is None
        assert [one["trial"] for one in found["pareto"]] == [0, 1]
        msgspec.convert(found, shapes.Now)

    asyncio.run(several())


def test_one_trial_with_its_reasons_as_far_as_it_was_known_then(tmp_path: Path) -> None:
    async def main() -> None:
        async with made_log.begun(tmp_path) as writer:
            writer.trial(decision={"rule": "random"})
            middle = writer.seq
            writer.trial()
        source = Source(writer.folder)
        portal = Portal(source)
        one = await portal.get("/api/trials/0")
        assert [(why["phase"], why["decision"]) for why in one["why"]] == [(0, {"rule": "random"})]
        [phase] = (await portal.get("/api/trials/0/why"))["phases"]
        assert one["why"] == [
            {"phase": 0, "seen": phase["seen"], "parents": phase["parents"], "decision": phase["record"]}
        ]
        other = await portal.get("/api/trials/1/why")
        [phase] = other["phases"]
        assert phase["record"] is None and "tune why made 1" in phase["note"]  # no tuner is run for it here
        assert [end["status"] for end in other["ends"]] == ["SUCCEEDED"]
        assert (await portal.get("/api/trials/0/why", "at=7"))["ends"] == []
        assert await portal.refused("GET", "/api/trials/1/why", 404, query=f"at={middle}")
        for path in ("/api/trials/2", "/api/trials/2/why", "/api/trials/2/log/stdout"):
            assert "no trial 2" in await portal.refused("GET", path, 404)
        source.close()

    asyncio.run(main())


def test_what_can_be_changed_is_asked_of_the_engine(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        portal.run_engine()
        space = {"x": {"_type": "uniform", "_value": [0, 0.5]}}
        point = {"x": 0.25, "n": 5}
        for path, body in (
            ("/api/stop", {}),
            ("/api/trials/1/kill", {}),
            ("/api/trials", {"parameters": point}),
            ("/api/update", {"concurrency": 3, "max_trials": 9, "duration": "2h"}),
            ("/api/update", {"search_space": space}),
        ):
            code, said = await portal.ask("POST", path, body)
            assert (code, said) == (201, {"ok": True, "seq": portal.source.seq}), path
        actor = f"portal (pid {os.getpid()})"
        assert portal.engine.asked == [
            AskStop(actor),
            AskKill(actor, 1),
            AskTrial(actor, '{"x":0.25,"n":5}'),
            AskUpdate(actor, 3, 9, "2h"),
            AskUpdate(actor, search_space='{"x":{"_type":"uniform","_value":[0,0.5]}}'),
        ]
        portal.engine.refuses = "not now"
        assert await portal.refused("POST", "/api/stop", 409, {}) == "not now"

    on(tmp_path, do)


def test_what_cannot_be_is_refused_before_the_engine_hears_of_it(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        portal.run_engine()
        outside = {"x": 7, "n": 5}
        nested: Any = 1
        for _ in range(200):
            nested = [nested]
        for path, body, said in (
            ("/api/trials", {"parameters": outside}, "outside the search space"),
            ("/api/trials", {"parameters": {"x": 0.5}}, "outside the search space"),
            ("/api/trials", {"parameters": {"x": 0.5, "n": 2**70}}, ""),
            ("/api/trials", {"parameters": {"x": nested, "n": 1}}, "parameters: "),
            ("/api/trials", {"parameters": [1]}, ""),
            ("/api/trials", {}, ""),
            ("/api/import", [], ""),
            ("/api/import", [{"parameter": outside, "value": 1}], "all of them"),
            ("/api/import", [{"parameter": {}}], ""),
            ("/api/import", {}, ""),
            ("/api/update", {"concurrency": 0}, ""),
            ("/api/update", {"duration": "soon"}, "duration: "),
            ("/api/update", {"duration": "0s"}, "more than 0s"),
            ("/api/update", {"search_space": {"x": {"_type": "uniform", "_value": [2, 1]}}}, "search_space: "),
            ("/api/update", {"nonsense": 1}, ""),
            ("/api/stop", [], ""),
            ("/api/stop", {"force": "yes"}, ""),
            ("/api/trials/1/kill", {"force": True}, ""),
            ("/api/notes", {"text": "x" * (shapes.MAX_NOTES + 1)}, ""),
        ):
            assert said in await portal.refused("POST", path, 400, body), (path, body)
        assert portal.engine.asked == []

    on(tmp_path, do)


def test_an_import_says_how_many_of_what(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        portal.run_engine()
        good = [{"parameter": {"x": 0.5, "n": number}, "value": number / 10} for number in range(500)]
        bad = [{"parameter": {"x": 2, "n": 1}, "value": 1}] * 3
        odd = [{"parameter": {"x": 0.5, "n": 1}, "value": value} for value in ("NaN", None, {"loss": 1})]
        code, said = await portal.ask("POST", "/api/import", [*good, *bad, *odd])
        assert code == 201
        assert (said["imported"], said["outside"], said["without_number"]) == (503, 3, 3)
        assert len(portal.engine.asked) == 503
        first = portal.engine.asked[7]
        assert isinstance(first, AskImport) and (first.parameters, first.value) == ('{"x":0.5,"n":7}', "0.7")

    on(tmp_path, do)


def test_without_an_engine_nothing_can_be_changed(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        for path, body in (
            ("/api/stop", {}),
            ("/api/trials/1/kill", {}),
            ("/api/trials", {"parameters": {"x": 0.5, "n": 1}}),
            ("/api/update", {"max_trials": 9}),
            ("/api/import", [{"parameter": {"x": 0.5, "n": 1}, "value": 1}]),
        ):
            assert "no engine runs" in await portal.refused("POST", path, 409, body)

    on(tmp_path, do)


def test_a_body_that_does_not_say_how_long_it_is_has_an_end_too(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        portal.run_engine()
        code, said = await portal.ask("POST", "/api/notes", chunks=[b" " * (MAX_BODY // 2)] * 3)
        assert code == 413 and said["error"]
        code, said = await portal.ask("POST", "/api/trials", chunks=[b'{"parameters":' + b"[" * 100_000])
        assert code == 400 and said["error"]

    on(tmp_path, do)


@pytest.mark.parametrize(
    "path",
    ["/api/trials/x", "/api/nothing", "/static/nothing.js", "/static/..", "/static/app.py", "/api/figures/nothing"],
)
def test_what_is_not_there_is_not_there(path: str, tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        assert await portal.refused("GET", path, 404)

    on(tmp_path, do, 1)


def test_the_results_are_those_that_the_command_line_exports(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        rows = json.loads(views.to_json(views.rows(portal.source.state)))
        assert len(rows) == 4 and await portal.get("/api/export") == rows
        code, text = await portal.ask("GET", "/api/export/table")
        assert (code, text) == (200, render(views.rows(portal.source.state), "csv").encode())
        last = max(row.seq for row in portal.source.rows(0, None, 5000) if row.kind == "METRIC")
        assert len(await portal.get("/api/export", f"at={last - 1}")) == 3

    on(tmp_path, do)


def test_a_damaged_log_is_told(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        assert await portal.get("/api/verify") == {
            "ok": True,
            "events": portal.source.seq,
            "first_bad_seq": None,
            "reason": "",
        }
        with contextlib.closing(sqlite3.connect(portal.source.folder.events)) as log, log:
            [(guard,)] = log.execute("SELECT sql FROM sqlite_master WHERE name = 'event_update'")
            log.execute("DROP TRIGGER event_update")
            log.execute("UPDATE event SET wall_us = wall_us + 1 WHERE seq = 5")
            log.execute(guard)
        found = await portal.get("/api/verify")
        assert (found["ok"], found["events"], found["first_bad_seq"]) == (False, 4, 5)

    on(tmp_path, do)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/status", "at=0"),
        ("/api/status", "at=x"),
        ("/api/status", f"at={2**60}"),
        ("/api/events", "limit=0"),
        ("/api/events", "after=-1"),
        ("/api/trials/0/log/passwd", ""),
        ("/api/trials/0/log/stdout", "limit=1e9"),
        ("/api/compare", "with=../x"),
        ("/api/compare", ""),
    ],
)
def test_odd_questions_are_refused(path: str, query: str, tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        assert await portal.refused("GET", path, 400, query=query)

    on(tmp_path, do, 1)


def test_the_page_and_its_files_are_served(tmp_path: Path) -> None:
    async def do(portal: Portal) -> None:
        assert b"<!doctype html>" in (await portal.ask("GET", "/"))[1].lower()
        for name in ("app.js", "plotly.min.js"):
            code, found = await portal.ask("GET", f"/static/{name}")
            assert code == 200 and len(found) > 100

    on(tmp_path, do, 1)


def test_ten_thousand_trials_are_answered_right_and_compact(tmp_path: Path, record_property: Any) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 10_000)
        source = Source(folder)
        try:
            portal = Portal(source)
            began = time.perf_counter()
            found = await portal.get("/api/trials")
            took = time.perf_counter() - began
            size = len(json.dumps(found, separators=(",", ":")))
            record_property("seconds", round(took, 3))
            record_property("bytes", size)
            assert found["columns"] == list(COLUMNS) and len(found["rows"]) == 10_000
            assert size < 10_000 * 320  # a name of a column once, not 10,000 times
            view = client.View(folder)
            view.close()
            rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
            for number in (0, 1, 4_999, 9_999):
                row, one = rows[number], view.state.trial(number)
                assert (row["number"], row["id"], row["status"]) == (number, one.id, "SUCCEEDED")
                assert row["parameters"] == {"x": (number * 37 % 101) / 101, "n": number % 1000}
                assert row["final"] == row["value"] == (number * 53 % 997) / 997
                assert (row["intermediates"], row["phases"]) == (3, 1)
            assert [row["number"] for row in rows] == list(range(10_000))
            assert (await portal.get("/api/status"))["counts"]["SUCCEEDED"] == 10_000
        finally:
            source.close()

    asyncio.run(main())
