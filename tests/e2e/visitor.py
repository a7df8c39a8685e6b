"""A visitor of the portal for the tests: enters by the link, keeps the cookie, asks, follows streams."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from harness import PATIENCE, Bench, Experiment, steps

from tune.engine.client import Opening, start

LINK = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)")


class Browser:
    """Speaks HTTP to a portal: enters by the link, keeps the cookie."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.cookie = port, ""
        code, headers, _ = self.ask("GET", f"/?token={token}")
        assert code == 200
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Cookie": self.cookie, **headers}
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body), "application/json"
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        code, _, body = self.ask("GET", path)
        assert code == 200, (path, code, body)
        return json.loads(body)

    def stream(self, path: str = "/api/stream", last: int | None = None) -> Iterator[dict[str, Any]]:
        """The messages of a stream, until it breaks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Cookie": self.cookie} | ({} if last is None else {"Last-Event-ID": str(last)})
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/event-stream")
        found: dict[str, Any] = {}
        try:
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("id: "):
                    found["id"] = int(line[4:])
                elif line.startswith("data: "):
                    found["data"] = json.loads(line[6:])
                elif not line and "data" in found:
                    yield found
                    found = {}
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()


def opened(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Port and token of the link that a verb prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := LINK.search(line):
            return int(match[1]), match[2]
    raise AssertionError("no link was printed")


def interrupted(process: subprocess.Popen[str]) -> int:
    """The exit code of a verb after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    return process.returncode


def gone(port: int) -> bool:
    """Wait until nobody listens there any more."""
    for _ in steps(PATIENCE, lambda: f"port {port} still listens"):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return True
    raise AssertionError("unreachable")


def started(bench: Bench, **fields: Any) -> tuple[Experiment, Browser]:
    """A running experiment with a portal."""
    experiment = bench.experiment(**fields)
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        portal = Opening(listening, "token")
        experiment.pid = start(experiment.folder, actor="test", portal=portal)
        return experiment, Browser(portal.port, portal.token)
