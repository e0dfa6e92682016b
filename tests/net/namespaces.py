"""Network namespaces of a test's own, joined by pairs of virtual cards."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_NEWNET = 0x4000_0000
_TIMEOUT = 60.0  # seconds that one program has
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Namespace:
    """A network namespace with a loopback that is up; it goes when nothing uses it any more."""

    def __init__(self) -> None:
        made: list[int] = []
        thread = threading.Thread(target=self._make, args=(made,))
        thread.start()
        thread.join()
        if not made:
            raise OSError("no network namespace is to be had; make test-net asks for one")
        self._descriptor = made[0]
        self.run("ip", "link", "set", "lo", "up")

    @staticmethod
    def _make(made: list[int]) -> None:
        # In a thread that ends at once: a namespace is left as it was entered, by thread.
        _checked(_libc.unshare(_NEWNET))
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self._descriptor)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread, and what it starts, be in the namespace for the block's length."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(self._descriptor, _NEWNET))
            try:
                yield
            finally:
                _checked(_libc.setns(home, _NEWNET))
        finally:
            os.close(home)

    def run(self, *argv: str, text: str | None = None) -> str:
        """Run a program in it, with a text to read; returns what it printed."""
        with self.entered():
            done = subprocess.run(
                argv, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def nft(self, text: str) -> None:
        self.run("nft", "-f", "-", text=text)

    def ip(self, *lines: str) -> None:
        """Do what `ip` does for each line."""
        self.run("ip", "-batch", "-", text="".join(f"{line}\n" for line in lines))

    def write(self, path: str, value: str) -> None:
        """Write a file below /proc/sys/net, which shows what belongs to the namespace."""
        with self.entered():
            Path("/proc/sys/net", path).write_text(value)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of it, with a time-out."""
        with self.entered():
            made = socket.socket(family, kind, protocol)
        made.settimeout(5.0)
        return made

    def popen(self, argv: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        with self.entered():
            return subprocess.Popen(argv, **options)  # type: ignore[call-overload,no-any-return]


def join(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
    """A pair of cards, an end in each."""
    with other.entered():
        target = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        path = f"/proc/{os.getpid()}/fd/{target}"
        peer = f"name {other_name} netns {path}"
        one.ip(f"link add {name} type veth peer {peer}")
    finally:
        os.close(target)
