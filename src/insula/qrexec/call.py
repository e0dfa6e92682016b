"""One call: a program on one side, a data connection on the other, frames between them."""

import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import HEADER, frame, take_raw_frame
from insula.protocol.qrexec import (
    EXIT_QREXEC_FAILED,
    LOWEST_VERSION,
    MAX_CHUNK,
    MessageType,
    check_hello,
    chunk_limit,
    exit_code,
    hello,
    session_version,
    take_data,
)
from insula.protocol.resync import MarkerFinder
from insula.protocol.service_config import ServiceConfig
from insula.qrexec.accounts import ACCOUNTS
from insula.qrexec.conversation import Conversation
from insula.qrexec.loop import HANGUP, READ, WRITE, Loop, Timer
from insula.qrexec.port import Port
from insula.qrexec.programs import Program
from insula.qrexec.syslog import ErrorLog, start_logger

_STDIN = int(MessageType.DATA_STDIN)  # looked up once: this is asked for each message
_AT_ONCE = 4096  # bytes that most who read input take whole
_SENDING_POLL = 0.005  # seconds
GREETING_TIMEOUT = 120.0  # seconds until the other end has begun, as long as one that calls waits
_MAX_INPUT = 262_144  # bytes for a program that does not read, after which the caller waits


class Call:
    """A running call. on_over: both the program's streams and the connection have ended."""

    def __init__(
        self,
        loop: Loop,
        port: Port,
        nonce: bytes,
        on_over: Callable[[], None],
        *,
        quiet: bool = False,
        keep_stderr: bool = False,
        sockets: bool = False,
        closes: bool = False,
    ) -> None:
        """Serve a call.

        quiet: only whether it starts is told. keep_stderr: what the program writes to standard
        error is ours, not the caller's. sockets: its input and output are sockets, not pipes.
        closes: the connection is closed once all is said, else when the other side does.
        """
        self._loop = loop
        self._port = port
        self._finder = MarkerFinder(nonce)
        self._received = bytearray()
        self._limit: int | None = None
        self._chunk = chunk_limit(LOWEST_VERSION)
        self._passing = False  # whether input that comes may go to the program at once
        self._on_over = on_over
        self._quiet = quiet
        self._keep_stderr = keep_stderr
        self._sockets = sockets
        self._closes = closes
        self._socket: socket.socket | None = None  # of a service that is one, while it takes input
        self._config: ServiceConfig | None = None  # of that
        self._awaiting_start = True  # what comes is kept for a program that is not there yet
        self._one_socket = False
        self._error_log: ErrorLog | None = None
        self._input = -1
        self._input_queue = bytearray()
        self._input_ended = False
        self._outputs: dict[int, MessageType] = {}
        self._status: int | None = None
        self._finished = False
        self._lost_already = False
        self._told = False
        self._unheard: Timer | None = loop.after(GREETING_TIMEOUT, self._lost)
        port.on_data = self._take
        port.on_closed = self._lost
        port.on_drained = self._drained

    @property
    def finished_well(self) -> bool:
        """Whether the caller was told how the program ended."""
        return self._told

    def greet(self, nonce: bytes) -> bool:
        """Open the connection from this side; False when it is over already."""
        self._port.write(nonce + hello())
        return not self._lost_already

    def start(self, prepared: Program | Conversation) -> None:
        """Run a program, or have a socket; its streams are the call's unless the call is quiet.

        Raises:
            OSError: it could not be started.
        """
        if self._lost_already:
            return  # While something was waited for.
        if isinstance(prepared, Program):
            self._run(prepared)
        elif prepared.connecting:
            connection = prepared.connection.fileno()
            self._loop.add(connection, WRITE, lambda _events: self._connected(prepared))
        else:
            self._converse(prepared)

    def _run(self, program: Program) -> None:
        if self._quiet:
            self._run_alone(program)
            return
        if program.log_tag is not None:
            self._error_log = ErrorLog(self._loop, program.log_tag)
        errors = None if self._keep_stderr else subprocess.PIPE
        if self._sockets:
            process, own_input, own_output = _spawn_with_sockets(program, errors)
        else:
            process = _spawn(program, subprocess.PIPE, subprocess.PIPE, errors)
            assert process.stdin is not None
            assert process.stdout is not None
            own_input, own_output = _own(process.stdin), _own(process.stdout)
        self._take_input_to(own_input)
        if process.stderr is not None:
            self._take_output_of(_own(process.stderr), MessageType.DATA_STDERR)
        else:
            self._port.write(frame(MessageType.DATA_STDERR))
        self._take_output_of(own_output, MessageType.DATA_STDOUT)
        if self._one_socket:
            self.use_one_socket()
        self._loop.on_exit(process.pid, self._ended)
        self._feed()

    def _run_alone(self, program: Program) -> None:
        """Run a program of which the caller hears nothing more."""
        log = -1 if program.log_tag is None else start_logger(self._loop, program.log_tag)
        errors = subprocess.DEVNULL
        if log >= 0:
            os.set_blocking(log, True)  # No program expects anything else.
            errors = log
        try:
            process = _spawn(program, subprocess.DEVNULL, subprocess.DEVNULL, errors)
        finally:
            if log >= 0:
                os.close(log)
        self._status = 0
        self._loop.on_exit(process.pid, lambda _status: None)
        self._finish_if_done()

    def use_one_socket(self) -> None:
        """Take the program's output from where its input goes (qrexec-wire.md section 7.8)."""
        self._one_socket = True
        if self._input < 0 or not self._outputs or self._socket is not None:
            return  # Too late, or so early that it is done once both are there.
        for descriptor, kind in tuple(self._outputs.items()):
            if kind is MessageType.DATA_STDOUT:
                del self._outputs[descriptor]
                self._loop.drop(descriptor)
                os.close(descriptor)
        self._socket = socket.socket(fileno=os.dup(self._input))
        self._take_output_of(os.dup(self._input), MessageType.DATA_STDOUT)

    def _connected(self, conversation: Conversation) -> None:
        """A connection was made, or could not be."""
        connection = conversation.connection
        self._loop.drop(connection.fileno())
        if self._lost_already or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.close()
            self.fail(EXIT_QREXEC_FAILED)
        else:
            self._converse(conversation)

    def _converse(self, conversation: Conversation) -> None:
        connection, self._status = conversation.connection, 0
        if self._quiet:
            with connection, suppress(OSError):
                connection.send(conversation.opening)
            self._finish_if_done()
            return
        self._config = conversation.config
        self._port.write(frame(MessageType.DATA_STDERR))
        self._socket = connection
        self._input_queue[:0] = conversation.opening
        self._take_input_to(os.dup(connection.fileno()))
        self._take_output_of(os.dup(connection.fileno()), MessageType.DATA_STDOUT)
        self._feed()

    def _take_input_to(self, descriptor: int) -> None:
        self._awaiting_start = False
        self._input = descriptor
        self._loop.add(descriptor, HANGUP, self._input_ready)

    def _take_output_of(self, descriptor: int, kind: MessageType) -> None:
        self._outputs[descriptor] = kind
        events = READ if self._limit is not None else 0
        self._loop.add(descriptor, events, partial(self._pass_on, descriptor))

    def fail(self, code: int) -> None:
        """Answer that the program could not be started."""
        self._awaiting_start = False
        if self._lost_already:
            return
        if not self._quiet:
            ends = [frame(MessageType.DATA_STDOUT), frame(MessageType.DATA_STDERR)]
            self._port.write(b"".join(reversed(ends) if self._keep_stderr else ends))
        self._status = code
        self._finish_if_done()

    def abandon(self) -> None:
        """End the connection from this side; the program sees its streams end."""
        self._lost()

    def _take(self, data: bytes) -> None:
        if self._passing and self._pass_whole(data):
            return
        try:
            self._received += self._finder.feed(data)
            if self._limit is None:
                first = take_raw_frame(self._received, MAX_CHUNK, check_hello)
                if first is None:
                    return
                self._begin(chunk_limit(session_version(first)))
            while self._limit and (message := take_data(self._received, self._limit)) is not None:
                self._take_message(*message)
        except ProtocolError:
            self._lost()
        self._passing = (
            self._limit is not None
            and self._input >= 0
            and not self._received
            and not self._input_queue
        )

    def _pass_whole(self, data: bytes) -> bool:
        """Give the program one whole message of input, if it is that and some is taken at once."""
        length = len(data) - HEADER.size
        if not 0 < length <= _AT_ONCE or HEADER.unpack_from(data) != (_STDIN, length):
            return False
        try:
            sent = os.write(self._input, data[HEADER.size :])
        except OSError:
            return False  # Said again, and then dealt with, the long way.
        if sent < length:
            self._passing = False
            self._input_queue += data[HEADER.size + sent :]
            self._feed()
        return True

    def _begin(self, limit: int) -> None:
        self._limit = self._chunk = limit
        self._stop_waiting()
        self._poll_outputs()
        self._finish_if_done()

    def _take_message(self, kind: MessageType, body: bytes) -> None:
        if kind not in (MessageType.DATA_STDIN, MessageType.DATA_STDOUT):
            return
        if (self._input < 0 and not self._awaiting_start) or self._input_ended:
            return
        if body:
            self._input_queue += body
        else:
            self._input_ended = True
        self._feed()

    def _input_ready(self, events: int) -> None:
        if events & HANGUP:
            self._close_input()  # The program closed its input, or the service its socket.
        else:
            self._feed()

    def _feed(self) -> None:
        """Give the program its input; an unread queue holds the caller back."""
        while self._input >= 0 and self._input_queue:
            try:
                sent = os.write(self._input, self._input_queue)
            except BlockingIOError:
                self._loop.change(self._input, WRITE | HANGUP)
                break
            except OSError:
                self._close_input()
                break
            del self._input_queue[:sent]
        if self._input >= 0 and not self._input_queue:
            if self._input_ended:
                self._close_input()
                self._end_with_client()
            else:
                self._loop.change(self._input, HANGUP)
        if len(self._input_queue) > _MAX_INPUT:
            self._port.pause()
        else:
            self._port.resume()

    def _close_input(self) -> None:
        if self._input >= 0:
            self._loop.drop(self._input)
            os.close(self._input)
            self._input = -1
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._socket.close()
            self._socket = None
            self._loop.soon(self._finish_if_done)
        self._passing = False
        self._input_queue.clear()
        if not self._lost_already:  # Else the port may serve another call by now.
            self._port.resume()

    def _pass_on(self, descriptor: int, _events: int) -> None:
        """Read one chunk of output and send it."""
        try:
            data = os.read(descriptor, self._chunk)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            kind = self._outputs[descriptor]
            if kind is MessageType.DATA_STDERR and self._error_log is not None:
                self._error_log.write(data)
            if self._port.write(HEADER.pack(kind, len(data)) + data):
                self._poll_outputs()
            return
        self._end_output(descriptor)
        if self._config is not None and self._config.exit_on_service_eof:
            self._close_input()
        self._finish_if_done()

    def _end_output(self, descriptor: int) -> None:
        kind = self._outputs.pop(descriptor)
        if kind is MessageType.DATA_STDERR and self._error_log is not None:
            self._error_log.close()
        self._loop.drop(descriptor)
        os.close(descriptor)
        self._port.write(frame(kind))

    def _end_with_client(self) -> None:
        """The caller ended its input: some services' calls are over by that."""
        if self._config is not None and self._config.exit_on_client_eof:
            for descriptor in tuple(self._outputs):
                self._end_output(descriptor)
            self._finish_if_done()

    def _poll_outputs(self) -> None:
        """Read output only while it can be passed on."""
        events = READ if self._limit is not None and not self._port.full else 0
        for descriptor in self._outputs:
            self._loop.change(descriptor, events)

    def _drained(self) -> None:
        self._poll_outputs()

    def _ended(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._status = code if code >= 0 else 128 - code
        self._close_input()
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._status is None or self._outputs or self._finished or self._limit is None:
            return
        if self._socket is not None:
            return  # The caller may still have something to say to a service that does not answer.
        self._finished = self._told = True
        self._close_input()
        self._port.write(exit_code(self._status))
        if self._closes:
            self._close_when_sent()

    def _close_when_sent(self) -> None:
        if self._port.empty:
            self._lost()
        else:
            self._loop.after(_SENDING_POLL, self._close_when_sent)

    def _stop_waiting(self) -> None:
        if self._unheard is not None:
            self._loop.cancel(self._unheard)
            self._unheard = None

    def _lost(self) -> None:
        """The other side is gone: after the exit code that is how a call ends."""
        if self._lost_already:
            return
        self._lost_already = True
        self._stop_waiting()
        if self._error_log is not None:
            self._error_log.close()
        self._close_input()
        for descriptor in tuple(self._outputs):
            self._loop.drop(descriptor)
            with suppress(OSError):
                os.close(descriptor)
        self._outputs.clear()
        self._finished = True
        self._on_over()


def _spawn(
    program: Program, source: int, output: int, errors: int | None
) -> "subprocess.Popen[bytes]":
    user = program.user if os.geteuid() == 0 else None
    home = program.user.pw_dir
    process = subprocess.Popen(
        program.argv,
        executable=program.executable,
        stdin=source,
        stdout=output,
        stderr=errors,
        env=program.environment,
        cwd=home if os.path.isdir(home) else "/",  # noqa: PTH112 - on every call's path
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=ACCOUNTS.groups(user) if user else None,
        preexec_fn=program.before,  # noqa: PLW1509 - no thread of ours is there
    )
    process.returncode = 0  # The loop reaps it, by its pidfd.
    return process


def _spawn_with_sockets(
    program: Program, errors: int | None
) -> "tuple[subprocess.Popen[bytes], int, int]":
    """The process, and our ends of its input and its output."""
    own_input, its_input = socket.socketpair()
    own_output, its_output = socket.socketpair()
    with its_input, its_output:
        process = _spawn(program, its_input.fileno(), its_output.fileno(), errors)
    own_input.setblocking(False)
    own_output.setblocking(False)
    return process, own_input.detach(), own_output.detach()


def _own(pipe: IO[bytes]) -> int:
    """A non-blocking descriptor of a pipe that Popen opened."""
    number = os.dup(pipe.fileno())
    pipe.close()
    os.set_blocking(number, False)
    return number
