"""Puts the portal together: routes, errors in one shape, the description of all of it, and the wall around it."""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from ..engine.errors import TuneError
from .guard import MAX_BODY, App, Guard
from .routes import Wrong, handlers, json
from .shapes import Fault
from .source import Source

_log = structlog.get_logger("portal")


def make_app(source: Source, port: int | None) -> Litestar:
    """The application without its wall: for the description, and to test routes."""
    return Litestar(
        route_handlers=handlers(source, port),
        openapi_config=OpenAPIConfig(
            title="tune portal",
            version="1",
            description="One experiment over HTTP. Everything needs the session that the link of the portal gives.",
            path="/openapi",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],  # the others load from other sites
        ),
        exception_handlers={
            HTTPException: _said,
            TuneError: _cannot,
            RecursionError: _nested,
            Exception: _failed,
        },
        request_max_body_size=MAX_BODY,
        logging_config=None,
    )


def make_portal(
    source: Source,
    token: str,
    port: int,
    host: str = "127.0.0.1",
    *,
    session: str = "",
    secure: bool = False,
) -> Guard:
    """The application behind its wall, for the addresses of this machine alone and for the one it was opened at."""
    names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host}
    usual = port == (443 if secure else 80)  # browsers leave it out
    hosts = {f"{name}:{port}" for name in names} | (names if usual else set[str]())
    app: App = make_app(source, port)  # type: ignore[assignment]  # Litestar types its messages more narrowly
    return Guard(app, token, hosts, port, session=session, secure=secure)


def _said(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if isinstance(error, Wrong):
        return json(Fault(error.error, error.hint), error.status_code)
    details: list[Any] = error.extra if isinstance(error.extra, list) else []
    hint = "; ".join(f"{one.get('key', '')}: {one.get('message', '')}" for one in details)
    return json(Fault(str(error.detail), hint[:2000]), error.status_code)


def _cannot(_: Request[Any, Any, Any], error: TuneError) -> Response[bytes]:
    return json(Fault(error.message, error.hint or ""), 409)


def _nested(_: Request[Any, Any, Any], __: Exception) -> Response[bytes]:
    return json(Fault("this is nested too deeply"), 400)


def _failed(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("a request failed", exc_info=error)
    return json(Fault("the portal failed at this; its log says more"), 500)
