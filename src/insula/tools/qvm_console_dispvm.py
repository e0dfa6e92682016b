"""qvm-console-dispvm: a qube's console in a window of a disposable, as it is not trusted."""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack

from insula.client import errors
from insula.client.app import App, Qube
from insula.client.local_socket import LocalRequest
from insula.protocol.errors import ReportableError
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink
from insula.tools import names
from insula.tools.command import Parser, run
from insula.tools.qvm_console import EXIT_TAKEN, SHOW_PROMPT, console_of

_SERVICE = "qubes.ShowInTerminal"
_PROPERTY = "management_dispvm"


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-console-dispvm."""
    parser = Parser(
        "qvm-console-dispvm",
        "Show a qube's console in a window of a new disposable, with a root shell.",
        examples={"qvm-console-dispvm --autostart work": "start it first, if it does not run"},
        exit_codes={
            1: "the qube does not run, or there is nothing to make the disposable of",
            EXIT_TAKEN: "somebody else is at the console",
        },
        notes=(
            f"The disposable is made of the qube's property {_PROPERTY}, or else the system's. It "
            "is gone when its window is closed; the shell in the qube goes on. So what the console "
            "says is never read by a terminal of this host, as it is by that of qvm-console.",
        ),
    )
    names.add_one(parser)
    parser.add_argument("--autostart", action="store_true", help="start the qube if it is halted")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    qube = names.find_one(App(), arguments)
    template = _template(qube)
    if qube.is_halted():
        if not arguments.autostart:
            error = errors.QubesVMNotRunningError(f"{qube} is not running")
            error.hint = "Start it first with: --autostart"
            raise error
        qube.start()
    with console_of(qube) as console:
        return _show(console, f"@dispvm:{template}")


def _template(qube: Qube) -> str:
    template = qube.get(_PROPERTY).value
    if not template:
        error = ReportableError(f"nothing says of what the disposable for {qube} is to be made")
        error.hint = f"Set it with: qubes-prefs {_PROPERTY} NAME"
        raise error
    return template


def _show(console: int, target: str) -> int:
    """Join a console to a window in a new disposable until one of them is gone."""
    fields = {"target": target, "service": _SERVICE, "gui": True}
    with ExitStack() as closing:
        request = closing.enter_context(LocalRequest())
        request.ask("call", fields, timeout=None)
        screen = DescriptorSink(console)
        closing.callback(screen.end)
        connection = DataConnection(
            request.descriptors[0],
            bytes.fromhex(request.fields["nonce"]),
            source=console,
            output=screen,
            errors=DescriptorSink(2, table=HARMLESS),
        )
        closing.callback(connection.close)
        os.write(console, SHOW_PROMPT)
        relay([connection])
    if connection.lost is not None:
        raise ReportableError(f"the window in the disposable is gone: {connection.lost}")
    if connection.code:
        raise ReportableError(f"{_SERVICE} failed (status {connection.code})")
    return 0
