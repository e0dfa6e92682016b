"""Which service carries a command to a qube (qvm-tools.md section 5)."""

import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

from insula.protocol.command import encode_vmexec
from insula.protocol.qrexec import MAX_SERVICE

Feature = Callable[[str], str | None]  # the qube's or its template's; None when not set
DEFAULT_USER = "DEFAULT"


class RunService(NamedTuple):
    """A service to call as user, with what goes to its input before the caller's own."""

    name: str
    user: str = DEFAULT_USER
    first: bytes = b""


def shell_service(command: str, user: str, feature: Feature, *, gui_disposable: bool) -> RunService:
    """A command for the qube's shell."""
    end = "& exit\n" if feature("os") == "Windows" else "; exit\n"
    script = (command + end).encode("utf-8", "surrogateescape")
    if user == "root" and feature("supported-rpc.qubes.VMRootShell"):
        return RunService("qubes.VMRootShell", first=script)
    name = "qubes.VMShell+WaitForSession" if gui_disposable else "qubes.VMShell"
    return RunService(name, user, script)


def program_service(
    words: Sequence[str], user: str, feature: Feature, *, gui_disposable: bool
) -> RunService:
    """A program and its arguments, kept apart from any shell where the qube can do that."""
    if feature("vmexec"):
        name = "qubes.VMExecGUI" if gui_disposable else "qubes.VMExec"
        if user == "root" and feature("supported-rpc.qubes.VMRootExec"):
            name, user = "qubes.VMRootExec", DEFAULT_USER
        argument = encode_vmexec([word.encode("utf-8", "surrogateescape") for word in words])
        if len(name) + 1 + len(argument) < MAX_SERVICE:
            return RunService(f"{name}+{argument}", user)
    return shell_service(shlex.join(words), user, feature, gui_disposable=gui_disposable)
