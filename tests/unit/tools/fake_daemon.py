"""A daemon's two sockets over a system in memory, as far as the commands look at it.

It keeps what it was asked. refusals: (method, destination) to the exception that it answers;
silent: methods and destinations that get no answer at all. on_halted: called with a qube's name.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from insula.protocol import admin, local
from insula.protocol.admin import AdminRequest, ListedQube, PropertyAnswer
from tests.unit.tools.fake_agent import serve_call

LABELS = ("red", "orange", "yellow", "green", "gray", "blue", "purple", "black")
_COLOURS = (
    *("0xcc0000", "0xf57900", "0xedd400", "0x73d216"),
    *("0x555753", "0x3465a4", "0x75507b", "0x000000"),
)
CLASSES = ("AdminVM", "AppVM", "DispVM", "StandaloneVM", "TemplateVM")
NONE = PropertyAnswer(True, "vm", "")


class RefusedError(Exception):
    """An exception to answer: the name of its class, and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


@dataclass
class FakeQube:
    """One qube. stubborn: it does not shut down when asked to."""

    name: str
    klass: str = "AppVM"
    state: str = "Halted"
    properties: dict[str, PropertyAnswer] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    volumes: dict[str, dict[str, str]] = field(default_factory=dict)
    revisions: list[str] = field(default_factory=list)
    notes: str = ""
    firewall: str = "action=accept\n"
    devices: dict[str, str] = field(default_factory=dict)  # of class block: from argument
    # By class and list: its lines beside those of devices.
    listed_devices: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    denied: str = ""
    content: dict[str, str] = field(default_factory=dict)  # of volumes
    stubborn: bool = False

    def listed(self) -> str:
        """Its line of admin.vm.List."""
        return admin.listed_qube_line(ListedQube(self.name, self.klass, self.state, "0" * 36))


def answer(value: object, kind: str = "str", *, default: bool = False) -> PropertyAnswer:
    """A property."""
    return PropertyAnswer(default, kind, str(value))


class FakeDaemon:
    """Serves both sockets of a directory until closed."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self.qubes: dict[str, FakeQube] = {}
        self.system: dict[str, PropertyAnswer] = {"default_dispvm": NONE}
        self.requests: list[tuple[AdminRequest, bytes]] = []
        self.calls: list[dict[str, Any]] = []
        self.local: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.refusals: dict[tuple[str, str], RefusedError] = {}
        self.silent: set[tuple[str, str]] = set()
        self._open_calls = 0
        self._changed = threading.Condition()
        self.on_halted: Callable[[str], object] = lambda _name: None
        self._threads: list[threading.Thread] = []
        self._listeners: list[socket.socket] = []
        self.add(FakeQube("dom0", "AdminVM", "Running"))
        self.imports: dict[str, bytes | str] = {}  # of QUBE:VOLUME: what was imported, or why not
        for name in ("qubesd.sock", "qubesd.internal.sock"):
            self._listen(run / name, socket.SOCK_STREAM, self._serve_admin)
        self._listen(run / local.SOCKET_NAME, socket.SOCK_SEQPACKET, self._serve_local)

    def add(self, qube: FakeQube) -> FakeQube:
        """One qube more."""
        self.qubes[qube.name] = qube
        return qube

    def asked(self, method: str) -> list[tuple[str, str, bytes]]:
        """Destination, argument and payload of every request for a method."""
        return [
            (request.destination, request.argument, payload)
            for request, payload in self.requests
            if request.method == method
        ]

    def close(self) -> None:
        """Stop, once everything that was begun has ended."""
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        for listener in self._listeners:
            listener.close()

    def _listen(self, path: Path, kind: int, serve: Callable[[socket.socket], None]) -> None:
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(str(path))
        listener.listen(100)
        self._listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                self._begin(partial(serve, connection))

        self._begin(accept)

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve_admin(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            with connection.makefile("rb") as stream:
                request, payload = admin.split_request(stream.read())
            self.requests.append((request, payload))
            key = (request.method, request.destination)
            if key in self.silent:
                return
            try:
                if key in self.refusals:
                    raise self.refusals[key]
                connection.sendall(admin.ok(self._answer(request, payload.decode())))
            except RefusedError as refused:
                connection.sendall(admin.exception(refused.kind, refused.text))

    def _answer(self, request: AdminRequest, payload: str) -> str:  # noqa: PLR0911
        qube = self.qubes.get(request.destination)
        if qube is None:
            raise RefusedError("QubesVMNotFoundError", f"no such domain: {request.destination!r}")
        match request.method.split("."):
            case ["internal", "vm", "volume", action]:
                return self._import(f"{qube.name}:{request.argument}", action, payload)
            case ["admin", "vm", "List"]:
                everything = self.qubes.values() if qube.name == "dom0" else (qube,)
                return "".join(one.listed() for one in everything)
            case ["admin", "label", "List"]:
                return lines(LABELS)
            case ["admin", "label", "Get"]:
                return _COLOURS[LABELS.index(request.argument)]
            case ["admin", "label", "Index"]:
                return str(LABELS.index(request.argument) + 1)
            case ["admin", "vmclass", "List"]:
                return lines(CLASSES)
            case ["admin", "vm", ("Create" | "CreateInPool"), klass]:
                name = admin.parse_pairs(payload, " ")["name"]
                properties = {
                    "netvm": NONE,
                    "memory": answer("400", "int", default=True),
                    "installed_by_rpm": answer("False", "bool", default=True),
                    "virt_mode": answer("pvh", default=True),
                    "kernel": answer("6.1", default=True),
                }
                self.add(FakeQube(name, klass, properties=properties))
            case ["admin", "vm", "Remove"]:
                del self.qubes[qube.name]
            case ["admin", "vm", "CurrentState"]:
                return f"mem=204800 mem_static_max=0 cputime=0 power_state={qube.state}"
            case ["admin", "vm", "property", action]:
                return _property(qube.properties, action, request.argument, payload)
            case ["admin", "property", action]:
                return _property(self.system, action, request.argument, payload)
            case ["admin", "vm", "feature", action]:
                return _feature(qube, action, request.argument, payload)
            case ["admin", "vm", "tag", action]:
                return _tag(qube, action, request.argument)
            case ["admin", "deviceclass", "List"]:
                return "block\nmic\npci\nusb\n"
            case ["admin", "vm", "device", "denied", "List"]:
                return qube.denied
            case ["admin", "vm", "device", klass, "Assign"] if klass == "block":
                qube.devices[request.argument] = payload
            case ["admin", "vm", "device", klass, ("Available" | "Assigned" | "Attached") as kind]:
                stored = qube.devices if (klass, kind) == ("block", "Assigned") else {}
                found = qube.listed_devices.get((klass, kind), [])
                return lines([*map(" ".join, stored.items()), *found])
            case ["admin", "vm", "device", _, _]:
                return ""
            case ["admin", "vm", "firewall", action]:
                qube.firewall = payload if action == "Set" else qube.firewall
                return qube.firewall if action == "Get" else ""
            case ["admin", "vm", "volume", "Clear"]:
                qube.content[request.argument] = ""
            case ["admin", "vm", "volume", "CloneFrom"]:
                return qube.content[request.argument]
            case ["admin", "vm", "volume", "CloneTo"]:
                qube.content[request.argument] = payload
            case ["admin", "vm", "notes", action]:
                qube.notes = payload if action == "Set" else qube.notes
                return qube.notes if action == "Get" else ""
            case ["admin", "vm", "volume", "List"]:
                return lines(qube.volumes)
            case ["admin", "vm", "volume", "Info"]:
                info = qube.volumes[request.argument]
                return lines(f"{key}={value}" for key, value in info.items())
            case ["admin", "vm", "volume", "ListSnapshots"]:
                return lines(qube.revisions)
            case ["admin", "vm", "volume", *_] if request.argument in qube.volumes:
                return ""
            case ["admin", "vm", action]:
                _power(qube, action)
                if qube.state == "Halted":
                    self.on_halted(qube.name)
            case other:
                raise AssertionError(other)
        return ""

    def _import(self, volume: str, action: str, payload: str) -> str:
        path = self._run / f"{volume}.part"
        if action == "ImportBegin":
            size = int(payload or 8)
            path.write_bytes(b"\0" * size)
            return f"{size} {path}"
        verdict, _, text = payload.partition("\n")
        self.imports[volume] = path.read_bytes() if verdict == "ok" else text
        path.unlink()
        if verdict != "ok":
            raise RefusedError("QubesException", f"the import failed: {text}")
        return ""

    def _serve_local(self, connection: socket.socket) -> None:
        with connection:
            asked = local.decode(connection.recv(local.MAX_RECORD))
            op = asked.pop("op")
            if op == "call":
                self._call(connection, asked)
                return
            try:
                found = self.local[op](asked)
            except RefusedError as refused:
                found = {"error": refused.kind, "message": refused.text}
            connection.send(local.encode(found))

    def _call(self, connection: socket.socket, asked: dict[str, Any]) -> None:
        self.calls.append(asked)
        request = local.CallRequest.from_json(asked)
        refused = self.refusals.get(("call", request.target))
        if refused is not None:
            connection.send(local.encode({"error": refused.kind, "message": refused.text}))
            return
        near, far = socket.socketpair()
        nonce = bytes(range(16))
        fields = {"qube": request.target, "domain": 0, "port": 513, "nonce": nonce.hex()}
        with near:
            socket.send_fds(connection, [local.encode(fields)], [near.fileno()])
        self._begin(lambda: serve_call(far, nonce, request))
        self._count(1)
        connection.recv(1)
        self._count(-1)

    def _count(self, more: int) -> None:
        with self._changed:
            self._open_calls += more
            self._changed.notify_all()

    def calls_end(self) -> bool:
        """Wait for callers to close their calls; False when one keeps it open."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open_calls == 0, 20)


def lines(items: Iterable[str]) -> str:
    """A list of the Admin API."""
    return "".join(f"{item}\n" for item in items)


def _property(held: dict[str, PropertyAnswer], action: str, name: str, payload: str) -> str:
    if action == "List":
        return lines(held)
    if action == "GetAll":
        return admin.property_lines(held.items())
    if name not in held:
        raise RefusedError("QubesNoSuchPropertyError", f"no property {name!r}")
    if action == "Get":
        return admin.property_answer(held[name])
    if action == "Help":
        return f"What {name} is for."
    held[name] = PropertyAnswer(action == "Reset", held[name].type, payload)
    return ""


def _feature(qube: FakeQube, action: str, name: str, payload: str) -> str:
    if action == "List":
        return lines(qube.features)
    if action == "Set":
        qube.features[name] = payload
        return ""
    if name not in qube.features:
        raise RefusedError("QubesFeatureNotFoundError", f"feature not set: {name!r}")
    return qube.features[name] if action != "Remove" else qube.features.pop(name)[:0]


def _tag(qube: FakeQube, action: str, tag: str) -> str:
    match action:
        case "List":
            return lines(sorted(qube.tags))
        case "Get":
            return "1" if tag in qube.tags else "0"
        case "Set":
            qube.tags.add(tag)
        case _:
            if tag not in qube.tags:
                raise RefusedError("QubesTagNotFoundError", f"no tag {tag!r}")
            qube.tags.remove(tag)
    return ""


_POWER = {
    "Start": (None, "Running"),
    "Shutdown": ("Running", "Halted"),
    "Kill": (None, "Halted"),
    "Pause": ("Running", "Paused"),
    "Suspend": ("Running", "Suspended"),
    "Unpause": ("Paused", "Running"),
    "Resume": ("Suspended", "Running"),
}
_REFUSALS = {"Pause": "NotRunning", "Suspend": "NotRunning", "Unpause": "NotPaused"}


def _power(qube: FakeQube, action: str) -> None:
    needed, after = _POWER[action]
    if (needed or qube.state) != qube.state or (action == "Kill" and qube.state == "Halted"):
        kind = f"QubesVM{_REFUSALS.get(action, 'NotStarted')}Error"
        raise RefusedError(kind, f"{qube.name} is {qube.state}")
    if action != "Shutdown" or not qube.stubborn:
        qube.state = after


@contextmanager
def fake_daemon(run: Path) -> Iterator[FakeDaemon]:
    """A daemon for the block."""
    daemon = FakeDaemon(run)
    try:
        yield daemon
    finally:
        daemon.close()
