"""What can be asked of the portal over HTTP: one typed function a route, over `Source`.

Bodies are JSON. Every error is `{"error": ..., "hint": ...}`: 400 what was sent can't be, 404 no such thing, 409 no
engine runs (or it refused). The shapes are those of the command line's `--json`, with what a page needs besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Stream

from ..engine import client, points, views
from ..engine.config import encode as encode_config
from ..engine.config import seconds
from ..engine.errors import UsageError
from ..engine.export_file import render
from ..engine.log import LogError
from ..engine.objectives import judge
from ..engine.requests import AskImport, AskKill, AskStop, AskTrial, AskUpdate, PersonsRequest, Refused
from ..engine.state import State, Trial
from ..engine.verify import verify as verified
from ..engine.why import explain
from . import figures, files, others, shapes
from . import source as source_room
from .shapes import Done, Fault, Imported, Kill, NewTrial, Notes, Result, Stop, Update
from .source import Source
from .stream import Messages, facts

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
MAX_LOG = 1 << 20  # bytes of a trial's output in one answer
MAX_EVENTS = 5_000

Seq = Annotated[int | None, QueryParameter(name="at", ge=1, le=2**53, description="As it was after this event.")]
Number = Annotated[int, PathParameter(ge=0, le=2**53)]
Choice = Annotated[str, QueryParameter(max_length=1000, description="A choice of the figure, where it has it.")]
Found = TypeVar("Found")


class Wrong(HTTPException):
    """An answer that is an error: its code, what was found, and what to do."""

    def __init__(self, code: int, error: str, hint: str = "") -> None:
        super().__init__(detail=error, status_code=code)
        self.error, self.hint = error, hint


def json(value: Any, code: int = 200) -> Response[bytes]:
    """An answer in JSON."""
    return Response(views.to_json(value), status_code=code, media_type="application/json", headers=_FRESH)


_FRESH = {"cache-control": "no-store"}
_WALL = {
    401: "There is no session.",
    403: "A page of another site asked.",
    421: "This is not the portal's address.",
    503: "Too many requests are under way.",
}
_ERRORS = {
    400: "What was sent can't be.",
    404: "There is no such thing.",
    409: "No engine runs, or it refused, or the log says no.",
    413: "The body is too long.",
    415: "The body is no JSON.",
}
_BODY = (400, 409, 413, 415)


def answers(shape: Any, *codes: int, code: int = 200, kind: str = "application/json") -> dict[int, ResponseSpec]:
    """What a route answers, for its description: this shape, and an error with each of these codes."""
    told = {**_WALL, **{one: _ERRORS[one] for one in codes}}
    errors = {one: ResponseSpec(Fault, generate_examples=False, description=text) for one, text in told.items()}
    good = ResponseSpec(shape, generate_examples=False, description="What was asked for.", media_type=kind)
    return {code: good, **errors}


def handlers(source: Source, port: int | None) -> list[BaseRouteHandler]:
    """All routes."""
    messages = Messages(source, port)
    reading = asyncio.Lock()  # of the whole log: once at a time

    @contextlib.asynccontextmanager
    async def at(seq: int | None) -> AsyncGenerator[State]:
        if seq is not None and seq > source.seq:
            raise Wrong(404, f"there is no event {seq}; allowed: 1 to {source.seq}")
        async with source.at(seq) as state:
            yield state

    async def put(*requests: PersonsRequest) -> None:
        try:
            await source.ask(*requests)
        except Refused as error:
            raise Wrong(409, str(error)) from None

    async def have(request: PersonsRequest) -> Response[bytes]:
        await put(request)
        return json(Done(seq=source.seq), 201)

    async def checked(check: Callable[[], Found]) -> Found:
        """What a check of the command line's says; it may load a tuner, and take its time."""
        source.need_engine()
        return await asyncio.to_thread(check)

    async def explained(number: int, upto: int) -> dict[str, Any]:
        """Why a trial is what it is, as far as the log says up to an event."""
        async with reading:
            found = await asyncio.to_thread(explain, source.folder, number, again=False)
        kept = {name: [one for one in found[name] if one["event"] <= upto] for name in ("phases", "stops", "ends")}
        return {**found, **kept}

    # -- the page -------------------------------------------------------------------------------------------------
    @get("/", include_in_schema=False)
    async def page() -> Response[bytes]:
        return _file(files.STATIC / "index.html")

    @get("/static/{name:str}", include_in_schema=False)
    async def static(name: Annotated[str, PathParameter(max_length=80)]) -> Response[bytes]:
        if name == "plotly.min.js":
            return await asyncio.to_thread(_plotly)
        if name not in files.own_names():
            raise Wrong(404, f"there is no file {name[:80]!r}")
        return _file(files.STATIC / name)

    @get("/openapi.json", include_in_schema=False)
    async def description(request: Request[Any, Any, Any]) -> Response[bytes]:
        return json(request.app.openapi_schema.to_schema())

    # -- what is so -----------------------------------------------------------------------------------------------
    @get("/api/status", summary="The experiment as a whole", responses=answers(shapes.Now, 400, 404))
    async def status(at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            return json(source_room.status(source, state, port))

    @get("/api/config", summary="The resolved config", responses=answers(dict[str, Any], 400, 404))
    async def config(at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            return json(msgspec.Raw(encode_config(state.settings)))

    @get("/api/experiments", summary="All experiments in $TUNE_HOME", responses=answers(list[shapes.Status]))
    async def experiments() -> Response[bytes]:
        return json(await asyncio.to_thread(client.statuses))

    @get("/api/trials", summary="All trials, a row each", responses=answers(shapes.Trials, 400, 404))
    async def trials(at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            return json({"seq": state.seq, "columns": source_room.COLUMNS, "rows": source_room.rows(state, None)})

    @get("/api/trials/{number:int}", summary="One trial, whole", responses=answers(shapes.Trial, 400, 404, 409))
    async def trial(number: Number, at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            shown = views.trial(state, _trial(state, number), str(source.folder.path / "trials"))
            children = [other.number for other in state.made if other.continues == number]
            upto = state.seq
        reasons = await asyncio.to_thread(source.decisions, number, upto)
        return json({**shown, "children": children, "why": reasons})

    @get(
        "/api/trials/{number:int}/why",
        summary="Why a trial is what it is, as far as the log says",
        responses=answers(shapes.Why, 400, 404, 409),
    )
    async def why(number: Number, at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            _trial(state, number)
            upto = state.seq
        return json(await explained(number, upto))

    @get(
        "/api/trials/{number:int}/log/{stream:str}",
        summary="What a trial wrote to stdout or stderr",
        responses=answers(shapes.Output, 400, 404),
    )
    async def log(
        number: Number,
        stream: Annotated[Literal["stdout", "stderr"], PathParameter()],
        offset: Annotated[int, QueryParameter(ge=-(2**53), le=2**53, description="Negative: from the end.")] = 0,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LOG)] = 1 << 16,
    ) -> Response[bytes]:
        one = _trial(source.state, number)
        note = await source.copied(one, stream) if one.host else ""
        parts = (one.id, str(one.attempt), stream)
        found = await asyncio.to_thread(files.piece, source.folder.trials, parts, offset, limit)
        return json({**found, "note": note})

    @get("/api/events", summary="Events of the log", responses=answers(list[shapes.Event], 400, 409))
    async def events(
        after: Annotated[int, QueryParameter(ge=0, le=2**53)] = 0,
        before: Annotated[int | None, QueryParameter(ge=1, le=2**53)] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS)] = 500,
    ) -> Response[bytes]:
        found = await asyncio.to_thread(source.rows, after, before, limit)
        return json([views.fact(one) for one in found])

    @get("/api/verify", summary="Check the log, as tune verify does", responses=answers(shapes.Verified, 409))
    async def verify() -> Response[bytes]:
        async with reading:
            try:
                return json(asdict(await asyncio.to_thread(verified, source.folder.events)))
            except LogError as error:
                raise Wrong(409, str(error)) from None

    @get("/api/export", summary="A row for each result", responses=answers(list[shapes.Exported], 400, 404))
    async def export(at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            return json(views.rows(state))

    @get(
        "/api/export/table",
        summary="The same as a table, as tune export writes it",
        media_type="text/csv",
        responses=answers(str, 400, 404, kind="text/csv"),
    )
    async def table(at_seq: Seq = None) -> Response[bytes]:
        async with at(at_seq) as state:
            found = views.rows(state)
        text = await asyncio.to_thread(render, found, "csv")
        headers = {**_FRESH, "content-disposition": f'attachment; filename="{source.folder.id}.csv"'}
        return Response(text.encode(), media_type="text/csv", headers=headers)

    @get("/api/figures", summary="Which figures there are", responses=answers(list[shapes.FigureName]))
    async def figure_names() -> Response[bytes]:
        return json(figures.listed(source.state))

    @get(
        "/api/figures/{name:str}",
        summary="One figure, as Plotly draws it",
        responses=answers(shapes.Figure, 400, 404, 409),
    )
    async def figure(
        name: Annotated[str, PathParameter(max_length=80)],
        at_seq: Seq = None,
        x: Choice = "",
        y: Choice = "",
        objective: Choice = "",
        method: Choice = "",
        share: Choice = "",
        lines: Choice = "",
    ) -> Response[bytes]:
        if name not in figures.TITLES:
            raise Wrong(404, f"there is no figure {name[:80]!r}", f"allowed: {', '.join(figures.TITLES)}")
        async with at(at_seq) as state:
            choices = {"x": x, "y": y, "objective": objective, "method": method, "share": share, "lines": lines}
            given = {key: value for key, value in choices.items() if value}
            try:
                drawn = await asyncio.to_thread(figures.draw, state, name, given)
            except figures.FigureError as error:
                raise Wrong(409, str(error)) from None
            return json(drawn)

    # -- streams --------------------------------------------------------------------------------------------------
    @get(
        "/api/stream",
        summary="Server-sent events: what changes",
        media_type="text/event-stream",
        responses=answers(str, 400, kind="text/event-stream"),
    )
    async def stream(request: Request[Any, Any, Any], after: _After = None) -> Stream:
        return _events(lambda: messages.since(_last_id(request, after)))

    @get(
        "/api/log/stream",
        summary="Server-sent events: every event of the log",
        media_type="text/event-stream",
        responses=answers(str, 400, kind="text/event-stream"),
    )
    async def log_stream(request: Request[Any, Any, Any], after: _After = None) -> Stream:
        return _events(lambda: facts(source, _last_id(request, after) or 0))

    # -- what can be changed --------------------------------------------------------------------------------------
    @post("/api/stop", summary="End the experiment", responses=answers(Done, *_BODY, code=201))
    async def stop(data: JSONBody[Stop]) -> Response[bytes]:
        return await have(AskStop(_ACTOR, data.force))

    @post("/api/trials", summary="Run a trial with these parameters", responses=answers(Done, *_BODY, code=201))
    async def add(data: JSONBody[NewTrial]) -> Response[bytes]:
        parameters, settings = data.parameters, source.state.settings
        text = _text(parameters, "parameters")
        reason = await checked(lambda: points.gate(settings)(parameters))
        if reason is not None:
            raise Wrong(400, f"outside the search space: {reason}")
        return await have(AskTrial(_ACTOR, text))

    @post("/api/trials/{number:int}/kill", summary="End one trial", responses=answers(Done, 404, *_BODY, code=201))
    async def kill(number: Number, data: JSONBody[Kill]) -> Response[bytes]:
        del data
        _trial(source.state, number)
        return await have(AskKill(_ACTOR, number))

    @post("/api/update", summary="Change limits or the search space", responses=answers(Done, *_BODY, code=201))
    async def update(data: JSONBody[Update]) -> Response[bytes]:
        if data.duration is not None:
            try:
                if seconds(data.duration) <= 0:
                    raise ValueError(f"{data.duration!r} is no time at all; allowed: more than 0s")
            except ValueError as error:
                raise Wrong(400, f"duration: {error}") from None
        raw, settings = data.search_space, source.state.settings
        space = None if raw is None else _text(raw, "search_space")
        wrong = [] if raw is None else await checked(lambda: points.faults(raw, settings))
        if wrong:
            raise Wrong(400, "; ".join(wrong))
        return await have(AskUpdate(_ACTOR, data.concurrency, data.max_trials, data.duration, space))

    @post(
        "/api/import",
        summary="Give the tuner results from elsewhere; those outside the search space are left out",
        responses=answers(Imported, *_BODY, code=201),
    )
    async def import_(data: JSONBody[list[Result]]) -> Response[bytes]:
        if not 1 <= len(data) <= shapes.MAX_IMPORT:
            raise Wrong(400, f"found {len(data)} results; allowed: 1 to {shapes.MAX_IMPORT}")
        settings = source.state.settings
        texts = [(_text(one.parameter, "parameter"), _text(one.value, "value")) for one in data]

        def reasons() -> list[str | None]:
            why_not = points.gate(settings)
            return [why_not(one.parameter) for one in data]

        found = await checked(reasons)
        outside = [reason for reason in found if reason is not None]
        if len(outside) == len(data):
            raise Wrong(400, f"all of them lie outside the search space, the first: {outside[0]}")
        kept = [text for text, reason in zip(texts, found, strict=True) if reason is None]
        await put(*(AskImport(_ACTOR, parameters, value) for parameters, value in kept))
        odd = sum(judge(settings, value.encode()).value is None for _, value in kept)
        return json(Imported(True, source.seq, len(kept), len(outside), odd), 201)

    # -- notes ----------------------------------------------------------------------------------------------------
    @get("/api/notes", summary="What people wrote down", responses=answers(Notes))
    async def notes() -> Response[bytes]:
        return json({"text": await asyncio.to_thread(files.notes, source.folder)})

    @post("/api/notes", summary="Write something down", responses=answers(Done, *_BODY, code=201))
    async def write_notes(data: JSONBody[Notes]) -> Response[bytes]:
        if not source.commands:
            raise Wrong(409, "this portal only shows the experiment")
        try:
            await asyncio.to_thread(files.write_notes, source.folder, data.text)
        except OSError as error:
            raise Wrong(409, f"the notes can't be written: {error.strerror}") from None
        return json(Done(seq=source.seq), 201)

    @get(
        "/api/compare",
        summary="Another experiment beside this one",
        responses=answers(shapes.Compared, 400, 404, 409),
    )
    async def compare(
        other: Annotated[str, QueryParameter(name="with", max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")],
    ) -> Response[bytes]:
        try:
            return json(await asyncio.to_thread(others.compared, source.folder, source.state, other))
        except UsageError as error:
            raise Wrong(404, error.message, error.hint or "") from None

    return [
        *(page, static, description, status, config, experiments, trials, trial, why, log, events, stream, log_stream),
        *(verify, export, table, figure_names, figure),
        *(stop, add, kill, update, import_, notes, write_notes, compare),
    ]


_After = Annotated[int | None, QueryParameter(ge=0, le=2**53, description="The last event that was seen.")]
_ACTOR = f"portal (pid {os.getpid()})"


def _trial(state: State, number: int) -> Trial:
    try:
        return state.trial(number)
    except KeyError:
        raise Wrong(404, f"there is no trial {number}", f"It has {len(state.made)} so far.") from None


def _text(value: Any, name: str) -> str:
    """The JSON text that rests in the log."""
    try:
        return points.text_of(value)
    except ValueError as error:
        raise Wrong(400, f"{name}: {error}") from None


def _last_id(request: Request[Any, Any, Any], after: int | None) -> int | None:
    said = request.headers.get("last-event-id", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 17 else after


def _events(make: Callable[[], Any]) -> Stream:
    return Stream(make, media_type="text/event-stream", headers={**_FRESH, "x-accel-buffering": "no"})


def _file(path: Path) -> Response[bytes]:
    headers = {"cache-control": "no-cache"}
    return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=headers)


def _plotly() -> Response[bytes]:
    path = files.plotly()
    if path is None:
        raise Wrong(404, "plotly is not installed", "pip install plotly")
    headers = {"cache-control": "private, max-age=86400"}
    return Response(path.read_bytes(), media_type=KINDS[".js"], headers=headers)
