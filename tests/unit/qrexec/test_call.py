"""The end that serves a call: how long it waits for one that does not begin."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from insula.protocol.qrexec import hello
from insula.qrexec import call
from insula.qrexec.call import Call
from insula.qrexec.loop import Loop
from insula.qrexec.port import SocketPort

NONCE = bytes(range(16))


class Served:
    """A call that is served. over: how often it was said to be."""

    def __init__(self, undo: ExitStack) -> None:
        self.loop, self.over = Loop(), 0
        near, self.far = socket.socketpair()
        self.far.settimeout(10)
        undo.callback(self.far.close)
        near.setblocking(False)
        port = SocketPort(self.loop)
        undo.callback(port.close)
        self.call = Call(self.loop, port, NONCE, self._is_over)
        port.use(near.detach())
        assert self.call.greet(NONCE)

    def _is_over(self) -> None:
        self.over += 1
        self.loop.running = False

    def serve(self, seconds: float) -> None:
        """Serve for a while, or until the call is over."""
        self.loop.running = True

        def stop() -> None:
            self.loop.running = False

        timer = self.loop.after(seconds, stop)
        self.loop.run()
        self.loop.cancel(timer)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(call, "GREETING_TIMEOUT", 0.1)
    with ExitStack() as undo:
        yield Served(undo)


@pytest.mark.parametrize("said", [b"", NONCE, NONCE + hello()[:-1], os.urandom(4096)])
def test_who_does_not_begin_is_waited_for_no_longer(served: Served, said: bytes) -> None:
    served.far.sendall(said)
    served.serve(10)
    assert served.over


def test_who_began_may_take_as_long_as_it_likes(served: Served) -> None:
    served.far.sendall(NONCE + hello())
    served.serve(0.3)
    assert not served.over
    served.far.close()
    served.serve(10)
    assert served.over


def test_a_timer_that_was_cancelled_does_not_call() -> None:
    loop, called = Loop(), list[int]()

    def stop() -> None:
        loop.running = False

    first = loop.after(0.01, lambda: called.append(1))
    loop.after(0.02, lambda: called.append(2))
    loop.after(0.03, stop)
    loop.cancel(first)
    loop.run()
    loop.cancel(first)
    assert called == [2]
