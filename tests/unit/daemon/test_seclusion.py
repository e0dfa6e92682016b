"""What a secluded process, and what it starts, can reach: sockets of this host's programs alone."""

import subprocess
import sys

import pytest

_TRY = """
import socket, subprocess, sys
from insula.daemon.seclusion import seclude
if "free" not in sys.argv:
    seclude()
def made(family):
    if "child" in sys.argv:
        code = f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)"
        return subprocess.run([sys.executable, "-c", code], stderr=-3).returncode == 0
    try:
        socket.socket(getattr(socket, family), socket.SOCK_DGRAM).close()
        return True
    except OSError:
        return False
sys.exit(0 if made(sys.argv[-1]) else 7)
"""


def made(family: str, *words: str) -> bool:
    """Whether a process can make a socket of a family."""
    done = subprocess.run(
        [sys.executable, "-c", _TRY, *words, family],
        timeout=30,
        check=False,
    )
    assert done.returncode in (0, 7)
    return done.returncode == 0


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_VSOCK", "AF_ALG"])
def test_no_internet_socket_is_made(family: str) -> None:
    assert not made(family)


def test_sockets_of_the_hosts_programs_are() -> None:
    assert made("AF_UNIX")
    assert made("AF_NETLINK")


def test_nor_by_what_it_starts() -> None:
    assert not made("AF_INET", "child")
    assert made("AF_UNIX", "child")


def test_the_test_could_fail() -> None:
    assert made("AF_INET", "free")
    assert made("AF_INET", "free", "child")
