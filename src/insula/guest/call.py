"""One call: a program on one side, a data connection on the other, frames between them."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO

from insula.guest.accounts import ACCOUNTS
from insula.guest.loop import HANGUP, READ, WRITE, Loop
from insula.guest.ports import Port
from insula.guest.programs import Program
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import HEADER, frame, take_raw_frame
from insula.protocol.qrexec import (
    LOWEST_VERSION,
    MAX_CHUNK,
    MessageType,
    chunk_limit,
    exit_code,
    hello,
    session_version,
    take_data,
)
from insula.protocol.resync import MarkerFinder

_STDIN = int(MessageType.DATA_STDIN)  # looked up once: this is asked for each message
_AT_ONCE = 4096  # bytes that a pipe takes whole or not at all
_MAX_INPUT = 262_144  # bytes for a program that does not read, after which the caller waits


class Call:
    """A running call. on_over: both the program's streams and the connection have ended."""

    def __init__(
        self, loop: Loop, port: Port, nonce: bytes, on_over: Callable[[], None], *, quiet: bool
    ) -> None:
        self._loop = loop
        self._port = port
        self._finder = MarkerFinder(nonce)
        self._received = bytearray()
        self._limit: int | None = None
        self._chunk = chunk_limit(LOWEST_VERSION)
        self._passing = False  # whether input that comes may go to the program at once
        self._on_over = on_over
        self._quiet = quiet
        self._input = -1
        self._input_queue = bytearray()
        self._input_ended = False
        self._outputs: dict[int, MessageType] = {}
        self._status: int | None = None
        self._finished = False
        self._lost_already = False
        port.on_data = self._take
        port.on_closed = self._lost
        port.on_drained = self._drained

    def greet(self, nonce: bytes) -> bool:
        """Open the connection from this side; False when it is over already."""
        self._port.write(nonce + hello())
        return not self._lost_already

    def start(self, program: Program) -> None:
        """Run the program; its streams are the call's unless the call is quiet.

        Raises:
            OSError: it could not be started.
        """
        stream = subprocess.DEVNULL if self._quiet else subprocess.PIPE
        user = program.user if os.geteuid() == 0 else None
        process = subprocess.Popen(
            program.argv,
            executable=program.executable,
            stdin=stream,
            stdout=stream,
            stderr=stream,
            env=program.environment,
            cwd=program.user.pw_dir if os.path.isdir(program.user.pw_dir) else "/",  # noqa: PTH112
            start_new_session=True,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=ACCOUNTS.groups(user) if user else None,
        )
        process.returncode = 0  # The loop reaps it, by its pidfd.
        if process.stdin and process.stdout and process.stderr:
            self._input = _own(process.stdin)
            self._loop.add(self._input, HANGUP, self._input_ready)
            for pipe, kind in (
                (process.stdout, MessageType.DATA_STDOUT),
                (process.stderr, MessageType.DATA_STDERR),
            ):
                descriptor = _own(pipe)
                self._outputs[descriptor] = kind
                self._loop.add(
                    descriptor,
                    READ if self._limit is not None else 0,
                    partial(self._pass_on, descriptor),
                )
        if self._quiet:
            self._status = 0
            self._loop.on_exit(process.pid, lambda _status: None)
            self._finish_if_done()
        else:
            self._loop.on_exit(process.pid, self._ended)

    def fail(self, code: int) -> None:
        """Answer that the program could not be started."""
        if not self._quiet:
            self._port.write(frame(MessageType.DATA_STDOUT) + frame(MessageType.DATA_STDERR))
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
                first = take_raw_frame(self._received, MAX_CHUNK)
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
        """Give the program one whole message of input, if it is that and is taken at once."""
        length = len(data) - HEADER.size
        if not 0 < length <= _AT_ONCE or HEADER.unpack_from(data) != (_STDIN, length):
            return False
        try:
            os.write(self._input, data[HEADER.size :])
        except OSError:
            return False  # Said again, and then dealt with, the long way.
        return True

    def _begin(self, limit: int) -> None:
        self._limit = self._chunk = limit
        self._poll_outputs()
        self._finish_if_done()

    def _take_message(self, kind: MessageType, body: bytes) -> None:
        if kind not in (MessageType.DATA_STDIN, MessageType.DATA_STDOUT) or self._input < 0:
            return
        if body:
            self._input_queue += body
        else:
            self._input_ended = True
        self._feed()

    def _input_ready(self, events: int) -> None:
        if events & HANGUP:
            self._close_input()  # The program closed its input.
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
        self._passing = False
        self._input_queue.clear()
        self._port.resume()

    def _pass_on(self, descriptor: int, _events: int) -> None:
        """Read one chunk of output and send it."""
        try:
            data = os.read(descriptor, self._chunk)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        kind = self._outputs[descriptor]
        if data:
            if self._port.write(HEADER.pack(kind, len(data)) + data):
                self._poll_outputs()
            return
        del self._outputs[descriptor]
        self._loop.drop(descriptor)
        os.close(descriptor)
        self._port.write(frame(kind))
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
        self._finished = True
        self._close_input()
        self._port.write(exit_code(self._status))

    def _lost(self) -> None:
        """The other side is gone: after the exit code that is how a call ends."""
        if self._lost_already:
            return
        self._lost_already = True
        self._close_input()
        for descriptor in tuple(self._outputs):
            self._loop.drop(descriptor)
            with suppress(OSError):
                os.close(descriptor)
        self._outputs.clear()
        self._finished = True
        self._on_over()


def _own(pipe: IO[bytes]) -> int:
    """A non-blocking descriptor of a pipe that Popen opened."""
    number = os.dup(pipe.fileno())
    pipe.close()
    os.set_blocking(number, False)
    return number
