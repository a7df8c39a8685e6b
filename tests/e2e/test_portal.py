"""The web portal as a process beside the engine: opened by create, resume and view, followed, commanded, and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import made_certificate
from harness import Bench
from visitor import LINK, Browser, gone, interrupted, opened, started

from tune.engine import home
from tune.engine.client import Opening, start
from tune.engine.requests import AskStop
from tune.portal.app import make_app
from tune.portal.source import COLUMNS, Source


def test_create_prints_a_link_that_is_good_once(bench: Bench) -> None:
    path = bench.config_file(trial_command=bench.fake(steps=200, sleep=0.05), max_trial_number=1)
    process = bench.spawn("create", path, "--port", "0")
    port, token = opened(process)
    browser = Browser(port, token)
    status = browser.get("/api/status")
    assert (status["port"], status["readonly"]) == (port, False)
    assert json.loads(bench.tune("status", status["id"], "--json").stdout)["port"] == port
    assert browser.ask("GET", f"/?token={token}")[0] == 200  # who is in already is in
    browser.cookie = ""
    assert browser.ask("GET", f"/?token={token}")[0] == 401
    files = [file for file in Path(status["folder"]).rglob("*") if file.is_file() and not file.is_symlink()]
    assert not [file for file in files if token.encode() in file.read_bytes()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen = entry.read_bytes() + (entry.parent / "environ").read_bytes()
        except OSError:
            continue
        assert token.encode() not in seen
    assert interrupted(process) == 130
    assert gone(port)


def test_a_busy_port_starts_nothing(bench: Bench) -> None:
    path = bench.config_file(trial_command=bench.fake(), max_trial_number=1)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = bench.tune("create", path, "--port", port)
        assert (
            done.returncode == 2
            and "in use" in done.stderr
            and not (bench.home.exists() and list(bench.home.iterdir()))
        )
    assert bench.tune("create", path, "--port", "99999").returncode == 2


def test_beyond_this_machine_only_with_tls(bench: Bench) -> None:
    path = bench.config_file(trial_command=bench.fake(steps=1), max_trial_number=1)
    experiment = bench.experiment(trial_command=bench.fake(steps=1), max_trial_number=1)
    experiment.run()
    for verb, what in (("create", path), ("resume", experiment.id), ("view", experiment.id)):
        done = bench.tune(verb, what, "--port", "8080", "--host", "192.0.2.7")
        assert done.returncode == 2 and "ssh -L 8080:127.0.0.1:8080" in done.stderr, (verb, done.stderr)
        assert bench.tune(verb, what, "--host", "192.0.2.7").returncode == 2
    assert len(list(bench.home.iterdir())) == 1
    cert, key = made_certificate.made(bench.base, "127.0.0.2")
    given = ["--port", "0", "--host", "127.0.0.2", "--tls-cert", cert, "--tls-key", key, "--json"]
    status = json.loads(bench.tune("create", path, *given).stdout)
    assert status["status"] == "DONE" and status["url"].startswith(f"https://127.0.0.2:{status['port']}/?token=")


def test_json_has_port_and_url(bench: Bench) -> None:
    path = bench.config_file(trial_command=bench.fake(steps=1), max_trial_number=1)
    status = json.loads(bench.tune("create", path, "--port", "0", "--json").stdout)
    assert status["status"] == "DONE" and LINK.fullmatch(status["url"]) and f":{status['port']}/" in status["url"]


def test_view_serves_a_log_alone_until_ctrl_c(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=2), max_trial_number=2)
    experiment.run()
    process = bench.spawn("view", experiment.id, "--port", "0")
    browser = Browser(*opened(process))
    assert browser.get("/api/status")["readonly"] is True
    trials = browser.get("/api/trials")
    assert [row[0] for row in trials["rows"]] == [0, 1] and trials["columns"][0] == "number"
    assert browser.get("/api/trials/1")["status"] == "SUCCEEDED"
    for path, body in (("/api/stop", {}), ("/api/trials/1/kill", {}), ("/api/update", {"max_trials": 5})):
        assert browser.ask("POST", path, body)[0] == 409
    assert browser.ask("POST", "/api/notes", {"text": "x"})[0] == 409
    assert interrupted(process) == 130
    assert experiment.state().status == "DONE"


def test_what_a_page_can_do(bench: Bench) -> None:
    experiment, browser = started(bench, trial_command=bench.fake(steps=400, sleep=0.05), trial_concurrency=1)
    experiment.until(lambda state: state.counts["RUNNING"] == 1)
    assert browser.ask("POST", "/api/update", {"concurrency": 2, "max_trials": 9, "duration": "2h"})[0] == 201
    assert browser.ask("POST", "/api/trials", {"parameters": {"x": 0.25, "n": 5}})[0] == 201
    experiment.until(lambda state: state.counts["RUNNING"] == 2)
    assert browser.ask("POST", "/api/trials/0/kill", {})[0] == 201
    experiment.until(lambda state: state.counts["USER_CANCELED"] == 1)
    assert browser.ask("POST", "/api/trials/0/kill", {})[0] == 409
    results = [{"parameter": {"x": 0.5, "n": 1}, "value": 3.5}, {"parameter": {"x": 5, "n": 1}, "value": 1}]
    code, _, said = browser.ask("POST", "/api/import", results)
    counts = json.loads(said)
    assert (code, counts["imported"], counts["outside"], counts["without_number"]) == (201, 1, 1, 0)
    assert browser.get("/api/trials/0/why")["stops"][0]["by"] == "user"
    assert len(browser.get("/api/status")["hosts"][0]["trials"]) == 2
    assert browser.ask("POST", "/api/notes", {"text": "ein Versuch <b>"})[0] == 201
    assert browser.get("/api/notes") == {"text": "ein Versuch <b>"}
    status = browser.get("/api/status")
    assert (status["trial_concurrency"], status["max_trial_number"]) == (2, 9)
    kinds = [event["kind"] for event in browser.get("/api/events?limit=5000")]
    assert {"UPDATE", "KILL", "IMPORT"} <= set(kinds)
    for path, body in (
        ("/api/update", {"concurrency": 0}),
        ("/api/update", {"duration": "soon"}),
        ("/api/update", {"nonsense": 1}),
        ("/api/trials", {"parameters": [1]}),
        ("/api/trials", {"parameters": {"x": 5, "n": 5}}),
        ("/api/update", {"search_space": {"x": {"_type": "uniform", "_value": [1, 0]}}}),
        ("/api/import", []),
        ("/api/stop", []),
    ):
        code, _, said = browser.ask("POST", path, body)
        assert code == 400 and json.loads(said)["error"], (path, body)
    assert browser.ask("POST", "/api/stop", {"force": True})[0] == 201
    experiment.finish()
    assert experiment.state().status == "STOPPED"


def test_the_past_is_as_it_was(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=2), max_trial_number=3)
    experiment.run()
    process = bench.spawn("view", experiment.id, "--port", "0")
    browser = Browser(*opened(process))
    last = browser.get("/api/status")["seq"]
    counts = [len(browser.get(f"/api/trials?at={seq}")["rows"]) for seq in range(3, last + 1)]
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (0, 3)
    assert browser.get("/api/status?at=3")["status"] == "RUNNING"
    assert browser.ask("GET", f"/api/status?at={last + 1}")[0] == 404
    assert interrupted(process) == 130


def test_a_stream_misses_nothing_over_a_killed_engine_and_a_resume(bench: Bench) -> None:
    experiment, browser = started(
        bench, trial_command=bench.fake(steps=8, sleep=0.05), max_trial_number=8, trial_concurrency=2
    )
    seen: dict[int, Any] = {}
    last: int | None = None
    for message in browser.stream():
        last = message["id"]
        seen |= {row[0]: row for row in message["data"]["trials"]}
        if len(seen) >= 3:
            os.kill(experiment.pid, signal.SIGKILL)
            break
    facts = {message["id"] for message in browser.stream("/api/log/stream")}  # until the portal has ended
    assert gone(browser.port)
    with socket.create_server(("127.0.0.1", browser.port)) as listening:
        experiment.pid = start(experiment.folder, actor="test", portal=Opening(listening, "another"))
    done: Any = None
    for message in browser.stream(last=last):  # by the cookie of before
        assert message["id"] > (last or 0)
        last, done = message["id"], message["data"]["status"]
        seen |= {row[0]: row for row in message["data"]["trials"]}
        if done["status"] == "DONE":
            break
    assert done["status"] == "DONE"
    columns = list(COLUMNS)
    assert {number: row[columns.index("status")] for number, row in seen.items()} == dict.fromkeys(
        range(8), "SUCCEEDED"
    )
    experiment.finish()
    assert facts == set(range(1, max(facts) + 1))


def test_output_is_read_without_following_links(bench: Bench) -> None:
    experiment = bench.experiment(trial_command="echo hello; echo oops >&2; " + bench.fake(steps=1), max_trial_number=1)
    state = experiment.run()
    process = bench.spawn("view", experiment.id, "--port", "0")
    browser = Browser(*opened(process))
    assert browser.get("/api/trials/0/log/stdout")["text"].startswith("hello\n")
    piece = browser.get("/api/trials/0/log/stderr?offset=2&limit=2")
    assert piece == {"offset": 2, "size": 5, "next": 4, "text": "ps", "note": ""}
    secret = bench.base / "secret"
    secret.write_text("nobody's")
    output = experiment.folder.trials / state.trial(0).id / "0" / "stdout"
    output.unlink()
    output.symlink_to(secret)
    assert browser.get("/api/trials/0/log/stdout")["text"] == ""
    for path in (
        "/api/trials/0/log/passwd",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/api/trials/-1",
    ):
        assert browser.ask("GET", path)[0] in (400, 404), path
    assert interrupted(process) == 130


def test_every_route_needs_the_session(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=1), max_trial_number=1)
    experiment.run()
    source = Source(home.find(experiment.id))
    routes = [(path, method) for route in make_app(source, 1).routes for path, method in _pairs(route)]
    source.close()
    assert len(routes) > 20
    process = bench.spawn("view", experiment.id, "--port", "0")
    browser = Browser(*opened(process))
    inside, browser.cookie = browser.cookie, ""
    for path, method in routes:
        body = {} if method == "POST" else None
        assert browser.ask(method, path, body)[0] == 401, (method, path)
        for headers in ({"Host": "evil:1"}, {"Origin": "http://evil"}):
            assert browser.ask(method, path, body, Cookie=inside, **headers)[0] in (403, 421), (method, path)
    assert interrupted(process) == 130


def _pairs(route: Any) -> list[tuple[str, str]]:
    path = re.sub(r"\{number[^}]*\}", "0", re.sub(r"\{(name|stream)[^}]*\}", "stdout", route.path))
    return [(path, method) for method in route.methods if method in ("GET", "POST")]


def test_slow_and_many_visitors_do_not_keep_others_out(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=1), max_trial_number=1)
    experiment.run()
    process = bench.spawn("view", experiment.id, "--port", "0")
    browser = Browser(*opened(process))
    slow = [socket.create_connection(("127.0.0.1", browser.port)) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: ")  # and then nothing
        assert browser.get("/api/status")["status"] == "DONE"
        garbage = socket.create_connection(("127.0.0.1", browser.port))
        garbage.sendall(os.urandom(4096))
        garbage.close()
        assert browser.get("/api/status")["status"] == "DONE"
    finally:
        for connection in slow:
            connection.close()
    assert interrupted(process) == 130


def test_it_listens_on_loopback_only_and_only_when_asked(bench: Bench) -> None:
    experiment, _ = started(bench, trial_command=bench.fake(steps=200, sleep=0.05))
    mine = set(experiment.processes())
    listening = _listening(mine)
    assert len(listening) == 1 and listening[0].startswith("0100007F:")
    experiment.ask(AskStop("test", force=True))
    experiment.finish()


def _listening(pids: set[int]) -> list[str]:
    """The addresses (as in /proc/net/tcp) at which these processes listen."""
    inodes: set[str] = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.add(words[1])
    return sorted(found)
