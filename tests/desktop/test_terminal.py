"""qubes.ShowInTerminal with a real terminal: the call's other end talks to it."""

import os
import sys
from contextlib import ExitStack
from subprocess import DEVNULL, PIPE

from tests.desktop.joined import TIMEOUT, XServer

_WHERE = b"\x1b[6n"  # A terminal answers it by where its cursor is.


def _answer(descriptor: int) -> bytes:
    answer = b""
    while not answer.endswith(b"R"):
        more = os.read(descriptor, 100)
        assert more, answer
        answer += more
    return answer


def test_a_terminal_is_joined_to_the_call_as_it_is(qube_display: XServer) -> None:
    service = (sys.executable, "-m", "insula.guest.services.terminal")
    with ExitStack() as stack:
        program = qube_display.program(*service, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        process = stack.enter_context(program)
        assert process.stdin is not None
        assert process.stdout is not None
        stack.enter_context(process.stdout)
        # Nothing is made of the line's end: the cursor goes down, and not back.
        process.stdin.write(b"four\n" + _WHERE)
        process.stdin.flush()
        assert _answer(process.stdout.fileno()) == b"\x1b[2;5R"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(TIMEOUT) == 0
