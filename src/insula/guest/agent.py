"""The agent: its session with the daemon, its qube's start, its calls."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from insula.guest import identity, processors, seed
from insula.guest.network.configuring import Configuring
from insula.guest.network.links import Links
from insula.guest.network.places import Places
from insula.guest.parking import Parked
from insula.guest.qubesdb import SOCKET_PATH, Server, Store
from insula.guest.requests import Requests
from insula.guest.session import SessionGate
from insula.protocol import control
from insula.protocol.command import parse_command
from insula.protocol.control import AgentHello, AgentState, Attach, ControlType, Session, Status
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import RawFrame, frame, take_raw_frame
from insula.protocol.links import Link, LinkStatus, unlinked_number
from insula.protocol.qrexec import (
    AGENT_SOCKET,
    EXIT_QREXEC_FAILED,
    ExecParameters,
    MessageType,
    hello,
)
from insula.protocol.resync import CONTROL_PREFIX, PrefixScanner
from insula.qrexec.call import Call
from insula.qrexec.conversation import Conversation
from insula.qrexec.loop import Loop
from insula.qrexec.port import Port
from insula.qrexec.programs import NotStartedError, Program, Searches, resolve

CONTROL_PORT = "org.insula.control"
DATA_PORT = "org.insula.data.{}"
_DEFAULT_USER = b"user"
_SEED_KEY = "/qubes-random-seed"
_PARAMETERS_SIZE = 8
_REHEARSED = "DEFAULT:nogui:QUBESRPC qubes.VMExec+true dom0"


class Ports(Protocol):
    """Where ports come from."""

    def open(self, name: str) -> Port: ...

    def open_for_another(self, name: str) -> int: ...

    def done(self, port: Port) -> None: ...


@dataclass(frozen=True, slots=True)
class _Running:
    """A call, on the data port of that index."""

    index: int
    port: Port
    call: Call


class Agent:
    """One qube's agent. system: whether it may set up the qube it runs in, or is a mere process."""

    def __init__(
        self,
        loop: Loop,
        ports: Ports,
        *,
        system: bool,
        state: AgentState = AgentState.WAITING,
    ) -> None:
        self._loop = loop
        self._ports = ports
        self._system = system
        self._state = state
        self._parked: Parked | None = None
        self._seeded = False
        self._qubesdb = Store()
        self._own_keys: dict[bytes, bytes | None] = {}  # what programs of this qube wrote
        self._scanner = PrefixScanner(CONTROL_PREFIX)
        self._received = bytearray()
        self._in_session = False
        self._attached: dict[tuple[int, int], Attach] = {}
        self._calls: dict[tuple[int, int], _Running] = {}
        self._searches = Searches.of_environment()
        self._sessions = SessionGate(loop, self._searches)
        # The data ports that are in the hands of programs, by the keys of their calls.
        self._handed_over: dict[tuple[int, int], int] = {}
        path = Path(os.environ.get("INSULA_AGENT_SOCKET", AGENT_SOCKET))
        self._requests = Requests(loop, path, self._ask, self._caller_over)
        database = Path(os.environ.get("INSULA_QUBESDB_SOCKET", SOCKET_PATH))
        self._database = Server(loop, database, self._qubesdb, self._wrote)
        self._links = Links(loop, lambda: Configuring(self._key, Places()), self._say_of_link)
        self._control = ports.open(CONTROL_PORT)
        self._control.on_data = self._take
        self._operations: dict[int, Callable[[bytes], None]] = {
            ControlType.SEED: self._take_seed,
            ControlType.IDENTITY: self._take_identity,
            ControlType.CLOCK: self._take_clock,
            ControlType.PROCESSORS: self._take_processors,
            ControlType.KEY: lambda body: self._take_key(ControlType.KEY, body),
            ControlType.KEY_GONE: lambda body: self._take_key(ControlType.KEY_GONE, body),
            ControlType.LINK: self._take_link,
            ControlType.UNLINK: self._take_unlink,
            ControlType.ATTACH: self._take_attach,
            ControlType.PARK: lambda _body: self._park(),
            ControlType.SHUTDOWN: lambda _body: self._shut_down(),
            MessageType.EXEC_CMDLINE: lambda body: self._exec(body, quiet=False),
            MessageType.JUST_EXEC: lambda body: self._exec(body, quiet=True),
            MessageType.SERVICE_CONNECT: self._take_connect,
            MessageType.SERVICE_REFUSED: self._take_refused,
            MessageType.HELLO: lambda _body: None,
        }

    def _take(self, data: bytes) -> None:
        for item in self._scanner.feed(data):
            if isinstance(item, tuple):
                self._begin(item[0])
            elif self._in_session:
                self._received += item
        try:
            while (raw := take_raw_frame(self._received, control.MAX_FROM_HOST)) is not None:
                self._serve(raw)
        except ProtocolError as error:
            print(f"control port: {error}", flush=True)
            self._in_session = False
            self._received.clear()

    def _begin(self, nonce: bytes) -> None:
        """Nothing but a marker begins or ends a session: the port's closing may be told late."""
        self._received.clear()
        self._control.forget_queued()
        self._in_session = True
        self._requests.refuse_all()  # Who opens this session may never have heard of them.
        indices = {key: running.index for key, running in self._calls.items()} | self._handed_over
        sessions = tuple(Session(*key, index) for key, index in indices.items())
        self._send(
            CONTROL_PREFIX
            + nonce
            + AgentHello(control.VERSION, self._state, sessions).encode()
            + hello()
        )
        for path, value in self._own_keys.items():
            self._send(control.Key(path, value).encode())

    def _send(self, encoded: bytes) -> None:
        self._control.write(encoded)

    def _serve(self, raw: RawFrame) -> None:
        operation = self._operations.get(raw.type)
        if operation is None:
            raise ProtocolError(f"unknown message {raw.type:#x}")
        operation(raw.body)

    def _take_seed(self, body: bytes) -> None:
        others = 0
        if self._system:
            if self._parked is not None:
                others = self._parked.frozen.free_to_run()
            seed.take_seed(control.Seed.decode(body))
        self._seeded = True
        self._send(control.Seeded(others).encode())

    def _take_identity(self, body: bytes) -> None:
        self._require_seed()
        who = control.Identity.decode(body)
        keys = dict(who.qubesdb)
        keys.pop(_SEED_KEY, None)  # It is the kernel's alone.
        self._own_keys.clear()
        self._qubesdb.replace(keys)
        self._state = AgentState.STARTING
        status = Status(0)
        if self._system:
            try:
                identity.wait_until_booted()
                for line in identity.become(who, self._parked, self._let_others_run):
                    print(line, flush=True)
            except Exception as error:
                status = Status(1, f"{type(error).__name__}: {error}")
        self._state = AgentState.FAILED if status.code else AgentState.READY
        self._send(status.encode(ControlType.READY))
        # Not earlier: what they do when they go on would be in the way of all of this.
        self._loop.soon(self._let_others_run)

    def _require_seed(self) -> None:
        if not self._seeded:
            raise ProtocolError("nothing is done before a seed came")

    def _let_others_run(self) -> None:
        """End the freeze of a clone, once."""
        if self._parked is not None:
            self._parked.frozen.thaw()
            self._parked = None

    def _take_clock(self, body: bytes) -> None:
        if self._system:
            seed.set_clock(control.Clock.decode(body).clock)

    def _take_processors(self, _body: bytes) -> None:
        if self._system:
            processors.use_all(self._loop.after)

    def _wrote(self, path: bytes, value: bytes | None) -> None:
        """A program of this qube changed a key: dom0 is to know."""
        self._own_keys[path] = value
        if self._in_session:
            self._send(control.Key(path, value).encode())

    def _take_key(self, kind: ControlType, body: bytes) -> None:
        key = control.Key.decode(kind, body)
        if key.value is None:
            self._qubesdb.remove(key.path)
        elif not key.value or self._qubesdb.read(key.path) != key.value:
            # An empty value is a sign, such as that all rules are there: it may be given again.
            self._qubesdb.write(key.path, key.value)

    def _key(self, path: str) -> str | None:
        """A value of QubesDB, for the thread that sets links up."""
        value = self._qubesdb.read(path.encode())
        return None if value is None else value.decode(errors="replace")

    def _take_link(self, body: bytes) -> None:
        self._require_seed()
        link = Link.decode(body)
        if self._system:
            self._links.link(link)
        else:
            self._say_of_link(ControlType.LINKED, LinkStatus(link.number))

    def _take_unlink(self, body: bytes) -> None:
        number = unlinked_number(body)
        if self._system:
            self._links.unlink(number)
        else:
            self._say_of_link(ControlType.UNLINKED, LinkStatus(number))

    def _say_of_link(self, kind: ControlType, status: LinkStatus) -> None:
        if self._in_session:
            self._send(status.encode(kind))

    def _take_attach(self, body: bytes) -> None:
        attach = Attach.decode(body)
        for running in tuple(self._calls.values()):
            if running.index == attach.index:
                running.call.abandon()  # The daemon has given that call up.
        self._attached[attach.domain, attach.port] = attach

    def _park(self) -> None:
        status = Status(0)
        if self._system:
            try:
                identity.wait_until_booted()
                identity.wait_for_windows()
                self._parked = Parked()
                identity.rehearse()
                resolve(parse_command(_REHEARSED), _DEFAULT_USER.decode(), self._searches)
            except Exception as error:
                status = Status(1, f"{type(error).__name__}: {error}")
        self._state = AgentState.PARKED
        self._seeded = False
        self._send(status.encode(ControlType.PARKED))

    def _shut_down(self) -> None:
        if self._system:
            subprocess.Popen(["/bin/systemctl", "poweroff"], stdin=subprocess.DEVNULL)
        else:
            self._loop.running = False

    def _exec(self, body: bytes, *, quiet: bool) -> None:
        self._require_seed()
        parameters = ExecParameters.decode(body)
        key = (parameters.domain, parameters.port)
        attach = self._attached.pop(key, None)
        if attach is None:
            raise ProtocolError("a command without its data port")
        try:
            port = self._ports.open(DATA_PORT.format(attach.index))
        except OSError as error:
            print(f"data port {attach.index}: {error}", flush=True)
            self._terminated(key)
            return
        call = Call(self._loop, port, attach.nonce, lambda: self._over(key), quiet=quiet)
        self._calls[key] = _Running(attach.index, port, call)
        if not call.greet(attach.nonce):
            return
        try:
            command = parse_command(parameters.text or "")
            default_user = (self._qubesdb.read(b"/default-user") or _DEFAULT_USER).decode()
            prepared = resolve(command, default_user, self._searches, login=self._system)
            if isinstance(prepared, Program) and prepared.after_session and command.service:
                user, source = prepared.user.pw_name, command.service.source
                self._sessions.wait(user, source, lambda: self._start(call, prepared))
            else:
                self._start(call, prepared)
        except NotStartedError as error:
            call.fail(error.code)
        except (ProtocolError, OSError, ValueError) as error:
            print(f"call: {error}", flush=True)
            call.fail(EXIT_QREXEC_FAILED)

    def _start(self, call: Call, prepared: Program | Conversation) -> None:
        try:
            call.start(prepared)
        except (OSError, ValueError) as error:
            print(f"call: {error}", flush=True)
            call.fail(EXIT_QREXEC_FAILED)

    def _ask(self, message: bytes) -> None:
        """Pass a request on; without a session nobody would ever answer it."""
        if self._in_session:
            self._send(message)
        else:
            self._loop.soon(self._requests.refuse_all)

    def _take_connect(self, body: bytes) -> None:
        """A call that a program asked for goes over a data port, which is the program's then."""
        parameters = ExecParameters.decode(body[:_PARAMETERS_SIZE])
        key = (parameters.domain, parameters.port)
        attach = self._attached.pop(key, None)
        if attach is None:
            raise ProtocolError("a connection without its data port")
        try:
            descriptor = self._ports.open_for_another(DATA_PORT.format(attach.index))
        except OSError as error:
            print(f"data port {attach.index}: {error}", flush=True)
            self._requests.refused(body[_PARAMETERS_SIZE:])
            self._terminated(key)
            return
        self._handed_over[key] = attach.index
        answer = body[:_PARAMETERS_SIZE] + attach.nonce
        taken = self._requests.accepted(body[_PARAMETERS_SIZE:], key, answer, [descriptor])
        os.close(descriptor)
        if not taken:
            self._caller_over(key)

    def _take_refused(self, body: bytes) -> None:
        self._requests.refused(body)

    def _caller_over(self, key: tuple[int, int]) -> None:
        del self._handed_over[key]
        self._terminated(key)

    def _terminated(self, key: tuple[int, int]) -> None:
        self._send(frame(MessageType.CONNECTION_TERMINATED, ExecParameters(*key).encode()))

    def _over(self, key: tuple[int, int]) -> None:
        found = self._calls.pop(key, None)
        if found is not None:
            self._ports.done(found.port)
            self._terminated(key)
