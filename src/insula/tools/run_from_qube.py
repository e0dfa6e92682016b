"""qvm-run in a qube: each command is a call of qrexec-client-vm, which moves the data itself."""

import argparse
import os
import subprocess
import sys

from insula.client import errors, remote
from insula.tools.command import UsageError
from insula.tools.run_service import DEFAULT_USER, RunService

EXIT_REFUSED = 255
_HIGHEST_STATUS = 255
_PREFIX = "qvm-run: error: "


class RemoteRunning:
    """A call that may begin.

    Raises:
        UsageError: it should be as another user, which only dom0 can ask for.
    """

    def __init__(self, target: str, service: RunService, arguments: argparse.Namespace) -> None:
        if service.user != DEFAULT_USER:
            raise UsageError("--user is for dom0 alone")
        self._target = target
        self._words = _words(target, service, arguments)
        self._streams = None if arguments.pass_io else subprocess.DEVNULL
        self._code = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin.

        Raises:
            QubesException: this qube cannot call.
        """
        sys.stdout.flush()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self._streams)
        try:
            self._process = subprocess.Popen(self._words, **streams)
        except FileNotFoundError:
            text = f"there is no {self._words[0]} in this qube"
            raise errors.QubesDaemonCommunicationError(text) from None

    def wait(self) -> None:
        """Wait for the end."""
        if self._process is not None:
            self._code = self._process.wait()

    def status(self) -> int:
        """The exit code of the whole."""
        if self._code == remote.EXIT_REFUSED:
            print(f"{_PREFIX}{self._target}: the call was refused", file=sys.stderr)
            return EXIT_REFUSED
        return self._code if 0 <= self._code <= _HIGHEST_STATUS else _HIGHEST_STATUS


def _words(target: str, service: RunService, arguments: argparse.Namespace) -> list[str]:
    options = [
        f"--{'' if filtered else 'no-'}filter-escape-chars-{stream}"
        for stream, filtered in (
            ("stdout", arguments.filter_output), ("stderr", arguments.filter_errors),
        )
    ]  # fmt: skip
    if service.first:
        options.append(f"--prefix-data={os.fsdecode(service.first)}")
    local = ["/bin/sh", "-c", arguments.localcmd] if arguments.localcmd else []
    return [*remote.command(target, service.name, *options), *local]


def wait_for_session(target: str, service: RunService) -> None:
    """Let a qube's session come up."""
    from insula.client.services import run_service  # noqa: PLC0415 - only where windows are shown

    run_service(target, service.name, service.first)
