"""A qube's console on a terminal, as a person has it."""

import os
import pty
import re
import select
import time
from collections.abc import Iterator

import pytest

from tests.vm.instance import Instance

LONGEST = 60.0  # seconds


@pytest.fixture
def app(instance: Instance) -> Iterator[str]:
    """An app qube that runs."""
    name = "console-app"
    instance.say("qvm-create", "--label", "blue", name)
    instance.say("qvm-start", name)
    yield name
    instance.command("qvm-kill", name)
    instance.remove(name)


def test_a_console_has_a_root_shell_that_goes_on(instance: Instance, app: str) -> None:
    first, second = pty.openpty(), pty.openpty()
    try:
        at_first = instance.start("qvm-console", app, terminal=first[1])
        _read_until(first[0], rb"root@[^#]*# ")
        os.write(first[0], b"kept=7; tty; id -u; echo $((6*7))\r")
        _read_until(first[0], rb"/dev/ttyS0\s+0\s+42\s")
        at_second = instance.start("qvm-console", app, terminal=second[1])
        assert at_second.wait(LONGEST) == 200
        os.write(first[0], b"\x1d")
        assert at_first.wait(LONGEST) == 0
        again = instance.start("qvm-console", app, terminal=second[1])
        _read_until(second[0], rb"root@[^#]*# ")
        os.write(second[0], b"echo $((kept*11))\r")
        _read_until(second[0], rb"\s77\s")
        os.write(second[0], b"\x1d")
        assert again.wait(LONGEST) == 0
    finally:
        for descriptor in (*first, *second):
            os.close(descriptor)


def _read_until(terminal: int, pattern: bytes) -> None:
    seen, deadline = b"", time.monotonic() + LONGEST
    while re.search(pattern, seen) is None:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 4096)
