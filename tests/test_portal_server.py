"""portal/server.py and what starts it: the portal's own process, over a log alone, among visitors that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_certificate
import made_log
import pytest

from tune.engine import home
from tune.engine.client import Opening
from tune.engine.portal_process import bind, opening, start
from tune.portal import server

TOKEN = "the-token"
PATIENCE = 60.0
CROWD = 600  # more than the connections that uvicorn takes at a time


class Process:
    """A portal's process."""

    def __init__(self, folder: home.Folder, listening: socket.socket) -> None:
        self.folder = folder
        self.port = int(listening.getsockname()[1])
        self.process, self.held = start(folder, Opening(listening, TOKEN), commands=False)

    def ask(self, path: str = "/api/status", **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def visit(self, data: bytes) -> socket.socket:
        """A connection on which this was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        made.sendall(data)
        return made

    def leave(self) -> int:
        """Let go of the pipe, as whoever started it does at its end: the exit code."""
        os.close(self.held)
        return self.process.wait(PATIENCE)

    def log(self) -> str:
        return (self.folder.path / "portal.log").read_text()


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Process]:
    folder = asyncio.run(made_log.write(tmp_path, 3))
    with bind(0) as listening:
        made = Process(folder, listening)
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            os.close(made.held)
        try:
            made.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait(PATIENCE)
            raise


def test_it_serves_a_log_and_ends_when_it_is_left_alone(portal: Process) -> None:
    code, status = portal.ask()
    assert (code, status["counts"]["SUCCEEDED"], status["readonly"]) == (200, 3, True)
    session = portal.folder.path / "portal.session"
    assert session.stat().st_mode & 0o777 == 0o600 and len(session.read_text().strip()) >= 40
    assert TOKEN.encode() not in Path(f"/proc/{portal.process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in Path(f"/proc/{portal.process.pid}/environ").read_bytes()
    held, portal.held = portal.held, os.open(os.devnull, os.O_RDONLY)
    os.close(held)
    assert portal.process.wait(PATIENCE) == 0
    with pytest.raises(ConnectionRefusedError):
        portal.ask()
    assert portal.log() == ""


def test_a_crowd_of_half_sent_requests_keeps_nobody_out(portal: Process) -> None:
    assert portal.ask()[0] == 200
    crowd: list[socket.socket] = []
    try:
        for number in range(CROWD):
            crowd.append(portal.visit(b"GET /api/status HTTP/1.1\r\nHost: " if number % 3 else b""))
            if number % 100 == 99:
                assert portal.ask()[0] == 200
        assert portal.ask()[0] == 200
        body = f"Host: 127.0.0.1:{portal.port}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json"
        half = f"POST /api/stop HTTP/1.1\r\n{body}\r\nContent-Length: 9999\r\n\r\n{{"
        with portal.visit(half.encode()), portal.visit(os.urandom(4096)):
            assert portal.ask()[0] == 200
    finally:
        for one in crowd:
            one.close()


def test_a_crowd_that_keeps_coming_keeps_nobody_out(portal: Process) -> None:
    assert portal.ask()[0] == 200
    over = threading.Event()

    def comes() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                for _ in range(150):
                    stack.enter_context(portal.visit(b"GET / HTTP/1.1\r\nHost: "))

    visitors = [threading.Thread(target=comes, daemon=True) for _ in range(2)]
    for one in visitors:
        one.start()
    try:
        answers = [portal.ask()[0] for _ in range(30)]
    finally:
        over.set()
        for one in visitors:
            one.join(PATIENCE)
    assert answers == [200] * 30


def test_a_session_that_was_kept_goes_on_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    folder = home.Folder("it", tmp_path, tmp_path)
    first = server._session(folder)
    assert len(first) >= 40 and server._session(folder) == first
    path = tmp_path / "portal.session"
    path.write_text("short\n")
    assert server._session(folder) not in ("short", first)
    path.unlink()
    (tmp_path / "secret").write_text("x" * 50)
    path.symlink_to(tmp_path / "secret")
    assert server._session(folder) == ""
    assert (tmp_path / "secret").read_text() == "x" * 50


def test_with_tls_it_answers_to_its_own_name_and_its_cookie_stays_in_tls(tmp_path: Path) -> None:
    folder = asyncio.run(made_log.write(tmp_path, 1))
    cert, key = made_certificate.made(tmp_path, "127.0.0.2")
    trusts = ssl.create_default_context(cafile=str(cert))

    def ask(path: str, **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPSConnection("127.0.0.2", port, timeout=PATIENCE, context=trusts)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    with opening(0, "127.0.0.2", cert, key) as found:
        assert found is not None
        port = found.port
        process, held = start(folder, found, commands=False)
    try:
        code, headers, _ = ask(f"/?token={found.token}")
        assert code == 200 and headers["Set-Cookie"].endswith("; HttpOnly; SameSite=Strict; Secure")
        mine = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
        code, _, body = ask("/api/status", **mine, Origin=f"https://127.0.0.2:{port}")
        assert code == 200 and json.loads(body)["counts"]["SUCCEEDED"] == 1
        assert ask("/api/status", **mine, Origin=f"http://127.0.0.2:{port}")[0] == 403
        assert ask("/api/status", **mine, Host=f"lab.example.org:{port}")[0] == 421
        with socket.create_connection(("127.0.0.2", port), timeout=PATIENCE) as plain:
            plain.sendall(b"GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in plain.recv(4096)
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection("127.0.0.2", port, timeout=PATIENCE).request("GET", "/")
    finally:
        os.close(held)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def test_a_log_that_cannot_be_read_is_said_in_the_portals_log(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"no log at all" * 1000)
    with bind(0) as listening:
        made = Process(home.Folder("it", tmp_path, tmp_path), listening)
    try:
        assert made.process.wait(PATIENCE) == 1
    finally:
        made.process.kill()
        os.close(made.held)
        made.process.wait(PATIENCE)
    assert "can't be opened" in made.log() and "Traceback" not in made.log()
