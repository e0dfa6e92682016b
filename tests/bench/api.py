"""What the Admin API does in a second, with 200 qubes there. No machine is run."""

import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from insula.daemon.model.changes import set_property
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.qube import Qube
from insula.protocol import admin
from tests.bench.commands import QUBES, instance_of_qubes
from tests.bench.report import Figure, interleaved, median
from tests.serving import Instance, serving

CALLS = 400
ROUNDS = 5
EVENTS = 300
CHANGES = 400
WRITERS = 8
_CHUNK = 65_536


def api() -> list[Figure]:
    """Calls over new connections, events, and changes that are kept."""
    with instance_of_qubes() as run:
        path = str(run / "qubesd.sock")
        listing, all_of_one = interleaved(
            ROUNDS,
            lambda: _per_second(path, "admin.vm.List", "dom0"),
            lambda: _per_second(path, "admin.vm.property.GetAll", "work-7"),
        )
        delays = _delays(path)
    measured = [_changes() for _ in range(ROUNDS)]
    kept, bare = (median(ones) for ones in zip(*measured, strict=True))
    return [
        _rate(f"admin.vm.List, {QUBES} qubes", listing, 1000),
        _rate("admin.vm.property.GetAll", all_of_one, 400),
        Figure(
            "property-set to a subscriber's event, median",
            f"{median(delays) * 1000:.2f} ms",
            "under 2 ms",
            median(delays) < 0.002,
            tuple(delays),
        ),
        Figure(
            f"changes kept, {WRITERS} at a time",
            f"{kept:.0f}/s; SQLite alone {bare:.0f}/s",
            "at least half of SQLite's",
            kept * 2 >= bare,
            tuple(one for one, _ in measured),
        ),
    ]


def _rate(name: str, samples: list[float], least: int) -> Figure:
    seen = median(samples)
    return Figure(name, f"{seen:.0f}/s", f"at least {least}/s", seen >= least, tuple(samples))


def _per_second(path: str, method: str, destination: str) -> float:
    request = admin.encode_request(method, "", destination)
    begun = time.perf_counter()
    for _ in range(CALLS):
        if not _ask(path, request).startswith(b"0\0"):
            raise RuntimeError(f"{method} was refused")
    return CALLS / (time.perf_counter() - begun)


def _ask(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(_CHUNK):
            received += data
    return received


def _delays(path: str) -> list[float]:
    """Seconds from a change's request to its event, durable as it is by then."""
    found = []
    with socket.socket(socket.AF_UNIX) as subscriber:
        subscriber.connect(path)
        subscriber.sendall(admin.encode_request("admin.Events", "", "dom0"))
        subscriber.shutdown(socket.SHUT_WR)
        received = bytearray()
        _next(subscriber, received, "connection-established")
        for number in range(EVENTS):
            request = _change(7, number)
            begun = time.perf_counter()
            _ask(path, request)
            _next(subscriber, received, "property-set:memory")
            found.append(time.perf_counter() - begun)
    return found


def _next(subscriber: socket.socket, received: bytearray, name: str) -> None:
    while True:
        while (event := admin.take_event(received)) is not None:
            if isinstance(event, admin.Event) and event.name == name:
                return
        received += subscriber.recv(_CHUNK)


def _change(qube: int, number: int) -> bytes:
    value = str(400 + number).encode()
    return admin.encode_request("admin.vm.property.Set", "memory", f"work-{qube}", value)


def _changes() -> tuple[float, float]:
    """Changes of qubes that are kept in a second, and as many rows by SQLite alone."""
    words = [sys.executable, "-m", "tests.bench.api"]
    done = subprocess.run(words, capture_output=True, timeout=300, check=True)
    kept, bare = json.loads(done.stdout)
    return kept, bare


async def _measure() -> None:
    with tempfile.TemporaryDirectory(prefix="insula-") as folder:
        async with serving(Path(folder, "home")) as instance:
            await instance.template()
            qubes = [await instance.qube(f"work-{number}") for number in range(WRITERS)]
            begun = time.perf_counter()
            await asyncio.gather(*(_write(instance, qube) for qube in qubes))
            kept = CHANGES / (time.perf_counter() - begun)
        document = json.dumps(qubes[0].to_json())
        print(json.dumps([kept, _bare(Path(folder, "bare.db"), document)]))


async def _write(instance: Instance, qube: Qube) -> None:
    prop = BY_CLASS[qube.klass]["memory"]
    for number in range(CHANGES // WRITERS):
        async with instance.world.editing() as edit:
            set_property(edit, qube, prop, 400 + number)


def _bare(path: Path, document: str) -> float:
    """The same rows written by SQLite alone, a transaction each."""
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=FULL")
        store.execute("CREATE TABLE qube (uuid TEXT PRIMARY KEY, document TEXT) WITHOUT ROWID")
        begun = time.perf_counter()
        for number in range(CHANGES):
            row = (f"{number % WRITERS:036}", document)
            store.execute("INSERT OR REPLACE INTO qube VALUES (?, ?)", row)
        return CHANGES / (time.perf_counter() - begun)


if __name__ == "__main__":
    asyncio.run(_measure())
