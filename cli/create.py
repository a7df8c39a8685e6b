"""`tune create`: a new experiment from a config file, followed until it has ended."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from ..engine import config_file, home
from ..engine.client import Opening, View, start, write_config
from ..engine.config_load import load
from ..engine.errors import TuneError, UsageError
from ..engine.host_check import check_hosts
from ..engine.portal_process import opening
from ..engine.registry import fold
from ..engine.requests import AskUpdate
from .follow import Ends, conclude, watch
from .interrupts import Interrupts
from .reading import Json, actor, emit, note, opened_at, printable, say_json

Detach: TypeAlias = Annotated[
    bool, Parameter(negative=(), help="Return when the engine has started; it goes on by itself.")
]
Foreground: TypeAlias = Annotated[
    bool,
    Parameter(name=["--foreground", "-f"], negative=(), help="Run the engine in this very process (for containers)."),
]
ConfigFile: TypeAlias = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="The config: .toml, .yaml or .json.")
]
Port: TypeAlias = Annotated[
    int | None,
    Parameter(name=["--port", "-p"], help="Open the web portal at this port of 127.0.0.1; 0 takes any free one."),
]
Host: TypeAlias = Annotated[
    str | None,
    Parameter(help="Open it at this name or address instead, for other machines; needs --tls-cert and --tls-key."),
]
Certificate: TypeAlias = Annotated[Path | None, Parameter(help="File (PEM) of the certificate that the portal shows.")]
Key: TypeAlias = Annotated[Path | None, Parameter(help="File (PEM) of the certificate's key.")]


def create(
    config: ConfigFile = None,
    *,
    id: Annotated[str | None, Parameter(help="Id of the experiment; left out, one is made.")] = None,
    detach: Detach = False,
    foreground: Foreground = False,
    port: Port = None,
    host: Host = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    json: Json = False,
) -> int:
    """Start an experiment and follow it. Ctrl-C stops it; a closed terminal does not."""
    if config is None:
        raise UsageError("tune create: which config?", "Name a file: tune create config.toml")
    check_flags(detach, foreground)
    resolved, notes = load(config)
    notes += check_hosts(resolved)
    with Interrupts() as interrupts, opening(port, host, tls_cert, tls_key) as portal:
        folder, more = home.create(id)
        begun = Begun(folder, interrupts, json, portal)
        try:
            for text in [*notes, *more]:
                note(f"note: {printable(text)}")
            write_config(folder, resolved, digests(config))
            begun.announce()
            begun.start(foreground, None)
        except BaseException:
            if not begun.committed():
                home.remove(folder)
            raise
        return begun.finish(detach)


class Begun:
    """A folder and the engine that is started for it: what create and resume have in common."""

    def __init__(
        self,
        folder: home.Folder,
        interrupts: Interrupts,
        json: bool,
        portal: Opening | None,
        before: Ends = (),
    ) -> None:
        self._folder, self._interrupts, self._json, self._before = folder, interrupts, json, before
        self._portal = portal
        self._actor = actor()
        self._code: int | None = None
        self._started = False

    def announce(self) -> None:
        """Say the id, at once."""
        text = f"Experiment ID: {self._folder.id}"
        if self._json:
            note(text)
        else:
            emit(text + "\n")

    def start(self, foreground: bool, updates: AskUpdate | None) -> None:
        """Start the engine; in the foreground this runs the whole experiment. `KeyboardInterrupt`, `TuneError`."""
        self._interrupts.check()
        if foreground:
            self._code = self._run_here(updates)
        else:
            start(
                self._folder,
                actor=self._actor,
                updates=updates,
                cancel=self._interrupts.fd,
                portal=self._portal,
            )
            self._announce_portal()

    def _announce_portal(self) -> None:
        if self._portal is not None:
            text = f"Web portal: {self._portal.url}"
            if self._json:
                note(text)
            else:
                emit(text + "\n")

    def committed(self) -> bool:
        """Whether the log holds an experiment that may go on: then its folder stays."""
        if self._started:
            return True
        try:
            view = View(self._folder)
        except TuneError:
            return False
        try:
            return view.state.status == "STOPPED"
        finally:
            view.close()

    def finish(self, detach: bool) -> int:
        """Follow the engine, unless that is not wanted; the exit code."""
        if self._code is not None:
            return self._code
        if detach:
            if self._json:
                with opened_at(self._folder) as experiment:
                    say_json({**experiment.status(), **self._url()})
            return 0
        state = watch(self._folder, self._interrupts, self._actor, json=self._json, before=self._before)
        return conclude(state, self._folder, self._interrupts.count > 0, self._json, self._url())

    def _url(self) -> dict[str, object]:
        return {} if self._portal is None else {"port": self._portal.port, "url": self._portal.url}

    def _run_here(self, updates: AskUpdate | None) -> int:
        import structlog

        from ..engine.events import Fact
        from ..engine.state import State
        from .follow import Plain, Silent
        from .serve import log_to, run_foreground

        screen = Silent() if self._json else Plain()

        def started() -> None:
            self._started = True
            self._announce_portal()
            if self._interrupts.count:  # it came before the engine listened to signals
                os.kill(os.getpid(), signal.SIGINT)

        def shown(state: State, fact: Fact) -> None:
            screen.show(state, (fact,))

        with self._folder.engine_log.open("a", encoding="utf-8") as file:
            log_to(file)
            try:
                state = run_foreground(
                    self._folder,
                    actor=self._actor,
                    updates=updates,
                    on_started=started,
                    on_fact=shown,
                    portal=self._portal,
                )
            except TuneError:
                raise
            except Exception as error:
                structlog.get_logger("engine").exception("the engine failed")
                raise TuneError(f"the engine failed: {error}", f"See {self._folder.engine_log}.") from error
            finally:
                self._interrupts.take()
        return conclude(state, self._folder, state.stopping == self._actor, self._json, self._url())


def check_flags(detach: bool, foreground: bool) -> None:
    """`UsageError` for what can't be asked for together."""
    if detach and foreground:
        raise UsageError("--detach and --foreground exclude each other", "Leave one of them out.")


def digests(config: Path) -> dict[str, str]:
    """The files that a config came from, each with the digest of its content, so that a resume sees a change."""
    files = [config.absolute()]
    data = config_file.read(config).data
    for key, value in data.items() if config_file.is_table(data) else ():
        if fold(str(key)) in ("searchspacefile", "searchspacepath") and isinstance(value, str):
            files.append(files[0].parent / Path(value).expanduser())
    return {str(path): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in files}
