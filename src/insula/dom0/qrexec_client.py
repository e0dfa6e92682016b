"""qrexec-client: run a command or service in a qube, or for one (qrexec-wire.md section 14.2)."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from insula.dom0 import qubesd
from insula.dom0.carrying import Caller, NotCarriedOutError, connect, serve_here
from insula.dom0.client_options import Options, UsageError, parse, usage
from insula.dom0.daemon_socket import DaemonSocket
from insula.dom0.local_service import target_of
from insula.protocol.command import parse_descriptor
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import (
    EXIT_LOST,
    EXIT_QREXEC_FAILED,
    ExecParameters,
    MessageType,
)
from insula.qrexec import vchan
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.programs import NotStartedError, Program, Searches, resolve_directly
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink

_EXIT_USAGE = 1
_EXIT_CALL_FAILED = 137
_DOM0 = ("dom0", "@adminvm")
_RPC = "QUBESRPC "
_NOGUI = "nogui:"
_DEFAULT = "DEFAULT:"


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
    try:
        code = _run(options)
    except NotStartedError as error:
        print(f"qrexec-client: {error}", file=sys.stderr)
        code = error.code
    except (OSError, ProtocolError, NotCarriedOutError) as error:
        print(f"qrexec-client: {error}", file=sys.stderr)
        code = _EXIT_CALL_FAILED if options.call and not _is_dom0(options) else EXIT_QREXEC_FAILED
    finally:
        if options.kill:
            _kill(options.target)
    return 0 if options.no_exit_code and code != EXIT_QREXEC_FAILED else code


def _is_dom0(options: Options) -> bool:
    return options.target in _DOM0


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
        command = options.command.removeprefix(_NOGUI)
        if not command.startswith(_RPC):
            raise ProtocolError("for a call to dom0 a service is needed")
        return serve_here(caller, command.removeprefix(_RPC), options.directory, timeout)
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
    command = options.command.removeprefix(_DEFAULT).removeprefix(_NOGUI)
    if not options.command.startswith(_DEFAULT) or not command.startswith(_RPC):
        raise ProtocolError("dom0 can call services of its own alone: DEFAULT:QUBESRPC ...")
    service = parse_descriptor(command.removeprefix(_RPC))
    prepared = resolve_directly(service, Searches.of_environment(), target_of(service))
    if not isinstance(prepared, Program):
        prepared.connection.close()
        raise ProtocolError("dom0 can call no socket of its own")
    os.execve(prepared.executable, prepared.argv, prepared.environment)


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
    table = HARMLESS if options.filter_stdout else None
    sink = DescriptorSink(output, table=table, half_close=options.use_stdin_socket)
    return _pass(options, connection, 0, sink, errors)


def _with_local(options: Options, connection: socket.socket, errors: Sink) -> int:
    own_input, its_input = socket.socketpair()
    own_output, its_output = socket.socketpair()
    with own_input, own_output:
        with its_input, its_output:
            local = _start_local(options, its_input, its_output)
        sink = DescriptorSink(own_input.fileno(), half_close=True)
        code = _pass(options, connection, own_output.fileno(), sink, errors)
    ended = local.wait()
    return code or (ended if ended >= 0 else 128 - ended)


def _start_local(
    options: Options, its_input: socket.socket, its_output: socket.socket
) -> "subprocess.Popen[bytes]":
    assert options.local is not None
    ours = {**os.environ, "QREXEC_REMOTE_DOMAIN": options.target}
    if not options.local.startswith(_RPC):
        return subprocess.Popen(
            ["/bin/sh", "-c", options.local],
            stdin=its_input.fileno(), stdout=its_output.fileno(), env=ours,
        )  # fmt: skip
    service = parse_descriptor(options.local.removeprefix(_RPC))
    prepared = resolve_directly(service, Searches.of_environment(), target_of(service))
    if not isinstance(prepared, Program):
        prepared.connection.close()
        raise ProtocolError("a local service is a program")
    return subprocess.Popen(
        prepared.argv, executable=prepared.executable, env=prepared.environment,
        stdin=its_input.fileno(), stdout=its_output.fileno(),
    )  # fmt: skip


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
    )
    try:
        relay([call])
    finally:
        call.close()
        output.end()
        errors.end()
    code = EXIT_LOST if call.code is None else call.code
    return code if 0 <= code <= EXIT_LOST else EXIT_LOST


if __name__ == "__main__":
    sys.exit(main())
