"""A daemon that speaks the formats which a session needs, and ends and comes back at will."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from insula.daemon.admin.local import Answer, LocalServer, Request
from insula.keeper.client import Spawned
from insula.protocol import admin, local
from insula.protocol.admin import AdminRequest, ListedQube
from insula.protocol.errors import ReportableError
from tests.desktop.host import LABEL, UID, Host


class _NotRunningError(ReportableError):
    api_name = "QubesVMNotRunningError"


@dataclass(slots=True)
class FakeQube:
    """A qube that the daemon lists."""

    name: str
    uuid: UUID = field(default_factory=uuid4)
    running: bool = True
    features: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    opened: list[Spawned] = field(default_factory=list)


class FakeDaemon:
    """Serves qubesd.sock and local.sock of a host's instance, on the host's loop."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.qubes: dict[str, FakeQube] = {}
        self.properties: dict[str, str] = {}
        self.asked = 0  # for windows
        self.refuses = False  # to open any
        self.pastes: set[tuple[str, str]] = set()  # that the policy allows
        self._streams: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._admin: asyncio.Server | None = None
        self._local: LocalServer | None = None

    @classmethod
    @contextmanager
    def serving(cls, host: Host) -> Iterator["FakeDaemon"]:
        daemon = cls(host)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            for qube in daemon.qubes.values():
                host.call(host.viewers.close(qube.uuid))
                for spawned in qube.opened:
                    os.close(spawned.pidfd)

    def start(self) -> None:
        self.host.call(self._start())

    def stop(self) -> None:
        """End as a killed daemon does: connections break, viewers go on."""
        self.host.call(self._stop())

    def happened(self, qube: str, event: str) -> None:
        """Tell everyone who follows."""

        async def send() -> None:
            for stream in self._streams:
                stream.write(admin.event(qube, event))

        self.host.call(send())

    def followers(self) -> int:
        return len(self._streams)

    async def _start(self) -> None:
        self._admin = await asyncio.start_unix_server(self._serve, self.host.run / "qubesd.sock")
        self._local = LocalServer(
            self.host.run / local.SOCKET_NAME, {"window": self._window, "evaluate": self._evaluate}
        )
        self._local.start()

    async def _stop(self) -> None:
        if self._admin is None or self._local is None:
            return
        self._admin.close()
        (self.host.run / "qubesd.sock").unlink()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._local.close()
        self._admin = self._local = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            request, payload = admin.split_request(await reader.read())
            if request.method == "admin.Events":
                writer.write(admin.event("", "connection-established"))
                self._streams.add(writer)
                await asyncio.Event().wait()
            writer.write(self._answer(request, payload.decode()))
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._streams.discard(writer)
            self._connections.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, request: AdminRequest, payload: str) -> bytes:
        match request.method:
            case "admin.vm.List":
                listed = [ListedQube("dom0", "AdminVM", "Running", str(UUID(int=0)))]
                for qube in self.qubes.values():
                    state = "Running" if qube.running else "Halted"
                    listed.append(ListedQube(qube.name, "AppVM", state, str(qube.uuid)))
                return admin.ok("".join(admin.listed_qube_line(one) for one in listed))
            case "admin.vm.feature.CheckWithTemplate":
                features = self.qubes[request.destination].features
                if request.argument not in features:
                    return admin.exception("QubesFeatureNotFoundError", "not set")
                return admin.ok(features[request.argument])
            case "admin.vm.property.Set":
                self.properties[request.argument] = payload
                return admin.ok()
        return b""

    async def _evaluate(self, request: Request) -> Answer:
        pair = (str(request.fields["source"]), str(request.fields["target"]))
        assert request.fields["service"] == "qubes.ClipboardPaste"
        return Answer({"allowed": pair in self.pastes})

    async def _window(self, request: Request) -> Answer:
        self.asked += 1
        qube = self.qubes.get(str(request.fields["qube"]))
        if qube is None or not qube.running:
            raise _NotRunningError("it is not running")
        if self.refuses:
            raise ReportableError("no viewer can be opened")
        name, data = (bytes.fromhex(part) for part in request.fields["authorization"])
        spawned = await self.host.viewers.open(
            uuid=qube.uuid,
            name=qube.name,
            label=LABEL,
            uid=UID,
            options=qube.options,
            display=request.descriptors[0],
            session=request.descriptors[1],
            authorization=(name, data),
        )
        qube.opened.append(spawned)
        return Answer({"pid": spawned.pid}, [os.dup(spawned.pidfd)])
