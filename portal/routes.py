"""What can be asked of the portal over HTTP: one typed function a route, over `Source`.

Bodies are JSON. Every error is `{"error": ..., "hint": ...}`: 400 what was sent can't be, 404 no such thing, 409 no
engine runs (or it refused). The shapes are those of the command line's `--json`, with what a page needs besides.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Stream
from msgspec import Meta, Struct

from ..engine import client, home, views
from ..engine.config import encode as encode_config
from ..engine.config import seconds
from ..engine.errors import TuneError, UsageError
from ..engine.requests import AskImport, AskKill, AskStop, AskTrial, AskUpdate, PersonsRequest, Refused
from ..engine.state import State
from . import figures
from . import source as source_room
from .source import Source
from .stream import changes, facts

STATIC = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
MAX_LOG = 1 << 20  # bytes of a trial's output in one answer
MAX_NOTES = 1 << 16
MAX_EVENTS = 5_000
MAX_IMPORT = 10_000

Seq = Annotated[int | None, QueryParameter(name="at", ge=1, le=2**53, description="As it was after this event.")]
Number = Annotated[int, PathParameter(ge=0, le=2**53)]


class Stop(Struct, forbid_unknown_fields=True):
    """End the experiment; `force` without grace."""

    force: bool = False


class NewTrial(Struct, forbid_unknown_fields=True):
    """A trial to be run with these parameters."""

    parameters: dict[str, Any]


class Update(Struct, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays."""

    concurrency: Annotated[int, Meta(ge=1, le=99_999)] | None = None
    max_trials: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    duration: str | None = None
    search_space: dict[str, Any] | None = None


class Result(Struct, forbid_unknown_fields=True):
    """A result from elsewhere."""

    parameter: dict[str, Any]
    value: Any


class Notes(Struct, forbid_unknown_fields=True):
    """What people write down about the experiment."""

    text: Annotated[str, Meta(max_length=MAX_NOTES)]


class Done(Struct):
    """It is in the log."""

    ok: bool = True
    seq: int = 0


class Fault(Struct):
    """Why not, and what to do."""

    error: str
    hint: str = ""


class Wrong(HTTPException):
    """An answer that is an error: its code, what was found, and what to do."""

    def __init__(self, code: int, error: str, hint: str = "") -> None:
        super().__init__(detail=error, status_code=code)
        self.error, self.hint = error, hint


def json(value: Any, code: int = 200) -> Response[bytes]:
    """An answer in JSON."""
    return Response(views.to_json(value), status_code=code, media_type="application/json", headers=_FRESH)


_FRESH = {"cache-control": "no-store"}


def handlers(source: Source, port: int | None) -> list[BaseRouteHandler]:
    """All routes."""

    async def at(seq: int | None) -> State:
        try:
            return await source.at(seq)
        except ValueError as error:
            raise Wrong(404, str(error)) from None

    async def have(request: PersonsRequest) -> Response[bytes]:
        try:
            await source.ask(request)
        except source_room.ReadOnly as error:
            raise Wrong(409, error.message, error.hint or "") from None
        except (Refused, TuneError) as error:
            raise Wrong(409, str(error)) from None
        return json(Done(seq=source.seq), 201)

    # -- the page -------------------------------------------------------------------------------------------------
    @get("/", include_in_schema=False)
    async def page() -> Response[bytes]:
        return _file(STATIC / "index.html")

    @get("/static/{name:str}", include_in_schema=False)
    async def static(name: Annotated[str, PathParameter(max_length=80)]) -> Response[bytes]:
        if name == "plotly.min.js":
            return await asyncio.to_thread(_plotly)
        if name not in _names():
            raise Wrong(404, f"there is no file {name[:80]!r}")
        return _file(STATIC / name)

    # -- what is so -----------------------------------------------------------------------------------------------
    @get("/api/status", summary="The experiment as a whole", responses={})
    async def status(at_seq: Seq = None) -> Response[bytes]:
        state = await at(at_seq)
        return json(source_room.status(source, state, port))

    @get("/api/config", summary="The resolved config")
    async def config(at_seq: Seq = None) -> Response[bytes]:
        state = await at(at_seq)
        return json(msgspec.Raw(encode_config(state.settings)))

    @get("/api/experiments", summary="All experiments in $TUNE_HOME")
    async def experiments() -> Response[bytes]:
        return json(await asyncio.to_thread(_experiments))

    @get("/api/trials", summary="All trials, a row each")
    async def trials(at_seq: Seq = None) -> Response[bytes]:
        state = await at(at_seq)
        return json({"seq": state.seq, "columns": source_room.COLUMNS, "rows": source_room.rows(state, None)})

    @get("/api/trials/{number:int}", summary="One trial, whole")
    async def trial(number: Number, at_seq: Seq = None) -> Response[bytes]:
        state = await at(at_seq)
        one = _trial(state, number)
        shown = views.trial(state, one, str(source.folder.path / "trials"))
        children = [other.number for other in state.made if other.continues == number]
        why = await asyncio.to_thread(source_room.decision, source.folder.path, number, source.folder.events)
        return json({**shown, "continues": one.continues, "children": children, "why": why})

    @get("/api/trials/{number:int}/log/{stream:str}", summary="What a trial wrote to stdout or stderr")
    async def log(
        number: Number,
        stream: Annotated[Literal["stdout", "stderr"], PathParameter()],
        offset: Annotated[int, QueryParameter(ge=-(2**53), le=2**53, description="Negative: from the end.")] = 0,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LOG)] = 1 << 16,
    ) -> Response[bytes]:
        one = _trial(source.state, number)
        path = source.folder.trials / one.id / str(one.attempt) / stream
        return json(await asyncio.to_thread(_piece, path, offset, limit))

    @get("/api/events", summary="Events of the log")
    async def events(
        after: Annotated[int, QueryParameter(ge=0, le=2**53)] = 0,
        before: Annotated[int | None, QueryParameter(ge=1, le=2**53)] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS)] = 500,
    ) -> Response[bytes]:
        try:
            found = await asyncio.to_thread(source.rows, after, before, limit)
        except TuneError as error:
            raise Wrong(409, error.message, error.hint or "") from None
        return json([views.fact(one) for one in found])

    @get("/api/figures", summary="Which figures there are")
    async def figure_names() -> Response[bytes]:
        return json(figures.listed(source.state))

    @get("/api/figures/{name:str}", summary="One figure, as Plotly draws it")
    async def figure(
        request: Request[Any, Any, Any], name: Annotated[str, PathParameter(max_length=80)], at_seq: Seq = None
    ) -> Response[bytes]:
        if name not in figures.TITLES:
            raise Wrong(404, f"there is no figure {name[:80]!r}", f"allowed: {', '.join(figures.TITLES)}")
        state = await at(at_seq)
        try:
            drawn = await asyncio.to_thread(figures.draw, state, name, dict(request.query_params))
        except figures.FigureError as error:
            raise Wrong(409, str(error)) from None
        return json(drawn)

    # -- streams --------------------------------------------------------------------------------------------------
    @get("/api/stream", summary="Server-sent events: what changes", media_type="text/event-stream")
    async def stream(request: Request[Any, Any, Any], after: _After = None) -> Stream:
        return _events(lambda: changes(source, _last_id(request, after), port))

    @get("/api/log/stream", summary="Server-sent events: every event of the log", media_type="text/event-stream")
    async def log_stream(request: Request[Any, Any, Any], after: _After = None) -> Stream:
        return _events(lambda: facts(source, _last_id(request, after) or 0))

    # -- what can be changed --------------------------------------------------------------------------------------
    @post("/api/stop", summary="End the experiment")
    async def stop(data: JSONBody[Stop]) -> Response[bytes]:
        return await have(AskStop(_ACTOR, data.force))

    @post("/api/trials", summary="Run a trial with these parameters")
    async def add(data: JSONBody[NewTrial]) -> Response[bytes]:
        return await have(AskTrial(_ACTOR, msgspec.json.encode(data.parameters).decode()))

    @post("/api/trials/{number:int}/kill", summary="End one trial")
    async def kill(number: Number, data: JSONBody[Stop]) -> Response[bytes]:
        del data  # a body is asked for, so that no form of another site can send it
        return await have(AskKill(_ACTOR, number))

    @post("/api/update", summary="Change limits or the search space")
    async def update(data: JSONBody[Update]) -> Response[bytes]:
        if data.duration is not None:
            try:
                seconds(data.duration)
            except ValueError as error:
                raise Wrong(400, f"duration: {error}") from None
        space = None if data.search_space is None else msgspec.json.encode(data.search_space).decode()
        return await have(AskUpdate(_ACTOR, data.concurrency, data.max_trials, data.duration, space))

    @post("/api/import", summary="Give the tuner results from elsewhere")
    async def import_(data: JSONBody[list[Result]]) -> Response[bytes]:
        if not 1 <= len(data) <= MAX_IMPORT:
            raise Wrong(400, f"found {len(data)} results; allowed: 1 to {MAX_IMPORT}")
        answer = json(Done(), 201)
        for one in data:
            parameters, value = (msgspec.json.encode(each).decode() for each in (one.parameter, one.value))
            answer = await have(AskImport(_ACTOR, parameters, value))
        return answer

    # -- notes ----------------------------------------------------------------------------------------------------
    @get("/api/notes", summary="What people wrote down")
    async def notes() -> Response[bytes]:
        return json({"text": await asyncio.to_thread(_notes, source.folder)})

    @post("/api/notes", summary="Write something down")
    async def write_notes(data: JSONBody[Notes]) -> Response[bytes]:
        if not source.commands:
            raise Wrong(409, "this portal only shows the experiment")
        try:
            await asyncio.to_thread(_write_notes, source.folder, data.text)
        except OSError as error:
            raise Wrong(409, f"the notes can't be written: {error.strerror}") from None
        return json(Done(seq=source.seq), 201)

    @get("/api/compare", summary="Another experiment beside this one")
    async def compare(
        other: Annotated[str, QueryParameter(name="with", max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")],
    ) -> Response[bytes]:
        return json(await asyncio.to_thread(_compared, source, other))

    return [
        *(page, static, status, config, experiments, trials, trial, log, events, stream, log_stream),
        *(figure_names, figure),
        *(stop, add, kill, update, import_, notes, write_notes, compare),
    ]


_After = Annotated[int | None, QueryParameter(ge=0, le=2**53, description="The last event that was seen.")]
_ACTOR = f"portal (pid {os.getpid()})"


def _trial(state: State, number: int) -> Any:
    try:
        return state.trial(number)
    except KeyError:
        raise Wrong(404, f"there is no trial {number}", f"It has {len(state.made)} so far.") from None


def _last_id(request: Request[Any, Any, Any], after: int | None) -> int | None:
    said = request.headers.get("last-event-id", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 17 else after


def _events(make: Callable[[], Any]) -> Stream:
    return Stream(make, media_type="text/event-stream", headers={**_FRESH, "x-accel-buffering": "no"})


# -- files ------------------------------------------------------------------------------------------------------------
def _names() -> frozenset[str]:
    return frozenset(entry.name for entry in os.scandir(STATIC) if entry.is_file())


def _file(path: Path) -> Response[bytes]:
    headers = {"cache-control": "no-cache"}
    return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=headers)


def _plotly() -> Response[bytes]:
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise Wrong(404, "plotly is not installed", "pip install plotly")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    headers = {"cache-control": "private, max-age=86400"}
    return Response(path.read_bytes(), media_type=KINDS[".js"], headers=headers)


def _piece(path: Path, offset: int, limit: int) -> dict[str, Any]:
    """A piece of a trial's output; no link is followed, so it is the file that we made."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {"offset": 0, "size": 0, "text": ""}
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        start = max(size + offset, 0) if offset < 0 else min(offset, size)
        file.seek(start)
        data = file.read(limit)
    return {"offset": start, "size": size, "next": start + len(data), "text": data.decode("utf-8", "replace")}


def _experiments() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for folder in home.experiments():
        try:
            view = client.View(folder)
        except TuneError:
            continue
        view.close()
        if view.state.config is not None:
            pid = client.engine_pid(folder)
            found.append(views.status(view.state, folder=folder.path, pid=pid, log=folder.events))
    return found


def _notes(folder: home.Folder) -> str:
    try:
        return (folder.path / "notes.md").read_text(encoding="utf-8", errors="replace")[:MAX_NOTES]
    except FileNotFoundError:
        return ""


def _write_notes(folder: home.Folder, text: str) -> None:
    path = folder.path / "notes.md.new"
    path.write_text(text, encoding="utf-8", errors="replace")
    path.chmod(0o600)
    path.replace(folder.path / "notes.md")


def _compared(source: Source, other: str) -> dict[str, Any]:
    try:
        folder = home.find(other)
        view = client.View(folder)
    except UsageError as error:
        raise Wrong(404, error.message, error.hint or "") from None
    except TuneError as error:
        raise Wrong(409, error.message, error.hint or "") from None
    view.close()
    if view.state.config is None:
        raise Wrong(409, f"the log of experiment {other} is empty")
    pair = (source.state, view.state)
    configs: list[dict[str, Any]] = [msgspec.json.decode(encode_config(state.settings)) for state in pair]
    return {
        "ids": [source.folder.id, folder.id],
        "best": [views.best(state) for state in pair],
        "curves": [_curve(state) for state in pair],
        "differences": {
            name: [config.get(name) for config in configs]
            for name in sorted({*configs[0], *configs[1]})
            if configs[0].get(name) != configs[1].get(name)
        },
    }


def _curve(state: State) -> list[dict[str, Any]]:
    """The best result after each trial that has one, by number."""
    better = min if state.settings.optimize_mode == "minimize" else max
    found: list[dict[str, Any]] = []
    best: float | None = None
    for row in views.rows(state):
        value = row["value"]
        best = value if best is None else better(best, value)
        found.append({"trial": row["trial"], "value": value, "best": best})
    return found
