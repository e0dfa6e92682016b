"""qvm-run: run a command or a service in qubes.

The daemon connects, nothing more: this program holds one end of each data connection and moves the
data itself. What is needed rarely is loaded when it is needed.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from insula.client import admin, errors, instance
from insula.client.local_socket import LocalRequest
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink
from insula.tools.command import run, say, show
from insula.tools.run_options import RunParser
from insula.tools.run_service import RunService, program_service, shell_service
from insula.tools.run_target import Target, check_exists, targets

if TYPE_CHECKING:
    from insula.tools.run_from_qube import RemoteRunning

EXIT_SKIPPED = 1
EXIT_REFUSED = 255
_HIGHEST_STATUS = 255
_PROGRAM = "qvm-run"
_PREFIX = f"{_PROGRAM}: error: "


class _Running:
    """A call under way, with the local command it is connected to."""

    def __init__(self, target: Target, connection: DataConnection, local: "_LocalCommand | None"):
        self.target = target
        self.connection = connection
        self.local = local

    def status(self) -> int:
        """The exit code of the whole: the qube's, else the local command's."""
        if self.connection.lost is not None:
            print(f"{_PREFIX}{self.target.name}: {self.connection.lost}", file=sys.stderr)
        local = self.local.wait() if self.local is not None else 0
        code = self.connection.code
        if code is None or not 0 <= code <= _HIGHEST_STATUS:
            return _HIGHEST_STATUS
        return code or local


class _LocalCommand:
    """A local shell command whose input is a qube's output, and the other way round."""

    def __init__(self, command: str) -> None:
        import subprocess  # noqa: PLC0415 - costs a plain run too much

        pipe = subprocess.PIPE
        self._process = subprocess.Popen(["/bin/sh", "-c", command], stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.source = self._output.fileno()
        self.sink = DescriptorSink(self._process.stdin.fileno())
        self._process.stdin.close()

    def wait(self) -> int:
        self.sink.end()
        self._output.close()
        code = self._process.wait()
        if code == -signal.SIGPIPE:
            return 0  # The qube has read all that it wanted.
        return code if code >= 0 else 128 - code


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-run."""
    return run(RunParser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    codes = [0]
    with ExitStack() as closing:
        running: list[_Running | RemoteRunning] = []
        for target in targets(arguments):
            check_exists(target)
            if not _ready(target, arguments):
                codes.append(EXIT_SKIPPED)
                continue
            try:
                running.append(_begin(target, arguments, closing))
            except errors.DaemonNotRunningError:
                raise
            except errors.QubesException as error:
                show(error, _PREFIX)
                codes.append(EXIT_REFUSED)
        with _coloured(arguments):
            _serve(running)
        codes += [one.status() for one in running]
    return max(codes)


def _serve(running: "Sequence[_Running | RemoteRunning]") -> None:
    """See all calls to their end, at the same time."""
    relay([one.connection for one in running if isinstance(one, _Running)])
    elsewhere = [one for one in running if not isinstance(one, _Running)]
    for one in elsewhere:
        one.start()
    for one in elsewhere:
        one.wait()


def _ready(target: Target, arguments: argparse.Namespace) -> bool:
    """Wake a paused qube; whether a command can be run there."""
    if arguments.no_autostart and target.state not in (None, "Running", "Transient"):
        say(target.name, f"it is {target.state}, nothing was run")
        return False
    method = {"Paused": "admin.vm.Unpause", "Suspended": "admin.vm.Resume"}.get(target.state or "")
    if method is not None:
        try:
            admin.call(target.name, method)
        except errors.DaemonNotRunningError:
            raise
        except errors.QubesException as error:
            say(target.name, f"it could not be woken: {error}")
            return False
    return True


def _begin(
    target: Target, arguments: argparse.Namespace, closing: ExitStack
) -> "_Running | RemoteRunning":
    """Have a qube run the command."""
    gui = target.wants_session() if arguments.gui is None else arguments.gui
    service = _service(target, arguments, gui_disposable=gui and target.disposable)
    if gui and not target.disposable:
        _wait_for_session(target, arguments)
    if not arguments.quiet and not arguments.pass_io:
        say(_PROGRAM, f"running {' '.join(arguments.command)!r} in {target.name}")
    if instance.in_qube():
        from insula.tools import run_from_qube  # noqa: PLC0415 - most run in dom0

        return run_from_qube.RemoteRunning(target.name, service, arguments)
    detached = arguments.service and not arguments.pass_io and not target.disposable
    request = _call(target, service, arguments, closing, gui=gui, detached=detached)
    local, output, error_output = None, Sink(), Sink()
    source = None
    if arguments.pass_io:
        source = 0
        output = _sink(1, filtered=arguments.filter_output)
        error_output = _sink(2, filtered=arguments.filter_errors)
        closing.callback(output.end)
        closing.callback(error_output.end)
    if arguments.localcmd:
        local = _LocalCommand(arguments.localcmd)
        source, output = local.source, local.sink
    connection = DataConnection(
        request.descriptors[0],
        bytes.fromhex(request.fields["nonce"]),
        source=source,
        first=service.first,
        output=output,
        errors=error_output,
    )
    closing.callback(connection.close)
    return _Running(target, connection, local)


def _service(target: Target, arguments: argparse.Namespace, *, gui_disposable: bool) -> RunService:
    words, user = arguments.command, arguments.user
    if arguments.service:
        return RunService(words[0], user)
    if arguments.no_shell or len(words) > 1:
        return program_service(words, user, target.feature, gui_disposable=gui_disposable)
    return shell_service(words[0], user, target.feature, gui_disposable=gui_disposable)


def _call(
    target: Target, service: RunService, arguments: argparse.Namespace, closing: ExitStack,
    *, gui: bool, detached: bool = False,
) -> LocalRequest:  # fmt: skip
    """Have the daemon connect. The request stays open: with it a disposable ends."""
    request = closing.enter_context(LocalRequest())
    fields = {
        "target": target.name,
        "service": service.name,
        "user": service.user,
        "autostart": target.disposable or not arguments.no_autostart,
        "gui": gui,
        "detached": detached,
    }
    return request.ask("call", fields, timeout=None)


def _wait_for_session(target: Target, arguments: argparse.Namespace) -> None:
    """Let the qube's session come up; a qube without one, or without the service, runs as it is."""
    user = target.property("default_user")
    service = RunService("qubes.WaitForSession", first=f"{user}\n".encode())
    if instance.in_qube():
        from insula.tools import run_from_qube  # noqa: PLC0415 - most run in dom0

        run_from_qube.wait_for_session(target.name, service)
        return
    with ExitStack() as closing:
        request = _call(target, service, arguments, closing, gui=False)
        nonce = bytes.fromhex(request.fields["nonce"])
        connection = DataConnection(request.descriptors[0], nonce, first=service.first)
        closing.callback(connection.close)
        relay([connection])


def _sink(descriptor: int, *, filtered: bool) -> Sink:
    return DescriptorSink(descriptor, table=HARMLESS if filtered else None)


@contextmanager
def _coloured(arguments: argparse.Namespace) -> Iterator[None]:
    """Set off what a qube writes on a terminal."""
    colours = [(1, arguments.colour_output), (2, arguments.colour_errors)]
    used = [(number, colour) for number, colour in colours if colour is not None]
    for number, colour in used:
        os.write(number, b"\x1b[0;%dm" % colour)
    try:
        yield
    finally:
        for number, _ in used:
            os.write(number, b"\x1b[0m")


if __name__ == "__main__":
    sys.exit(main())
