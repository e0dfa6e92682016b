"""Local programs: calls, what they leave when they go away, and requests that are none."""

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from insula.daemon.admin import local as serving_local
from insula.daemon.admin.local import LocalServer
from insula.daemon.admin.local_calls import FOR_CALLER, LocalCalls
from insula.daemon.lifecycle.viewers import Viewers
from insula.daemon.model.qube import PowerState, Qube
from insula.protocol import local
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from tests.serving import TIMEOUT, Instance, user

NOT_FOUND = 127  # qrexec's exit code for a service that is not there


class _NoViewers:
    """For requests that show nothing."""

    async def pids(self) -> dict[Any, int]:
        return {}


@dataclass
class Caller:
    """A local program's connection."""

    connection: socket.socket
    fields: dict[str, Any] = field(default_factory=dict)
    descriptors: list[int] = field(default_factory=list)

    async def send(self, record: bytes, given: tuple[int, ...] = ()) -> None:
        await asyncio.to_thread(socket.send_fds, self.connection, [record], list(given))

    async def receive(self) -> None:
        received, self.descriptors, _, _ = await asyncio.to_thread(
            socket.recv_fds, self.connection, local.MAX_RECORD, 4
        )
        self.fields = local.decode(received) if received else {}

    async def ask(self, op: str, *given: int, **fields: object) -> "Caller":
        await self.send(local.encode({"op": op, **fields}), given)
        await self.receive()
        return self

    def close(self) -> None:
        self.connection.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


@dataclass
class Local:
    """A local socket, and those connected to it."""

    instance: Instance
    path: Path
    calls: LocalCalls
    callers: list[Caller] = field(default_factory=list)

    def connect(self) -> Caller:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(TIMEOUT)
        connection.connect(str(self.path))
        self.callers.append(Caller(connection))
        return self.callers[-1]

    async def call(self, target: str, **more: object) -> Caller:
        """Call what is not there: a shell would run whatever this host's user has it run first."""
        return await self.connect().ask("call", **fields(target), **more)


def fields(target: str) -> dict[str, object]:
    return {"target": target, "service": "no.such.Service", "user": user()}


@pytest_asyncio.fixture
async def served(instance: Instance) -> AsyncIterator[Local]:
    await instance.disposables("mould")
    instance.told.clear()
    viewers = cast(Viewers, _NoViewers())
    calls = LocalCalls(
        instance.api, instance.templates, instance.snapshots, viewers, instance.decide.would_allow
    )
    path = instance.run / local.SOCKET_NAME
    server = LocalServer(path, calls.handlers(), FOR_CALLER)
    server.start()
    made = Local(instance, path, calls)
    try:
        yield made
    finally:
        for caller in made.callers:
            caller.close()
        await server.close()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


async def _exit_code(caller: Caller) -> int | None:
    """The exit code of what was called."""
    assert "error" not in caller.fields, caller.fields
    nonce = bytes.fromhex(caller.fields["nonce"])
    connection = DataConnection(caller.descriptors.pop(), nonce)
    await asyncio.to_thread(relay, [connection])
    connection.close()
    return connection.code


async def test_a_call_starts_its_qube_and_answers(served: Local) -> None:
    caller = await served.call("work")
    assert caller.fields["qube"] == "work"
    assert await _exit_code(caller) == NOT_FOUND
    assert served.instance.system.named("work").power is PowerState.RUNNING


async def test_a_call_that_is_not_to_start_its_qube_is_refused(served: Local) -> None:
    caller = await served.call("work", autostart=False)
    assert caller.fields["error"] == "QubesVMNotRunningError"
    assert "qvm-start work" in caller.fields["message"]


async def test_a_disposable_ends_with_its_call(served: Local) -> None:
    caller = await served.call("@dispvm")
    name = caller.fields["qube"]
    assert await _exit_code(caller) == NOT_FOUND
    assert served.instance.system.has_name(name)
    caller.close()
    await _until(lambda: not served.instance.system.has_name(name))
    assert served.instance.processes() == set()


async def test_a_disposable_is_made_from_the_template_that_is_named(served: Local) -> None:
    caller = await served.call("@dispvm:mould")
    assert "error" not in caller.fields
    caller = await served.call("@dispvm:work")
    assert caller.fields["error"] == "QubesException"
    caller = await served.call("@dispvm:nobody")
    assert caller.fields["error"] == "QubesVMNotFoundError"


async def test_a_caller_that_goes_away_while_its_disposable_starts_takes_it_along(
    served: Local,
) -> None:
    caller = served.connect()
    await caller.send(local.encode({"op": "call", **fields("@dispvm")}))
    await _until(lambda: "domain-pre-spawn" in served.instance.names())
    (made,) = _disposables(served.instance)
    caller.close()
    await _until(lambda: "domain-delete" in served.instance.names())
    assert not served.instance.system.has_name(made.name)
    assert "domain-start" not in served.instance.names(made.name)
    assert served.instance.processes() == set()
    assert served.instance.world.store.load().runs == []


async def test_a_caller_that_goes_away_leaves_an_ordinary_qube_to_start(served: Local) -> None:
    caller = served.connect()
    await caller.send(local.encode({"op": "call", **fields("work")}))
    await _until(lambda: "domain-pre-spawn" in served.instance.names())
    caller.close()
    work = served.instance.system.named("work")
    await _until(lambda: work.power is PowerState.RUNNING)


async def test_a_disposable_whose_start_fails_is_told_and_gone(served: Local) -> None:
    served.instance.system.named("mould").features["prohibit-start"] = "no"
    caller = await served.call("@dispvm")
    assert caller.fields["error"] == "QubesException"
    assert "may not be started: no" in caller.fields["message"]
    assert not _disposables(served.instance)


async def test_a_paused_qube_takes_no_calls(served: Local) -> None:
    work = served.instance.system.named("work")
    await served.instance.power.start(work)
    await served.instance.power.pause(work)
    caller = await served.call("work")
    assert caller.fields["error"] == "QubesVMNotRunningError"
    assert "paused" in caller.fields["message"]


async def test_a_disposable_outlives_the_daemon_that_made_it(served: Local) -> None:
    """A signal ends the server; the disposable is the next daemon's to end."""
    caller = await served.call("@dispvm")
    made = served.instance.system.named(caller.fields["qube"])
    assert made.fleeting
    server = LocalServer(served.instance.run / "other.sock", served.calls.handlers(), FOR_CALLER)
    server.start()
    second = Local(served.instance, served.instance.run / "other.sock", served.calls)
    other = await second.call("@dispvm")
    kept = served.instance.system.named(other.fields["qube"])
    await server.close()
    other.close()
    assert kept.power is PowerState.RUNNING
    assert served.instance.system.has_name(kept.name)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "QubesException"),
        ({"op": "nonsense"}, "QubesException"),
        ({"op": ["call"]}, "QubesException"),
        ({"op": "call"}, "QubesValueError"),
        ({"op": "call", "target": "work"}, "QubesValueError"),
        ({"op": "call", "target": "nobody", "command": "true"}, "QubesVMNotFoundError"),
        ({"op": "call", "target": "dom0", "command": "true"}, "QubesVMError"),
        ({"op": "window"}, "QubesValueError"),
        ({"op": "window", "qube": "work"}, "QubesValueError"),
        ({"op": "window", "qube": "nobody"}, "QubesVMNotFoundError"),
        ({"op": "template", "name": "x", "recipe": "not one"}, "QubesValueError"),
        ({"op": "template", "name": "x", "recipe": "0123456789"}, "QubesValueError"),
        ({"op": "golden", "qube": "nobody"}, "QubesVMNotFoundError"),
        ({"op": "golden"}, "QubesValueError"),
    ],
)
async def test_requests_that_are_refused(
    served: Local, fields: dict[str, object], error: str
) -> None:
    caller = served.connect()
    await caller.send(local.encode(fields))
    await caller.receive()
    assert caller.fields["error"] == error
    assert caller.fields["message"]


@pytest.mark.parametrize("record", [b"\xff", b"[]", b"{", b"x" * (local.MAX_RECORD + 1)])
async def test_records_that_are_none_end_their_connection(served: Local, record: bytes) -> None:
    caller = served.connect()
    await caller.send(record)
    await caller.receive()
    assert caller.fields == {}
    assert "running" in (await served.connect().ask("status")).fields


async def test_descriptors_that_nobody_asked_for_are_closed(served: Local) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for count in (1, 4, 30):
        caller = served.connect()
        read, write = os.pipe()
        given = array.array("i", [write] * count)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)]
        caller.connection.sendmsg([local.encode({"op": "status"})], rights)
        os.close(write)
        await caller.receive()
        caller.close()
        # The pipe ends when nobody holds its other end any more.
        assert await asyncio.to_thread(os.read, read, 1) == b""
        os.close(read)
    await _until(lambda: len(os.listdir("/proc/self/fd")) <= before)  # noqa: PTH208


async def test_idle_callers_keep_nobody_from_being_served(
    served: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_local, "REQUEST_TIMEOUT", 0.2)
    idle = [served.connect() for _ in range(100)]
    assert "running" in (await served.connect().ask("status")).fields
    await idle[-1].receive()
    assert idle[-1].fields == {}


async def test_the_instance_shows_what_runs(served: Local) -> None:
    await served.instance.power.start(served.instance.system.named("work"))
    status = (await served.connect().ask("status")).fields
    assert status["engine"] == "memory"
    (running,) = status["running"]
    assert (running["name"], running["state"]) == ("work", "Running")
    assert running["private"] > 0


async def test_stopping_ends_qubes_and_then_the_daemon(served: Local) -> None:
    work = served.instance.system.named("work")
    await served.instance.power.start(work)
    caller = await served.connect().ask("stop", kill=False)
    assert caller.fields == {}
    assert work.halted
    assert not served.calls.stopping.is_set()
    caller.close()
    async with asyncio.timeout(TIMEOUT):
        await served.calls.stopping.wait()


def _disposables(instance: Instance) -> list[Qube]:
    return [qube for qube in instance.system.qubes.values() if qube.name.startswith("disp")]


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [("dom0", "mould", True), ("mould", "dom0", False), ("mould", "mould", False)],
)
async def test_the_policy_is_asked_about_two_qubes_and_its_ask_counts_as_allowed(
    served: Local, source: str, target: str, allowed: bool
) -> None:
    asked = {"service": "qubes.ClipboardPaste", "source": source, "target": target}
    assert (await served.connect().ask("evaluate", **asked)).fields == {"allowed": allowed}


@pytest.mark.parametrize("missing", ["service", "source", "target"])
async def test_nothing_is_evaluated_for_qubes_that_are_not_there(
    served: Local, missing: str
) -> None:
    asked = {"service": "qubes.ClipboardPaste", "source": "dom0", "target": "mould"}
    asked[missing] = "" if missing == "service" else "nowhere"
    assert "error" in (await served.connect().ask("evaluate", **asked)).fields
