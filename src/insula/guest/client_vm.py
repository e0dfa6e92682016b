"""qrexec-client-vm: call a service in another qube (qrexec-wire.md section 14.1).

It is started for every call: what a plain call does not need is loaded when it is needed.
"""

import array
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from insula.guest.client_vm_options import Options, UsageError, parse, usage
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import AGENT_SOCKET, EXIT_LOST, EXIT_REFUSED, Trigger
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink, open_missing, release

if TYPE_CHECKING:
    import subprocess

_PARAMETERS = struct.Struct("<II")
_CONNECT_TIMEOUT = 120.0  # seconds until the other end of a vchan is there
_EXIT_TROUBLE, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130
_REQUEST_ID = b"SOCKET".ljust(32, b"\0")
_ANSWER = 4096  # bytes, more than any answer has


class _Accepted(NamedTuple):
    """The connection of a call, and the nonce with which it opens."""

    descriptor: int
    nonce: bytes


class _RefusedError(Exception):
    """The call is not to be."""


def main() -> int:
    """Call, pass data, and exit as the service does."""
    try:
        options = parse(sys.argv[1:])
    except UsageError as error:
        print(f"qrexec-client-vm: {error}\n{usage()}", file=sys.stderr)
        return _EXIT_USAGE
    if options is None:
        print(usage())
        return 0
    open_missing()
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            accepted = _ask(agent, options)
            code = _call(options, accepted)
            return code if 0 <= code <= EXIT_LOST else EXIT_LOST
    except _RefusedError:
        print("Request refused", file=sys.stderr)
        return EXIT_REFUSED
    except (OSError, ProtocolError) as error:
        print(f"qrexec-client-vm: {error}", file=sys.stderr)
        return _EXIT_TROUBLE
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _ask(agent: socket.socket, options: Options) -> _Accepted:
    """Ask the agent, and wait for its answer.

    Raises:
        _RefusedError: the call is refused.
        OSError: the agent cannot be reached, or answers something else.
    """
    agent.connect(options.agent_socket or os.environ.get("INSULA_AGENT_SOCKET", AGENT_SOCKET))
    trigger = Trigger(options.target, _REQUEST_ID, options.service, options.source)
    agent.sendall(trigger.encode())
    answer, descriptors = _receive(agent)
    if not answer:
        raise _RefusedError
    if len(answer) < _PARAMETERS.size:
        raise ConnectionError("the agent broke off")
    domain, port = _PARAMETERS.unpack_from(answer)
    if descriptors:
        return _Accepted(descriptors[0], answer[_PARAMETERS.size :])
    from insula.qrexec import vchan  # noqa: PLC0415 - of no use in a machine

    server = vchan.Server(domain, port)
    return _Accepted(server.accept(_CONNECT_TIMEOUT).detach(), b"")


def _receive(agent: socket.socket) -> tuple[bytes, list[int]]:
    """The agent's answer, and the descriptors that came with it."""
    answer, given = b"", array.array("i")
    while len(answer) < _PARAMETERS.size:
        data, ancillary, _, _ = agent.recvmsg(
            _ANSWER, socket.CMSG_SPACE(given.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                given.frombytes(content[: len(content) - len(content) % given.itemsize])
        if not data:
            break
        answer += data
    return answer, list(given)


def _call(options: Options, accepted: _Accepted) -> int:
    if options.program:
        return _with_program(options, accepted)
    if options.use_stdin_socket:
        return _relay(_connection(options, accepted, source=0, output=0, half_close=True))
    connection = _connection(options, accepted, source=0, output=1)
    release(1)
    return _relay(connection)


def _connection(
    options: Options, accepted: _Accepted, *, source: int, output: int, half_close: bool = False
) -> DataConnection:
    table = HARMLESS if options.filter_stdout else None
    return DataConnection(
        accepted.descriptor,
        accepted.nonce,
        source=source,
        first=options.prefix_data,
        output=DescriptorSink(output, table=table, half_close=half_close),
        errors=DescriptorSink(2, table=HARMLESS if options.filter_stderr else None),
        patient=True,
    )


def _relay(connection: DataConnection) -> int:
    try:
        relay([connection])
    finally:
        connection.close()
        connection.end_output()
    if connection.misbehaved:
        raise ConnectionError(connection.lost)
    return EXIT_LOST if connection.code is None else connection.code


def _with_program(options: Options, accepted: _Accepted) -> int:
    """Connect the service with a program of our own; its code where the service's is none."""
    import signal  # noqa: PLC0415 - see above

    own_input, input_end = socket.socketpair()
    own_output, output_end = socket.socketpair()
    with own_input, own_output:
        source, output = own_output.fileno(), own_input.fileno()
        connection = _connection(options, accepted, source=source, output=output, half_close=True)

        def use_one_socket(_number: int, _frame: object) -> None:
            connection.take_source(output)
            with suppress(OSError):  # It was dropped already. This also ends the wait for it.
                own_output.shutdown(socket.SHUT_RDWR)

        signal.signal(signal.SIGUSR1, use_one_socket)
        with input_end, output_end:
            program = _start(options.program, input_end, output_end)
        code = _relay(connection)
    local = program.wait()
    return code or (local if local >= 0 else 128 - local)


def _start(
    words: Sequence[str], input_end: socket.socket, output_end: socket.socket
) -> "subprocess.Popen[bytes]":
    import subprocess  # noqa: PLC0415 - see above

    saved = {f"SAVED_FD_{number}": os.dup(number) for number in (0, 1)}
    if os.environ.get("PASS_LOCAL_STDERR"):
        saved["SAVED_FD_2"] = os.dup(2)
    environment = dict(os.environ)
    environment.update({name: str(number) for name, number in saved.items()})
    environment["QREXEC_AGENT_PID"] = str(os.getpid())
    try:
        return subprocess.Popen(
            [words[0].rpartition("/")[2], *words[1:]],
            executable=words[0] if "/" in words[0] else f"./{words[0]}",  # It is not searched for.
            stdin=input_end.fileno(),
            stdout=output_end.fileno(),
            env=environment,
            pass_fds=[*saved.values()],
        )
    finally:
        for number in saved.values():
            os.close(number)


if __name__ == "__main__":
    sys.exit(main())
