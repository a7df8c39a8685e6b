"""portal/guard.py: nothing passes without a session, whatever the path, the method and the headers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, cast

import pytest

from tune.portal import guard
from tune.portal.app import make_app
from tune.portal.guard import HEADERS, MAX_BODY, Guard
from tune.portal.source import Source

HOST = "127.0.0.1:8080"
TOKEN = "the-token-of-the-link"
Headers = dict[str, str]


class Inner:
    """The application behind the wall: counts what reaches it, reads the body, and answers with a header of its own."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append((scope["method"], scope["path"]))
        while True:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        headers = [(b"content-type", b"text/plain"), (b"X-Frame-Options", b"ALLOWALL")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"inside"})


class Wall:
    """A guard, its application, and a browser that speaks to it."""

    def __init__(self, **arguments: Any) -> None:
        self.inner = Inner()
        self.guard = Guard(self.inner, TOKEN, {HOST, "localhost:8080"}, 8080, **arguments)

    def ask(
        self,
        method: str = "GET",
        path: str = "/",
        headers: Headers | list[tuple[str, str]] | None = None,
        query: str = "",
        chunks: tuple[bytes, ...] = (b"",),
        kind: str = "http",
    ) -> tuple[int, dict[str, str], bytes]:
        pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
        if isinstance(headers, dict) or headers is None:
            pairs = (
                [("host", HOST), *(pair for pair in pairs if pair[0] != "host")] if "host" not in dict(pairs) else pairs
            )
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
        }
        said: list[Any] = []
        left = list(chunks)

        async def receive() -> Any:
            return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

        async def send(message: Any) -> None:
            said.append(message)

        asyncio.run(self.guard(scope, receive, send))
        if said[0]["type"] == "websocket.close":
            return said[0]["code"], {}, b""
        start, *rest = said
        found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return start["status"], found, b"".join(message.get("body", b"") for message in rest)

    def enter(self) -> str:
        """The cookie that the link gives."""
        code, headers, _ = self.ask(query=f"token={TOKEN}")
        assert code == 200
        return headers["set-cookie"].partition(";")[0]


def test_the_link_is_good_once_for_a_cookie_that_scripts_cannot_read() -> None:
    wall = Wall()
    code, headers, body = wall.ask(query=f"token={TOKEN}")
    assert code == 200 and TOKEN.encode() not in body and not wall.inner.reached
    assert headers["set-cookie"].startswith("tune_8080=")
    for flag in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert flag in headers["set-cookie"]
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert wall.ask(query=f"token={TOKEN}")[0] == 401
    cookie = headers["set-cookie"].partition(";")[0]
    assert wall.ask(path="/api/status", headers={"cookie": cookie})[0] == 200
    assert wall.ask(path="/api/status", headers={"cookie": f"a=b; {cookie}; c=d"})[0] == 200
    assert wall.inner.reached == [("GET", "/api/status")] * 2


def test_a_kept_session_goes_on() -> None:
    wall = Wall(session="kept-from-before-0123456789-0123456789-0123", secure=True)
    cookie = "tune_8080=kept-from-before-0123456789-0123456789-0123"
    assert wall.ask(path="/api/stream", headers={"cookie": cookie})[0] == 200
    for scheme, code in (("https", 200), ("http", 403)):
        assert wall.ask(path="/api/x", headers={"cookie": cookie, "origin": f"{scheme}://{HOST}"})[0] == code
    assert "; Secure" in wall.ask(query=f"token={TOKEN}")[1]["set-cookie"]


def test_a_program_may_send_the_token_itself() -> None:
    wall = Wall()
    for _ in range(2):
        assert wall.ask(path="/api/status", headers={"authorization": f"Bearer {TOKEN}"})[0] == 200
    assert wall.ask(path="/api/status", headers={"authorization": "Bearer no"})[0] == 401
    assert wall.enter()


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO")
PATHS = sorted(  # every route there is, and one that is none
    {"/nope"} | {re.sub(r"\{[^}]*\}", "0", route.path) for route in make_app(cast("Source", None), 8080).routes}
)
JSON = {"content-type": "application/json"}


def test_every_route_is_in_the_matrix() -> None:
    assert len(PATHS) >= 24 and {"/", "/openapi.json", "/api/stop", "/api/trials/0/why"} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_without_a_session_nothing_passes(method: str, path: str) -> None:
    for headers in (
        {},
        JSON,
        {**JSON, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin"},
        {**JSON, "cookie": "tune_8080="},
        {**JSON, "cookie": "tune_8080=guess"},
        {**JSON, "cookie": 'tune_8080="; Path=/'},
        {**JSON, "authorization": "Bearer "},
        {**JSON, "authorization": "Basic dGhlLXRva2Vu"},
        {**JSON, "x-forwarded-for": "127.0.0.1", "x-forwarded-host": HOST},
    ):
        for query in ("", "token=", "token=wrong", f"tokem={TOKEN}", "token=" + "a" * 10_000):
            wall = Wall()
            code, found, _ = wall.ask(method, path, headers, query)
            assert code >= 400 and not wall.inner.reached, (method, path, headers, query)
            assert "set-cookie" not in found


Change = Callable[[Headers], Headers]
FOREIGN: dict[str, Change] = {
    "another name": lambda headers: {**headers, "host": "evil.example:8080"},
    "the same name at another port": lambda headers: {**headers, "host": "127.0.0.1:81"},
    "no port": lambda headers: {**headers, "host": "127.0.0.1"},
    "a name that begins like ours": lambda headers: {**headers, "host": f"{HOST}.evil.example"},
    "no name": lambda headers: {**headers, "host": ""},
    "our address over another protocol": lambda headers: {**headers, "origin": f"https://{HOST}"},
    "our address over a protocol of no page": lambda headers: {**headers, "origin": f"ftp://{HOST}"},
    "a page of another site": lambda headers: {**headers, "origin": "http://evil.example"},
    "a page without an origin": lambda headers: {**headers, "origin": "null"},
    "a page at another port of this machine": lambda headers: {**headers, "origin": "http://127.0.0.1:81"},
    "a link of another site": lambda headers: {**headers, "sec-fetch-site": "cross-site"},
    "a page at another port, as browsers say it": lambda headers: {**headers, "sec-fetch-site": "same-site"},
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_with_a_session_other_sites_still_get_nothing(method: str, change: Change) -> None:
    wall = Wall()
    headers = {"host": HOST, "cookie": wall.enter(), **JSON}
    assert wall.ask(method, "/api/stop", headers)[0] == 200
    wall.inner.reached.clear()
    code, _, _ = wall.ask(method, "/api/stop", change(headers))
    assert code in (403, 421) and not wall.inner.reached


def test_a_header_that_decides_comes_once() -> None:
    wall = Wall()
    cookie = wall.enter()
    for name, value in (("host", "evil"), ("origin", "http://evil"), ("content-type", "text/plain")):
        pairs = [("host", HOST), ("origin", f"http://{HOST}"), ("content-type", "application/json"), ("cookie", cookie)]
        assert wall.ask("POST", "/api/stop", [*pairs, (name, value)])[0] == 421
    assert not wall.inner.reached


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"],
)
def test_no_form_of_another_site_can_change_anything(kind: str) -> None:
    wall = Wall()
    headers = {"cookie": wall.enter(), **({"content-type": kind} if kind else {})}
    assert wall.ask("POST", "/api/stop", headers)[0] == 415
    assert wall.ask("POST", "/api/stop", {**headers, "content-type": "Application/JSON; charset=utf-8"})[0] == 200


def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    wall = Wall()
    headers = {"cookie": wall.enter(), **JSON}
    assert wall.ask("POST", "/api/import", {**headers, "content-length": str(MAX_BODY + 1)})[0] == 413
    assert wall.ask("POST", "/api/import", {**headers, "content-length": "-1"})[0] == 413
    for length in ("x", "1e9", "9" * 400, ""):
        assert wall.ask("POST", "/api/import", {**headers, "content-length": length})[0] == 413
    assert not wall.inner.reached


def test_requests_under_way_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_REQUESTS", 0)
    wall = Wall()
    assert wall.ask(path="/api/status", headers={"cookie": wall.enter()})[0] == 503


def test_every_answer_has_our_headers_and_no_others_in_their_place() -> None:
    wall = Wall()
    cookie = wall.enter()
    for found in (
        wall.ask()[1],
        wall.ask(headers={"host": "x"})[1],
        wall.ask(path="/a", headers={"cookie": cookie})[1],
    ):
        for name, value in HEADERS:
            assert found[name.decode()] == value.decode()
    policy = found["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy


def test_sockets_of_the_web_are_closed() -> None:
    wall = Wall()
    assert wall.ask(kind="websocket", headers={"cookie": wall.enter()})[0] == 1008
    assert not wall.inner.reached


def test_what_is_refused_says_why_in_json() -> None:
    code, headers, body = Wall().ask(path="/api/status")
    assert (code, headers["content-type"]) == (401, "application/json")
    assert "link" in json.loads(body)["error"]
