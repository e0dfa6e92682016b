"""The state of an instance in SQLite: durable when `write` returns, whole whatever happens.

One thread writes; changes that wait while it flushes go together in its next transaction.
"""

import asyncio
import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from insula.daemon.model.labels import Label
from insula.daemon.model.pools import Pool
from insula.daemon.model.qube import Qube, Value
from insula.daemon.store.records import SCHEMA, SCHEMA_VERSION, Change, Run, setting_value
from insula.protocol.errors import ReportableError

FILE = "insula.db"
_RESERVE_FILE = "insula.db.reserve"
_RESERVE = 4 * 1024 * 1024  # bytes that are let go of when the disk is full
_MOST_TOGETHER = 256  # changes of one transaction

log = logging.getLogger(__name__)


class StoreError(ReportableError):
    """The instance's state cannot be read or written."""


@dataclass(slots=True)
class Stored:
    """All that the store holds."""

    qubes: list[Qube] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    settings: dict[str, Value] = field(default_factory=dict)
    pools: list[Pool] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


class _Work(NamedTuple):
    changes: tuple[Change, ...]
    done: "asyncio.Future[None]"


class Store:
    """An instance's state. Made on the event loop; its one thread is the only one that writes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._reserve = directory / _RESERVE_FILE
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._connection = _open(self._path)
        self._reserved = _size_on_disk(self._reserve) >= _RESERVE
        self._hold_reserve()
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    def load(self) -> Stored:
        """Read everything, while nothing is being written.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return _load(self._connection)
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(self._path, f"cannot be read: {error!r}") from error

    async def write(self, *changes: Change) -> None:
        """Make changes durable, all or none, in the order of the calls.

        Raises:
            StoreError: none of them was made.
        """
        await asyncio.shield(self.submit(*changes))

    def submit(self, *changes: Change) -> "asyncio.Future[None]":
        """As write; the answer comes when it is done, whoever still waits for it."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Work(changes, done))
        return done

    async def close(self) -> None:
        """End the thread once all that was asked for is written."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _serve(self) -> None:
        ending = False
        while not ending:
            taken = [self._queue.get()]
            with suppress(queue.Empty):
                while len(taken) < _MOST_TOGETHER:
                    taken.append(self._queue.get_nowait())
            if together := [work for work in taken if work is not None]:
                self._write_all(together)
            ending = None in taken

    def _write_all(self, together: list[_Work]) -> None:
        """Make changes in one transaction; if that fails, each in one of its own."""
        failure = self._failure([change for work in together for change in work.changes])
        if failure is None or len(together) == 1:
            self._settle(together, failure)
            return
        for work in together:
            self._settle([work], self._failure(work.changes))

    def _failure(self, changes: Sequence[Change]) -> StoreError | None:
        """Make changes durable; what kept them from it."""
        try:
            self._execute(changes)
        except (sqlite3.Error, OSError) as error:
            log.error("the store was not written", extra={"why": str(error)})
            failure = StoreError(f"{self._path} cannot be written: {error}")
            failure.hint = "Nothing was changed. Free space on that file system, then try again."
            return failure
        return None

    def _execute(self, changes: Sequence[Change]) -> None:
        try:
            _execute(self._connection, changes)
        except sqlite3.OperationalError:
            if not self._reserved or not any(change.frees_space for change in changes):
                raise
            # What frees space, as removing a qube does, must be possible without any.
            self._reserve.unlink(missing_ok=True)
            self._reserved = False
            _execute(self._connection, changes)
        else:
            self._hold_reserve()

    def _settle(self, together: list[_Work], failure: StoreError | None) -> None:
        with suppress(RuntimeError):  # The loop has ended: nobody waits any more.
            self._loop.call_soon_threadsafe(_settle, together, failure)

    def _hold_reserve(self) -> None:
        if self._reserved:
            return
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _RESERVE)
            finally:
                os.close(descriptor)
        except OSError:
            with suppress(OSError):
                self._reserve.unlink(missing_ok=True)
            return
        self._reserved = True


def _size_on_disk(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _settle(together: list[_Work], failure: StoreError | None) -> None:
    for work in together:
        if work.done.done():
            continue
        if failure is None:
            work.done.set_result(None)
        else:
            work.done.set_exception(failure)
            work.done.exception()  # Retrieved: its caller may be gone.


def _open(path: Path) -> sqlite3.Connection:
    """The database, with the tables of this version.

    Raises:
        StoreError: it is none of ours, or of a later version.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < SCHEMA_VERSION:
            steps = [statement for step in SCHEMA[version:] for statement in step]
            steps.append(f"PRAGMA user_version = {SCHEMA_VERSION}")
            _execute(connection, [Change(statement, ()) for statement in steps])
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise _unreadable(path, f"cannot be opened: {error}") from error
    if version > SCHEMA_VERSION:
        connection.close()
        later = StoreError(f"{path} was written by a later version of Insula")
        later.hint = "Use that version, or another INSULA_HOME."
        raise later
    return connection


def _unreadable(path: Path, why: str) -> StoreError:
    error = StoreError(f"{path} {why}")
    error.hint = (
        f"Put back a copy of {path.parent} that was made earlier, or move it out of the way."
    )
    return error


def _execute(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for change in changes:
            connection.execute(change.statement, change.values)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _load(connection: sqlite3.Connection) -> Stored:
    return Stored(
        qubes=[
            Qube.from_json(json.loads(document))
            for (document,) in connection.execute("SELECT document FROM qube")
        ],
        labels=[
            Label(number, name, color)
            for name, number, color in connection.execute(
                "SELECT name, number, color FROM label ORDER BY number"
            )
        ],
        settings={
            name: setting_value(document)
            for name, document in connection.execute("SELECT name, document FROM setting")
        },
        pools=[
            Pool.from_json(json.loads(document))
            for (document,) in connection.execute("SELECT document FROM pool ORDER BY name")
        ],
        runs=[
            Run(UUID(uuid), xid, started, bool(paused))
            for uuid, xid, started, paused in connection.execute("SELECT * FROM run")
        ],
    )
