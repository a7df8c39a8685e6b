"""Who may talk to the portal: a wall around the whole application, which denies by default.

* The address: `Host` has to be one that the portal was opened under, so a page that rebinds its name to 127.0.0.1 gets
  nothing; `Origin` and `Sec-Fetch-Site`, where a browser sends them, have to be our own.
* The session: the token of the link is good once, for a cookie that scripts can't read and other sites can't send
  (HttpOnly, SameSite=Strict). Without it nothing is answered, whatever the path. A program may send the token itself
  as `Authorization: Bearer ...`; that does not use it up.
* What changes something: only with a JSON body, which no form of another site can send.
* Limits: the length that a body says it has (app.py limits the one it has), the number of requests under way.
* Headers on every answer: the content policy and the like.

A pure ASGI wrapper; nothing in it knows a route.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qs

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 4 << 20  # bytes: a search space, or results to import
MAX_REQUESTS = 256  # under way, streams included
READING = frozenset({"GET", "HEAD"})
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        b"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_ENTERED = b"<!doctype html><meta charset=utf-8><meta http-equiv=refresh content='0;url=/'><title>tune</title>"


class Guard:
    """The wall. `hosts`: the values of `Host` under which it was opened, e.g. "127.0.0.1:8080"; `secure`: with TLS.

    `session`: what the cookie holds; given when pages of an earlier portal are to go on.
    """

    def __init__(
        self, app: App, token: str, hosts: Collection[str], port: int, *, session: str = "", secure: bool = False
    ) -> None:
        self._app, self._token = app, token
        self._hosts = {host.lower() for host in hosts}
        self._secure = secure
        self._fresh = True  # the token of the link was not used yet
        self._session = session or secrets.token_urlsafe(32)
        self.cookie = f"tune_{port}"  # cookies don't know ports: two portals must not overwrite each other's
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await _close(receive, send)
            return
        headers = _headers(scope)
        denied = self._denied(scope, headers)
        if denied is None and scope["path"] == "/" and scope["method"] == "GET" and scope["query_string"]:
            denied = await self._enter(scope, headers, send)
            if denied is None:
                return
        if denied is None and not self._knows(headers):
            denied = (401, "this page needs the link that tune printed", "tune view --port 0 ID prints a new one")
        if denied is None and self._under_way >= MAX_REQUESTS:
            denied = (503, f"{MAX_REQUESTS} requests are under way", "Close some pages.")
        if denied is not None:
            await _answer(send, *denied)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, _sealed(send))
        finally:
            self._under_way -= 1

    def _denied(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str] | None:
        """Why this request gets nothing, whoever sent it."""
        if "\0" in headers or headers.get("host", "").lower() not in self._hosts:
            return 421, "this is not the portal's address", f"allowed: {', '.join(sorted(self._hosts))}"
        origin = headers.get("origin")
        scheme, _, site = (origin or "").lower().partition("://")
        if origin is not None and (site not in self._hosts or scheme != ("https" if self._secure else "http")):
            return 403, "another site may not ask this", "Open the portal itself."
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and scope["path"] != "/":
            return 403, "another site may not ask this", "Open the portal itself."
        if scope["method"] in READING:
            return None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return 415, "what changes something has to be JSON", "allowed: Content-Type: application/json"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, f"the body is too long; allowed: {MAX_BODY} bytes", ""
        return None

    async def _enter(self, scope: Scope, headers: dict[str, str], send: Send) -> tuple[int, str, str] | None:
        """Take the token of a link for a cookie. None when this was answered."""
        given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8).get("token", [""])[0]
        if not given or self._knows(headers):
            if given:
                await _page(send, [])
                return None
            return 404, "there is no such page", ""
        if not self._fresh or not hmac.compare_digest(given.encode(), self._token.encode()):
            return 401, "this link was used before, or was never good", "tune view --port 0 ID prints a new one"
        self._fresh = False
        flags = "; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if self._secure else "")
        await _page(send, [(b"set-cookie", f"{self.cookie}={self._session}{flags}".encode())])
        return None

    def _knows(self, headers: dict[str, str]) -> bool:
        bearer = headers.get("authorization", "")
        if bearer.lower().startswith("bearer "):
            return hmac.compare_digest(bearer[7:].strip().encode(), self._token.encode())
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self._session.encode())


def _headers(scope: Scope) -> dict[str, str]:
    """The request's headers; one that decides and comes twice makes the whole invalid (the key "\\0")."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "authorization", "content-length", "content-type"):
            found["\0"] = key
        found[key] = (
            value.decode("latin-1")
            if key != "cookie" or key not in found
            else (found[key] + "; " + value.decode("latin-1"))
        )
    return found


def _sealed(send: Send) -> Send:
    """Our headers on whatever the application answers."""

    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return said


async def _page(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    kind = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
    start = {"type": "http.response.start", "status": 200, "headers": [*kind, *headers, *HEADERS]}
    await send(start)
    await send({"type": "http.response.body", "body": _ENTERED})


async def _answer(send: Send, code: int, error: str, hint: str) -> None:
    body = json.dumps({"error": error, "hint": hint}).encode()
    kind = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": code, "headers": [*kind, *HEADERS]})
    await send({"type": "http.response.body", "body": body})


async def _close(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008})
