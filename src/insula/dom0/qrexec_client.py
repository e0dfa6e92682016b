"""qrexec-client: run a command or service in a qube, or for one (qrexec-wire.md section 14.2)."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from insula.dom0 import qubesd
from insula.dom0.carrying import Caller, NotCarriedOutError, connect, serve_here
from insula.dom0.client_options import Options, UsageError, parse, usage
from insula.dom0.daemon_socket import DaemonSocket
from insula.dom0.local_service import prepare
from insula.protocol.errors import ProtocolError
from insula.protocol.policy.system import is_admin
from insula.protocol.qrexec import (
    EXIT_LOST,
    EXIT_NOT_FOUND,
    EXIT_QREXEC_FAILED,
    ExecParameters,
    MessageType,
)
from insula.qrexec import vchan
from insula.qrexec.conversation import Conversation
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.programs import NotStartedError, Program
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink, open_missing, release

_EXIT_USAGE = _EXIT_MISBEHAVED = 1
_EXIT_CALL_FAILED = 137
_RPC = "QUBESRPC "
_NOGUI = "nogui:"
_DEFAULT = "DEFAULT:"


class _Local(NamedTuple):
    """A program of dom0 that is connected with a qube."""

    words: list[bytes]
    executable: bytes
    environment: dict[str, str]


def main(words: Sequence[str] | None = None) -> int:
    """Run what is asked for, and exit as it does."""
    try:
        options = parse(sys.argv[1:] if words is None else words)
    except UsageError as error:
        print(f"qrexec-client: {error}\n{usage()}", file=sys.stderr)
        return _EXIT_USAGE
    if options is None:
        print(usage())
        return 0
    open_missing()
    try:
        code = _run(options)
        code = 0 if options.no_exit_code else code
    except NotStartedError as error:
        print(f"qrexec-client: {error}", file=sys.stderr)
        code = error.code
    except (OSError, ProtocolError, NotCarriedOutError) as error:
        print(f"qrexec-client: {error}", file=sys.stderr)
        code = _EXIT_CALL_FAILED if options.call and not _is_dom0(options) else EXIT_QREXEC_FAILED
    finally:
        if options.kill:
            _kill(options.target)
    return code


def _is_dom0(options: Options) -> bool:
    return options.target == "@adminvm" or is_admin(options.target)


def _kill(target: str) -> None:
    try:
        qubesd.call("admin.vm.Kill", target)
    except qubesd.QubesdError as error:
        print(f"qrexec-client: {error}", file=sys.stderr)


def _run(options: Options) -> int:
    if options.call is not None:
        return _connect_call(options)
    if _is_dom0(options):
        return _run_here(options)
    return _run_there(options)


def _connect_call(options: Options) -> int:
    """Connect a call of a qube that was accepted."""
    assert options.call is not None
    request_id, name, domain = options.call
    padded = request_id.encode().ljust(32, b"\0")
    caller = Caller(domain, name, padded)
    timeout = options.timeout or None
    if _is_dom0(options):
        descriptor, configured = _service_of(options.command)
        if serve_here(caller, descriptor, options.directory, timeout, configured=configured):
            raise ProtocolError("the call was not served to its end")
        return 0
    connection = connect(
        caller, options.command, options.target, options.directory, autostart=False
    )
    try:
        if options.wait:
            connection.wait_closed()
    finally:
        connection.close()
    return 0


def _run_here(options: Options) -> int:
    """Become a service of dom0, called by dom0."""
    if not options.command.startswith(_DEFAULT):
        raise ProtocolError("dom0 can call services of its own alone: DEFAULT:QUBESRPC ...")
    descriptor, configured = _service_of(options.command.removeprefix(_DEFAULT))
    prepared = prepare(descriptor, configured=configured)
    if not isinstance(prepared, Program):
        prepared.connection.close()
        raise ProtocolError("dom0 can call no socket of its own")
    try:
        os.execve(prepared.executable, prepared.argv, prepared.environment)
    except FileNotFoundError as error:
        raise NotStartedError(EXIT_NOT_FOUND, str(error)) from None


def _service_of(command: str) -> tuple[str, bool]:
    """The descriptor of `[nogui:]QUBESRPC ...`, and whether its service is configured by files.

    Raises:
        ProtocolError: it is something else.
    """
    rest = command.removeprefix(_NOGUI)
    if not rest.startswith(_RPC):
        raise ProtocolError("for a call to dom0 a service is needed")
    return rest.removeprefix(_RPC), rest == command


def _run_there(options: Options) -> int:
    """Run a command in a qube, with our input and output or those of a local command."""
    daemon = DaemonSocket(options.directory, options.target)
    try:
        kind = MessageType.JUST_EXEC if options.just_exec else MessageType.EXEC_CMDLINE
        own = vchan.own_domain()
        daemon.request(kind, ExecParameters(own, 0, options.command).encode())
        given = daemon.answer()
        server = vchan.Server(given.domain, given.port)
        # Any descriptor of the daemon's is closed when the call is over, so it is kept until then.
        connection = server.accept(options.timeout or None)
        return _relay(options, connection)
    finally:
        daemon.close()


def _relay(options: Options, connection: socket.socket) -> int:
    if options.just_exec:
        return _pass(options, connection, None, Sink(), Sink())
    errors = DescriptorSink(2, table=HARMLESS if options.filter_stderr else None)
    if options.local:
        return _with_local(options, connection, errors)
    output = 0 if options.use_stdin_socket else 1
    sink = _output(options, output, half_close=options.use_stdin_socket)
    if output:
        release(output)
    return _pass(options, connection, 0, sink, errors)


def _output(options: Options, descriptor: int, *, half_close: bool) -> Sink:
    table = HARMLESS if options.filter_stdout else None
    return DescriptorSink(descriptor, table=table, half_close=half_close)


def _with_local(options: Options, connection: socket.socket, errors: Sink) -> int:
    assert options.local is not None
    if not options.local.startswith(_RPC):
        words = [b"/bin/sh", b"-c", os.fsencode(options.local)]
        ours = {**os.environ, "QREXEC_REMOTE_DOMAIN": options.target}
        return _with_program(options, connection, errors, _Local(words, words[0], ours))
    local = prepare(options.local.removeprefix(_RPC))
    if isinstance(local, Conversation):
        return _with_socket(options, connection, errors, local)
    program = _Local(local.argv, local.executable, local.environment)
    return _with_program(options, connection, errors, program)


def _with_program(
    options: Options, connection: socket.socket, errors: Sink, program: _Local
) -> int:
    own_input, its_input = socket.socketpair()
    own_output, its_output = socket.socketpair()
    with own_input, own_output:
        with its_input, its_output:
            local = subprocess.Popen(
                program.words,
                executable=program.executable,
                env=program.environment,
                stdin=its_input.fileno(),
                stdout=its_output.fileno(),
            )
        sink = _output(options, own_input.fileno(), half_close=True)
        code = _pass(options, connection, own_output.fileno(), sink, errors)
    ended = local.wait()
    return code or (ended if ended >= 0 else 128 - ended)


def _with_socket(
    options: Options, connection: socket.socket, errors: Sink, local: Conversation
) -> int:
    with local.connection as one:
        select.select([], [one], [])
        if failed := one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, os.strerror(failed))
        one.setblocking(True)
        one.sendall(local.opening)
        sink = _output(options, one.fileno(), half_close=True)
        return _pass(options, connection, one.fileno(), sink, errors)


def _pass(
    options: Options, connection: socket.socket, source: int | None, output: Sink, errors: Sink
) -> int:
    call = DataConnection(
        connection.detach(),
        b"",
        source=source,
        first=options.prefix_data,
        output=output,
        errors=errors,
        patient=not options.just_exec,
    )
    try:
        relay([call])
    finally:
        call.close()
        output.end()
        errors.end()
    if call.misbehaved and not call.greeted:
        raise ProtocolError(call.lost or "")
    if call.misbehaved:
        print(f"qrexec-client: {call.lost}", file=sys.stderr)
        return _EXIT_MISBEHAVED
    code = EXIT_LOST if call.code is None else call.code
    return code if 0 <= code <= EXIT_LOST else EXIT_LOST


if __name__ == "__main__":
    sys.exit(main())
