"""A container of Azure Blob Storage as a shelf of named files, each whole or not there, with notes on them.

The library is synchronous, so its calls run in threads, and each of its waits for the service has an end. It is
imported only here, and only when blobs are used. The key never leaves this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from .config import SharedStorage
from .errors import TuneError
from .secret import secret

PATIENCE = 20.0  # seconds that the service may say nothing
_BLOCK = 4 << 20
_Result = TypeVar("_Result")


class BlobsError(TuneError):
    """The storage can't be used, now or at all; the message says why."""


class Blobs:
    """One container. `patience`, in seconds, is how long the service may say nothing."""

    def __init__(self, storage: SharedStorage, patience: float = PATIENCE) -> None:
        """`BlobsError` when a secret is not there, or the library is not."""
        self._storage, self._patience = storage, patience
        self.where = f"container {storage.container_name} of {storage.storage_account_name or 'the storage account'}"
        try:
            module: Any = importlib.import_module("azure.storage.blob")
        except ImportError as error:
            raise BlobsError(
                f"Azure Blob Storage needs azure-storage-blob: {error}", "pip install 'tune-engine[azure]'"
            ) from error
        try:
            self._client = self._connected(module)
        except ValueError as error:  # never with what was said: it may hold the key
            raise BlobsError(f"{self._reference}: no connection string of a storage account") from error

    @property
    def _reference(self) -> str:
        return self._storage.connection_string or self._storage.storage_account_key or ""

    def _connected(self, module: Any) -> Any:
        storage = self._storage
        options: dict[str, Any] = {
            "retry_total": 0,  # trying again is for those who know what waits
            "connection_timeout": self._patience,
            "read_timeout": self._patience,
            "max_block_size": _BLOCK,
            "max_single_put_size": _BLOCK,
            "max_single_get_size": _BLOCK,
            "max_chunk_get_size": _BLOCK,
        }
        if storage.connection_string is not None:
            text = secret(storage.connection_string, "shared storage")
            return module.ContainerClient.from_connection_string(text, storage.container_name, **options)
        key = secret(storage.storage_account_key or "", "shared storage")
        return module.ContainerClient(
            f"https://{storage.storage_account_name}.blob.core.windows.net",
            storage.container_name,
            credential={"account_name": storage.storage_account_name, "account_key": key},
            **options,
        )

    async def check(self) -> None:
        """Find out whether the container is there and lets us in. `BlobsError`."""
        await self._do(self._client.get_container_properties)

    async def names(self, prefix: str) -> dict[str, dict[str, str]]:
        """The files whose name begins so, with their notes. `BlobsError`."""

        def listed() -> dict[str, dict[str, str]]:
            found = self._client.list_blobs(name_starts_with=prefix, include=["metadata"])
            return {str(one.name): dict(one.metadata or {}) for one in found}

        return await self._do(listed)

    async def put(self, name: str, path: Path, notes: dict[str, str]) -> None:
        """Store a file, in the place of what has this name: it is there when this returns. `BlobsError`."""

        def stored() -> None:
            with path.open("rb") as file:
                self._client.upload_blob(name, file, length=path.stat().st_size, overwrite=True, metadata=notes)

        await self._do(stored)

    async def get(self, name: str, path: Path) -> dict[str, str] | None:
        """Write a stored file to `path`: its notes, or None when there is none of this name. `BlobsError`."""

        def fetched() -> dict[str, str] | None:
            try:
                found = self._client.download_blob(name)
            except Exception as error:
                if _code(error) == "BlobNotFound":
                    return None
                raise
            with path.open("wb") as file:
                found.readinto(file)
            return dict(found.properties.metadata or {})

        return await self._do(fetched)

    async def close(self) -> None:
        """End the connections."""
        await _in_thread(self._client.close)

    async def _do(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await _in_thread(work)
        except Exception as error:  # the library's own, of many kinds
            raise self._said(error) from error

    def _said(self, error: Exception) -> BlobsError:
        """What went wrong, without what the service or the library quotes."""
        code, kind = _code(error), type(error).__name__
        if "Timeout" in kind:
            return BlobsError(f"{self.where} does not answer within {self._patience:g} s")
        if code in ("ContainerNotFound", "ContainerBeingDeleted"):
            name = self._storage.container_name
            return BlobsError(f"{self.where}: there is no such container", f"az storage container create --name {name}")
        if getattr(error, "status_code", None) in (401, 403) or "Signing" in kind:
            return BlobsError(f"{self.where} does not let us in ({code or kind})", f"Is {self._reference} its key?")
        if isinstance(error, OSError):
            return BlobsError(f"{self.where}: {error.strerror or kind} ({error.filename or 'no file'})")
        if code:
            return BlobsError(f"{self.where}: {code}")
        return BlobsError(
            f"{self.where} can't be reached ({kind}: {str(error).splitlines()[0][:200] if str(error) else ''})"
        )


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Do something in a thread that nobody has to wait for: the end of an engine does not, when the service is away."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("_Result", result))

    def run() -> None:
        result: _Result | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="blobs", daemon=True).start()
    return await future


def _code(error: Exception) -> str:
    code: Any = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")
