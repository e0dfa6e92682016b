"""Starting a program in its jail, with its own descriptors and no other."""

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from insula.keeper.jail import bwrap_argv
from insula.protocol.keeper import JailSpec

INFO_TIMEOUT = 10.0  # seconds until bwrap has made its namespaces
_PARKING = 1000  # descriptors are moved above this number before they get their own
_PR_SET_NO_NEW_PRIVS = 38
_NO_FILES = 512


class SpawnError(Exception):
    """The program was not started; nothing of it is left."""


@dataclass(slots=True)
class Spawned:
    """Both layers of a jail. inner is the program, outer is what waits for it.

    output: what the program writes, non-blocking. inner_fd and outer_fd are pidfds.
    """

    inner: int
    outer: int
    inner_fd: int
    outer_fd: int
    output: int


def spawn(spec: JailSpec, given: Sequence[int]) -> Spawned:
    """Start a program; returns once its jail stands.

    Raises:
        SpawnError: it could not be started.
    """
    if len(given) != len(spec.descriptors):
        raise SpawnError(f"{len(given)} descriptors for {len(spec.descriptors)} numbers")
    output, child_output = os.pipe2(os.O_CLOEXEC)
    info, child_info = os.pipe2(os.O_CLOEXEC)
    info_number = max((*spec.descriptors, 2)) + 1
    argv = bwrap_argv(spec, info_number)
    placed = [*zip(given, spec.descriptors, strict=True), (child_info, info_number)]
    outer = os.fork()
    if outer == 0:
        _become(argv, spec, placed, child_output)
    os.close(child_output)
    os.close(child_info)
    outer_fd = os.pidfd_open(outer)
    try:
        inner = _read_info(info)
        inner_fd = os.pidfd_open(inner)
    except (OSError, ValueError, KeyError, TimeoutError) as error:
        signal.pidfd_send_signal(outer_fd, signal.SIGKILL)
        os.waitpid(outer, 0)
        said = _said(output)
        for descriptor in (outer_fd, output):
            os.close(descriptor)
        raise SpawnError(f"its jail was not made: {error}: {said}") from error
    finally:
        os.close(info)
    os.set_blocking(output, False)
    return Spawned(inner, outer, inner_fd, outer_fd, output)


def _become(argv: list[str], spec: JailSpec, placed: list[tuple[int, int]], output: int) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        parked = [
            (fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _PARKING), number)
            for descriptor, number in placed
        ]
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor, number in parked:
            os.dup2(descriptor, number)
        last = 2
        for _descriptor, number in sorted(parked, key=lambda pair: pair[1]):
            os.closerange(last + 1, number)
            last = number
        os.closerange(last + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_NO_FILES, _NO_FILES))
        if spec.address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (spec.address_space, spec.address_space))
        if spec.nice:
            os.nice(spec.nice)
        if spec.uid is not None:
            os.setgroups([])
            os.setresgid(spec.uid, spec.uid, spec.uid)
            os.setresuid(spec.uid, spec.uid, spec.uid)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execv(argv[0], argv)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
    os._exit(127)


def _read_info(info: int) -> int:
    """The pid of the inner process, as bwrap tells it."""
    collected = b""
    poller = select.poll()
    poller.register(info, select.POLLIN)
    while True:
        if not poller.poll(INFO_TIMEOUT * 1000):
            raise TimeoutError("bwrap said nothing")
        data = os.read(info, 4096)
        collected += data
        try:
            return int(json.loads(collected)["child-pid"])
        except ValueError:
            if not data:
                raise


def _said(output: int) -> str:
    os.set_blocking(output, False)
    try:
        return os.read(output, 4096).decode(errors="replace").strip()
    except BlockingIOError:
        return ""
