"""qrexec-agent: the agent without a machine, over the socket vchan (qrexec-wire.md 4, 6 and 15).

Each call is served by a process of its own, whose number its program gets.
"""

import argparse
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from insula.guest import systemd
from insula.guest.fork_server import hand_over
from insula.guest.requests import Requests
from insula.guest.session import SessionGate
from insula.protocol.command import Command, parse_command
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import RawFrame, frame, take_raw_frame
from insula.protocol.qrexec import (
    AGENT_SOCKET,
    ExecParameters,
    MessageType,
    check_hello,
    hello,
    session_version,
)
from insula.protocol.service_config import ServiceConfig
from insula.qrexec import vchan
from insula.qrexec.loop import Loop
from insula.qrexec.one_call import serve_call
from insula.qrexec.port import SocketPort
from insula.qrexec.programs import Searches
from insula.qrexec.services import BrokenServiceError, find_config
from insula.qrexec.sinks import open_missing

_DEFAULT_FORK_SERVER = "/var/run/qubes/qrexec-server.%s.sock"
_DOM0 = 0
_PARAMETERS = struct.Struct("<II")
_REQUEST_ID_SIZE = 32
_COMMANDS = (MessageType.EXEC_CMDLINE, MessageType.JUST_EXEC, MessageType.SERVICE_CONNECT)
_MAX_BODY = 2**31 - 1  # bytes; dom0 is believed


class StandaloneAgent:
    """One agent. fork_server: path of users' fork servers, %s for the user; None: none is used."""

    def __init__(self, agent_socket: Path, fork_server: str | None) -> None:
        self._agent_socket, self._fork_server = agent_socket, fork_server
        self._searches = Searches.of_environment()
        self._loop = Loop()
        self._control = SocketPort(self._loop)
        self._received = bytearray()
        self._requests: Requests | None = None
        self._sessions = SessionGate(self._loop, self._searches)
        self._children: set[int] = set()
        self.status = 0

    def serve(self) -> int:
        """Connect with the daemon and serve until told to end; returns the exit status."""
        connection = vchan.Server(_DOM0, vchan.CONTROL_PORT).accept()
        connection.setblocking(False)
        self._control.on_data = self._take
        self._control.on_closed = self._lost
        self._control.use(connection.detach())
        self._control.write(hello())
        self._loop.run()
        if self._requests is not None:
            self._requests.close()
        return self.status

    def end(self, status: int = 0) -> None:
        """Stop serving."""
        self.status = status
        self._loop.running = False

    def _lost(self) -> None:
        """The daemon is gone; whoever keeps us running starts us anew."""
        print("qrexec-agent: the daemon closed the control channel", file=sys.stderr)
        self.end(1)

    def _take(self, data: bytes) -> None:
        self._received += data
        try:
            while (raw := take_raw_frame(self._received, _MAX_BODY, self._check)) is not None:
                self._serve(raw)
        except ProtocolError as error:
            print(f"qrexec-agent: {error}", file=sys.stderr)
            self.end(1)

    def _check(self, kind: int, length: int) -> None:
        """Look at the header of what the daemon sends."""
        if self._requests is None:
            check_hello(kind, length)
        elif kind in _COMMANDS:
            if length <= _PARAMETERS.size:
                raise ProtocolError(f"type {kind:#x} without a text")
        elif kind != MessageType.SERVICE_REFUSED:
            raise ProtocolError(f"unexpected type {kind:#x}")
        elif length != _REQUEST_ID_SIZE:
            raise ProtocolError("a refusal of no request")

    def _serve(self, raw: RawFrame) -> None:
        if self._requests is None:
            session_version(raw)
            self._requests = Requests(
                self._loop, self._agent_socket, self._control.write, self._terminated
            )
            systemd.tell("READY=1")
            return
        match raw.type:
            case MessageType.EXEC_CMDLINE | MessageType.JUST_EXEC:
                self._execute(MessageType(raw.type), ExecParameters.decode(raw.body))
            case MessageType.SERVICE_CONNECT:
                answer, request_id = raw.body[: _PARAMETERS.size], raw.body[_PARAMETERS.size :]
                key = _PARAMETERS.unpack(answer)
                if not self._requests.accepted(request_id, key, answer, []):
                    print(f"qrexec-agent: nobody waits as {request_id!r}", file=sys.stderr)
            case _:
                self._requests.refused(raw.body)

    def _execute(self, kind: MessageType, parameters: ExecParameters) -> None:
        """The way that a command takes (section 6.3)."""
        try:
            command = parse_command(parameters.text or "")
            config = ServiceConfig()
            if command.service is not None:
                config = find_config(command.service, self._searches.configs)
        except (ProtocolError, BrokenServiceError) as error:
            print(f"qrexec-agent: {error}", file=sys.stderr)
            self._fork(kind, parameters, None)
            return
        if config.wait_for_session and not command.nogui:
            user, source = command.user, command.service.source if command.service else ""
            self._sessions.wait(
                user, source, lambda: self._start(kind, parameters, command, config)
            )
        else:
            self._start(kind, parameters, command, config)

    def _start(
        self, kind: MessageType, parameters: ExecParameters, command: Command, config: ServiceConfig
    ) -> None:
        if self._fork_server is not None and not command.nogui and not _is_for_sockets(config):
            path = self._fork_server.replace("%s", config.force_user or command.user)
            connection = hand_over(path, kind, parameters)
            if connection is not None:
                self._watch(connection, (parameters.domain, parameters.port))
                return
        self._fork(kind, parameters, command)

    def _watch(self, connection: socket.socket, key: tuple[int, int]) -> None:
        """A fork server serves a call until it closes the connection."""
        port = SocketPort(self._loop)
        port.on_closed = lambda: self._terminated(key)
        connection.setblocking(False)
        port.use(connection.detach())

    def _fork(self, kind: MessageType, parameters: ExecParameters, command: Command | None) -> None:
        """Serve a call in a process of its own; no command: it is only told that it failed."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                status = serve_call(
                    parameters.domain,
                    parameters.port,
                    command,
                    searches=self._searches,
                    quiet=kind is MessageType.JUST_EXEC,
                )
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        key = (parameters.domain, parameters.port)
        self._loop.on_exit(pid, lambda _status: self._terminated(key))

    def _terminated(self, key: tuple[int, int]) -> None:
        self._control.write(frame(MessageType.CONNECTION_TERMINATED, _PARAMETERS.pack(*key)))


def _is_for_sockets(config: ServiceConfig) -> bool:
    """Whether a configuration has what no fork server does."""
    return config.skip_service_descriptor or config.exit_on_client_eof or config.exit_on_service_eof


def main(words: Sequence[str] | None = None) -> int:
    """Serve a qube that is a process, or a few."""
    parser = argparse.ArgumentParser(
        prog="qrexec-agent", description="Take calls for this qube, and pass on those it makes."
    )
    parser.add_argument("-a", "--agent-socket", metavar="PATH", default=AGENT_SOCKET, type=Path)
    parser.add_argument("-s", "--fork-server-socket", metavar="PATH", default=_DEFAULT_FORK_SERVER)
    parser.add_argument("-S", "--no-fork-server", action="store_true")
    options = parser.parse_args(words)
    open_missing()
    fork_server = None if options.no_fork_server else options.fork_server_socket
    agent = StandaloneAgent(options.agent_socket, fork_server)
    signal.signal(signal.SIGTERM, lambda _number, _frame: _end(options.agent_socket))
    try:
        return agent.serve()
    except OSError as error:
        print(f"qrexec-agent: {error}", file=sys.stderr)
        return 1


def _end(agent_socket: Path) -> None:
    agent_socket.unlink(missing_ok=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
