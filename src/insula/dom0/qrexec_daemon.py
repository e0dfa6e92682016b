"""qrexec-daemon: one qube's control channel, over the socket vchan (qrexec-wire.md 4, 5, 10)."""

import argparse
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from insula.dom0 import qubesd
from insula.dom0.carrying import Caller, NotCarriedOutError, carry_out
from insula.dom0.daemon_socket import DIRECTORY, SOCKET_VERSION
from insula.dom0.judging import NotJudgedError, judge
from insula.dom0.ports import DataPorts, is_data_port
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import RawFrame, frame, take_raw_frame
from insula.protocol.policy.wire import Question
from insula.protocol.qrexec import (
    EXIT_QREXEC_FAILED,
    EXIT_REFUSED,
    LOWEST_VERSION,
    MAX_COMMAND,
    MAX_TRIGGER,
    VERSION,
    ExecParameters,
    MessageType,
    Trigger,
    TriggerError,
    check_from_agent,
    check_hello,
    hello,
    read_hello,
)
from insula.qrexec import vchan
from insula.qrexec.loop import READ, Loop
from insula.qrexec.port import SocketPort
from insula.qrexec.sinks import open_missing

_LOG_DIRECTORY = Path("/var/log/qubes")
_FALLBACK = "/usr/bin/qrexec-policy-exec"
_STARTUP_TIMEOUT = 60
_EXIT_FAILED, _EXIT_TIMEOUT = 1, 3
_HELLO_SIZE = 12  # bytes
_MOST = 256  # clients, and calls that wait for a verdict
_MIN_REQUEST = 9  # bytes of a body
_DEFAULT = "DEFAULT:"

log = logging.getLogger("qrexec-daemon")


@dataclass(slots=True, kw_only=True)
class Options:
    """domain, name, uuid: of the qube. user: its default user."""

    domain: int
    name: str
    uuid: str
    user: str
    directory: Path
    fallback: str
    direct: bool


@dataclass(slots=True, eq=False)
class _Client:
    port: SocketPort
    received: bytearray = field(default_factory=bytearray)
    greeted: bool = False
    asked: bool = False


@dataclass(slots=True, eq=False)
class _Pending:
    request_id: bytes
    answered: bool = False


class Daemon:
    """Serves one qube for as long as its agent is connected."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._loop = Loop()
        self._control = SocketPort(self._loop)
        self._received = bytearray()
        self._version = 0
        self._ports = DataPorts(options.domain)
        self._clients: set[_Client] = set()
        self._of_port: dict[int, _Client] = {}
        self._pending: dict[int, _Pending] = {}
        self._listener: socket.socket | None = None
        self._is_lost = False
        self.status = 0

    def connect(self) -> None:
        """Connect with the agent and greet it.

        Raises:
            OSError, ProtocolError: it is not there in time, or greets otherwise.
        """
        timeout = startup_timeout()
        connection = vchan.connect(self._options.domain, vchan.CONTROL_PORT, timeout)
        try:
            connection.settimeout(timeout)
            version = read_hello(_read_frame(connection))
            self._version = min(version, VERSION)
            if self._version < LOWEST_VERSION:
                raise ProtocolError(f"an agent of version {version}")
            connection.sendall(hello(version))  # Its own number, as agents expect.
        except BaseException:
            connection.close()
            raise
        connection.setblocking(False)
        self._control.on_data = self._take
        self._control.on_closed = self._lost
        self._control.on_drained = self._control.resume
        self._control.use(connection.detach())
        self._listen()

    def serve(self) -> int:
        """Serve until the agent is gone for good; the exit status."""
        try:
            self._loop.run()
            while self._is_lost:
                log.info("the agent is gone; waiting for another")
                self._forget()
                self.connect()
                self._loop.run()
        except (OSError, ProtocolError) as error:
            log.info("%s", error)
        finally:
            self.clear_up()
        return self.status

    def _lost(self) -> None:
        self._is_lost = True
        self._loop.running = False

    def _forget(self) -> None:
        """Be as before the agent was there; ports that were given out stay so."""
        self.clear_up()
        self._is_lost, self._loop.running = False, True
        if self._listener is not None:
            self._loop.drop(self._listener.fileno())
            self._listener.close()
        for client in tuple(self._clients):
            self._drop(client)
        self._of_port.clear()
        self._pending.clear()
        self._received.clear()

    def end(self, status: int) -> None:
        """Stop serving."""
        self.status = status
        self._loop.running = False

    def clear_up(self) -> None:
        """Remove what was made in the directory of sockets."""
        for path in (*self._links(), self._socket_path()):
            with suppress(OSError):
                path.unlink()

    def _socket_path(self) -> Path:
        return self._options.directory / f"qrexec.{self._options.domain}"

    def _links(self) -> tuple[Path, Path]:
        directory = self._options.directory
        by_uuid = directory / f"qrexec.uuid:{self._options.uuid}"
        return directory / f"qrexec.{self._options.name}", by_uuid

    def _listen(self) -> None:
        path = self._socket_path()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o660)
        self._listener.listen(_MOST)
        for link in self._links():
            link.unlink(missing_ok=True)
            link.symlink_to(path.name)
        self._loop.add(self._listener.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= _MOST:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(SocketPort(self._loop))
        self._clients.add(client)
        client.port.on_data = lambda data: self._take_client(client, data)
        client.port.on_closed = lambda: self._drop(client)
        client.port.use(connection.detach())
        client.port.write(hello(SOCKET_VERSION))

    def _drop(self, client: _Client) -> None:
        client.port.close()
        self._clients.discard(client)

    def _take_client(self, client: _Client, data: bytes) -> None:
        client.received += data
        try:
            if not client.greeted:
                raw = take_raw_frame(client.received, MAX_COMMAND, check_hello)
                if raw is None:
                    return
                if read_hello(raw) < SOCKET_VERSION:
                    raise ProtocolError("a client that is too old")
                client.greeted = True
            if not client.asked:
                raw = take_raw_frame(client.received, MAX_COMMAND, _is_request)
                if raw is None:
                    return
                client.asked = True
                self._request(client, raw)
            if client.received:
                raise ProtocolError("a client that goes on after its request")
        except ProtocolError as error:
            log.warning("client: %s", error)
            self._drop(client)

    def _request(self, client: _Client, raw: RawFrame) -> None:
        kind = MessageType(raw.type)
        if not raw.body.endswith(b"\0"):
            raise ProtocolError("a request whose text does not end")
        parameters, text = ExecParameters.decode(raw.body[:8]), raw.body[8:]
        if kind is MessageType.SERVICE_CONNECT:
            self._accept_pending(text)
        peer, port = parameters.domain, parameters.port
        if port == 0:
            given = self._ports.take(peer)
            if given is None:
                raise ProtocolError("no data port is free")
            port = given
            self._of_port[port] = client
            answer = ExecParameters(self._options.domain, port).encode()
            client.port.write(frame(kind, answer))
        elif not is_data_port(port):
            raise ProtocolError(f"port {port} is no data port")
        elif kind is not MessageType.SERVICE_CONNECT:
            log.warning("a client names the port %d for its command itself", port)
        if kind is not MessageType.SERVICE_CONNECT and text.startswith(_DEFAULT.encode()):
            text = os.fsencode(self._options.user) + b":" + text[len(_DEFAULT) :]
        self._control.write(frame(kind, ExecParameters(peer, port).encode() + text))

    def _accept_pending(self, text: bytes) -> None:
        for pending in self._pending.values():
            if pending.request_id[: len(text)] == text and not pending.answered:
                pending.answered = True
                return
        raise ProtocolError("a connection for no call that waits")

    def _take(self, data: bytes) -> None:
        self._received += data
        check = partial(check_from_agent, self._version)
        try:
            while (raw := take_raw_frame(self._received, MAX_TRIGGER, check)) is not None:
                self._serve(raw)
        except ProtocolError as error:
            log.error("agent: %s", error)
            self.end(_EXIT_FAILED)
        if self._control.full:
            self._control.pause()  # Who does not hear our answers is not heard either.

    def _serve(self, raw: RawFrame) -> None:
        if raw.type == MessageType.CONNECTION_TERMINATED:
            self._terminated(raw.body)
            return
        try:
            trigger = Trigger.decode(MessageType(raw.type), raw.body)
        except TriggerError as error:
            log.warning("call refused: %s", error)
            self._refuse(error.untrusted_id)
            return
        if len(self._pending) >= _MOST:
            self._refuse(trigger.request_id)
        else:
            self._fork(trigger, has_source=raw.type == MessageType.TRIGGER_SERVICE4)

    def _terminated(self, untrusted: bytes) -> None:
        over = ExecParameters.decode(untrusted)
        if not is_data_port(over.port):
            raise ProtocolError(f"an end of port {over.port}, which is no data port")
        if self._ports.release(over.domain, over.port):
            client = self._of_port.pop(over.port, None)
            if client is not None:
                self._drop(client)

    def _refuse(self, request_id: bytes) -> None:
        self._control.write(frame(MessageType.SERVICE_REFUSED, request_id))

    def _fork(self, trigger: Trigger, *, has_source: bool) -> None:
        """Have a call judged and carried out by a process of its own."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            status = EXIT_QREXEC_FAILED
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                status = handle(trigger, self._options, has_source=has_source)
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        self._pending[pid] = _Pending(trigger.request_id)
        self._loop.on_exit(pid, lambda status: self._handled(pid, status))

    def _handled(self, pid: int, status: int) -> None:
        pending = self._pending.pop(pid, None)
        if status and pending is not None and not pending.answered:
            self._refuse(pending.request_id)


_REQUESTS = (MessageType.EXEC_CMDLINE, MessageType.JUST_EXEC, MessageType.SERVICE_CONNECT)


def _is_request(kind: int, length: int) -> None:
    if kind not in _REQUESTS:
        raise ProtocolError(f"unexpected type {kind:#x}")
    if length < _MIN_REQUEST:
        raise ProtocolError("a request without a text")


def handle(trigger: Trigger, options: Options, *, has_source: bool) -> int:
    """Judge a call and carry it out; the exit status."""
    service = trigger.service
    question = Question(
        source=options.name,
        target=trigger.target,
        called=service,
        requested_source=trigger.source if has_source else None,
    )
    try:
        answer = judge(question, options.directory / "policy.sock", options.fallback)
        if answer is None:
            return EXIT_REFUSED
        caller = Caller(options.domain, options.name, trigger.request_id)
        return carry_out(caller, service, answer, options.directory)
    except (NotJudgedError, NotCarriedOutError, qubesd.QubesdError) as error:
        log.error("%s: %s", service, error)
    except (OSError, ProtocolError) as error:
        log.error("%s: %s", service, error)
    return EXIT_QREXEC_FAILED


def startup_timeout() -> float | None:
    """Seconds that an agent has to be there; None: no limit."""
    if os.environ.get("QREXEC_STARTUP_NOWAIT"):
        return None
    text = os.environ.get("QREXEC_STARTUP_TIMEOUT", "")
    return float(text) if text.isdigit() and int(text) > 0 else float(_STARTUP_TIMEOUT)


def _read_frame(connection: socket.socket) -> RawFrame:
    received = bytearray()
    while (raw := take_raw_frame(received, MAX_COMMAND, check_hello)) is None:
        data = connection.recv(_HELLO_SIZE - len(received))
        if not data:
            raise ProtocolError("the agent closed the control channel")
        received += data
    return raw


def main(words: Sequence[str] | None = None) -> int:
    """Serve a qube."""
    parser = argparse.ArgumentParser(
        prog="qrexec-daemon", description="Take calls to and from a qube.", add_help=False
    )
    parser.add_argument("-u", "--uuid", metavar="UUID")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--socket-dir", metavar="PATH", type=Path, default=DIRECTORY)
    parser.add_argument("-p", "--policy-program", metavar="PATH", default=_FALLBACK)
    parser.add_argument("-D", "--direct", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("domain", metavar="DOMID", type=int, nargs="?")
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("user", metavar="DEFAULT-USER", nargs="?", default="user")
    try:
        given = parser.parse_args(words)
    except SystemExit:
        return _EXIT_FAILED
    if given.help or given.name is None or given.uuid is None:
        parser.print_help(sys.stdout if given.help else sys.stderr)
        return _EXIT_FAILED
    options = Options(
        domain=given.domain,
        name=given.name,
        uuid=given.uuid,
        user=given.user,
        directory=given.socket_dir,
        fallback=given.policy_program,
        direct=given.direct,
    )
    open_missing()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    return _serve(Daemon(options)) if options.direct else _serve_in_background(options)


def _serve(daemon: Daemon) -> int:
    _end_when_told(daemon)
    status = _connect(daemon)
    return status or daemon.serve()


def _end_when_told(daemon: Daemon) -> None:
    def end(_number: int, _frame: object) -> None:
        daemon.clear_up()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


def _connect(daemon: Daemon) -> int:
    try:
        daemon.connect()
    except TimeoutError as error:
        log.error("%s", error)
        return _EXIT_TIMEOUT
    except (OSError, ProtocolError) as error:
        log.error("%s", error)
        return _EXIT_FAILED
    return 0


def _serve_in_background(options: Options) -> int:
    """Return once the agent is connected; a process of its own goes on."""
    reading, writing = os.pipe()
    waits = not os.environ.get("QREXEC_STARTUP_NOWAIT")
    if os.fork():
        os.close(writing)
        if not waits:
            return 0
        told = os.read(reading, 1)
        return told[0] if told else _EXIT_FAILED
    os.close(reading)
    os.setsid()
    if not waits:
        _log_to_file(options.name)
    daemon = Daemon(options)
    status = _connect(daemon)
    if waits:
        _log_to_file(options.name)
        with suppress(BrokenPipeError):
            os.write(writing, bytes((status,)))
    os.close(writing)
    if status == 0:
        _end_when_told(daemon)
        status = daemon.serve()
    os._exit(status)


def _log_to_file(name: str) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(_LOG_DIRECTORY / f"qrexec.{name}.log", flags, 0o660)
        os.fchmod(file, 0o660)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())
