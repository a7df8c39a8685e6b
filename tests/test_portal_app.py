"""portal/app.py: the application behind its wall: which names it answers to, and what an error looks like."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import made_log
import pytest
import structlog

from tune.portal import routes
from tune.portal.app import make_app, make_portal
from tune.portal.source import Source

TOKEN = "the-token"


async def ask(app: Any, path: str, host: str = "127.0.0.1:8080") -> tuple[int, Any]:
    """One request of somebody who knows the token."""
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", host.encode()), (b"authorization", f"Bearer {TOKEN}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    await asyncio.wait_for(app(scope, receive, send), 30)
    return messages[0]["status"], json.loads(b"".join(message.get("body", b"") for message in messages[1:]))


@pytest.mark.parametrize(
    ("options", "own", "others"),
    [
        (
            {"port": 8080},
            ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"],
            ["127.0.0.1", "lab:8080"],
        ),
        ({"port": 80}, ["127.0.0.1", "localhost:80", "[::1]"], ["lab", "127.0.0.1:443"]),
        ({"port": 443, "host": "lab", "secure": True}, ["lab", "lab:443", "localhost"], ["lab:80", "xlab", "lab.x"]),
        ({"port": 443, "host": "2001:db8::1"}, ["[2001:db8::1]:443"], ["2001:db8::1", "[2001:db8::1]"]),
    ],
)
def test_it_answers_to_its_own_names_only(
    tmp_path: Path, options: dict[str, Any], own: list[str], others: list[str]
) -> None:
    async def main() -> None:
        source = Source(await made_log.write(tmp_path, 1))
        portal = make_portal(source, TOKEN, **options)
        for host in own:
            assert (await ask(portal, "/api/notes", host))[0] == 200, host
        for host in others:
            assert (await ask(portal, "/api/notes", host))[0] == 421, host
        source.close()

    asyncio.run(main())


def test_two_portals_of_one_machine_have_cookies_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source(await made_log.write(tmp_path, 1))
        assert {make_portal(source, TOKEN, port).cookie for port in (80, 443, 8080)} == {
            "tune_80",
            "tune_443",
            "tune_8080",
        }
        source.close()

    asyncio.run(main())


def test_what_goes_wrong_inside_is_told_to_the_log_and_not_to_the_visitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: object) -> str:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr(routes.files, "notes", breaks)

    async def main() -> None:
        source = Source(await made_log.write(tmp_path, 1))
        with structlog.testing.capture_logs() as logs:
            code, said = await ask(make_app(source, 8080), "/api/notes")
        assert code == 500 and set(said) == {"error", "hint"} and "secret" not in str(said)
        assert [one["event"] for one in logs] == ["a request failed"]
        source.close()

    asyncio.run(main())


def test_a_log_that_was_damaged_meanwhile_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 3)
        source = Source(folder)
        folder.events.write_bytes(b"x" * folder.events.stat().st_size)
        app = make_app(source, 8080)
        for path in ("/api/events", "/api/trials/1", "/api/trials/1/why"):
            code, said = await ask(app, path)
            assert code == 409 and "log" in said["error"], path
        source.close()

    asyncio.run(main())
