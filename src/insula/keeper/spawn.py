"""Starting a program in its jail, with its own descriptors and no other."""

import ctypes
import fcntl
import json
import os
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from insula.keeper import jail
from insula.keeper.read_only import enter_namespaces, keep_from_writing
from insula.keeper.seccomp import jail_filter
from insula.protocol.keeper import JailKind, JailSpec

FIRST_NUMBER = 3  # below are the standard streams
NO_FILES = 1024
_NO_PROCESSES = 512  # threads
_PR_SET_NO_NEW_PRIVS = 38
_LONGEST_INFO = 4096
_KVM = Path("/dev/kvm")


class SpawnError(Exception):
    """The program was not started; nothing of it is left."""


@dataclass(slots=True)
class Spawning:
    """A jail that is being made. All descriptors are ours; output and info do not block.

    outer: bwrap, which waits for the program. inner: the program, once its jail is entered.
    """

    outer: int
    outer_fd: int
    output: int
    info: int
    said: bytes = b""
    inner: int = 0
    inner_fd: int = -1

    def read_info(self) -> bool:
        """Take what bwrap tells; True once the inner process is known.

        Raises:
            SpawnError: bwrap ended, or told something else.
        """
        try:
            data = os.read(self.info, _LONGEST_INFO)
        except BlockingIOError:
            return False
        self.said += data
        try:
            inner = int(json.loads(self.said)["child-pid"])
        except (ValueError, KeyError, TypeError) as error:
            if data and len(self.said) < _LONGEST_INFO:
                return False
            raise SpawnError("its jail was not made") from error
        try:
            self.inner_fd = os.pidfd_open(inner)
            # It may have ended, and the number have become a stranger's before it was opened.
            if parent(inner) not in (self.outer, os.getpid()):
                raise ProcessLookupError(inner)
        except OSError as error:
            if self.inner_fd >= 0:
                os.close(self.inner_fd)
                self.inner_fd = -1
            raise SpawnError("it ended in its jail's making") from error
        self.inner = inner
        return True

    def entered(self) -> bool:
        """Whether the inner process is the program itself by now.

        Raises:
            SpawnError: it ended first.
        """
        try:
            running = Path("/proc", str(self.inner), "exe").stat()
        except PermissionError:
            return False  # While bwrap changes what it may do, nobody may look.
        except OSError as error:
            raise SpawnError("it ended in its jail's making") from error
        bwrap = Path(jail.BWRAP).stat()
        return (running.st_dev, running.st_ino) != (bwrap.st_dev, bwrap.st_ino)

    def kill(self) -> None:
        """End both layers, as far as they run."""
        for pidfd in (self.inner_fd, self.outer_fd):
            if pidfd >= 0:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def close_info(self) -> None:
        """No more to be read from bwrap."""
        if self.info >= 0:
            os.close(self.info)
            self.info = -1

    def close(self) -> None:
        """Let go of every descriptor but output, once nothing of it runs."""
        self.close_info()
        for pidfd in (self.outer_fd, self.inner_fd):
            if pidfd >= 0:
                os.close(pidfd)
        self.outer_fd = self.inner_fd = -1


def parent(pid: int) -> int:
    """Whose child a process is.

    Raises:
        OSError: it is gone.
    """
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


def spawn(spec: JailSpec, given: Sequence[int]) -> Spawning:
    """Begin to start a program. One descriptor of given for each of the spec's numbers.

    Raises:
        SpawnError: it is nothing that may be started.
    """
    _check(spec, given)
    opened: list[int] = []
    try:
        output, child_output = _pipe(opened)
        info, child_info = _pipe(opened)
        info_number = max((*spec.descriptors, FIRST_NUMBER - 1)) + 1
        placed = [*zip(given, spec.descriptors, strict=True), (child_info, info_number)]
        if jail.is_filtered(spec.kind):
            filtering = os.memfd_create("seccomp", os.MFD_CLOEXEC)
            opened.append(filtering)
            os.write(filtering, jail_filter())
            os.lseek(filtering, 0, os.SEEK_SET)
            placed.append((filtering, info_number + 1))
        argv = _argv(spec, info_number, info_number + 1)
        outer = os.fork()
        if outer == 0:
            _become(argv, spec, placed, child_output)
        outer_fd = os.pidfd_open(outer)
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    for descriptor in set(opened) - {output, info}:
        os.close(descriptor)
    os.set_blocking(output, False)
    os.set_blocking(info, False)
    return Spawning(outer=outer, outer_fd=outer_fd, output=output, info=info)


def _argv(spec: JailSpec, info: int, seccomp: int) -> list[str]:
    try:
        return jail.bwrap_argv(spec, info, seccomp)
    except OSError as error:
        raise SpawnError(f"its jail cannot be made: {error}") from error


def _check(spec: JailSpec, given: Sequence[int]) -> None:
    numbers = spec.descriptors
    if len(given) != len(numbers):
        raise SpawnError(f"{len(given)} descriptors for {len(numbers)} numbers")
    limit = NO_FILES - 2  # bwrap needs two
    if len(set(numbers)) != len(numbers) or not all(FIRST_NUMBER <= n < limit for n in numbers):
        raise SpawnError("numbers of descriptors are not right")
    if not spec.program:
        raise SpawnError("no program")
    if spec.uid is None and os.geteuid() == 0:
        raise SpawnError("a program in a jail cannot be root: it needs a uid")
    if spec.uid is not None and (os.geteuid() != 0 or not 0 < spec.uid < 2**32 - 1):
        raise SpawnError(f"cannot become user {spec.uid}")
    if spec.read_only and spec.kind is JailKind.MACHINE:
        raise SpawnError("it sees no files beyond its own program's")
    if spec.kvm and spec.kind is not JailKind.MACHINE:
        raise SpawnError("only a machine gets KVM")


def _pipe(opened: list[int]) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    opened += ends
    return ends


def _become(
    argv: list[str], spec: JailSpec, placed: list[tuple[int, int]], output: int
) -> NoReturn:
    """In the child: end everything that is the keeper's, then be bwrap."""
    try:
        os.setsid()
        _place(placed, output)
        if spec.uid is None:
            enter_namespaces()
            keep_from_writing(spec.descriptors)
            _limit(spec)
        else:
            _limit(spec)
            os.setgroups(_kvm_groups() if spec.kvm else [])
            os.setresgid(spec.uid, spec.uid, spec.uid)
            os.setresuid(spec.uid, spec.uid, spec.uid)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError):  # The C library keeps some for itself.
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir("/")
        _assert_placed(placed)
        os.execve(argv[0], argv, {})
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(127)


def _place(placed: list[tuple[int, int]], output: int) -> None:
    """Give each descriptor its number; close every other."""
    beyond = max(number for _, number in placed) + 1
    parked = [
        (fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, beyond), number)
        for descriptor, number in placed
    ]
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    last = FIRST_NUMBER - 1
    for descriptor, number in sorted(parked, key=lambda pair: pair[1]):
        os.closerange(last + 1, number)
        os.dup2(descriptor, number)
        last = number
    os.closerange(last + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _assert_placed(placed: list[tuple[int, int]]) -> None:
    """Nothing is open that the program does not get: facts cannot tell whose a socket is."""
    expected = {*range(FIRST_NUMBER), *(number for _, number in placed)}
    found = {int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _inherited(entry)}
    if found != expected:
        raise RuntimeError(f"open are {sorted(found)}, not {sorted(expected)}")


def _inherited(entry: Path) -> bool:
    try:
        return os.get_inheritable(int(entry.name))
    except OSError:  # That of the listing is closed by now.
        return False


def _limit(spec: JailSpec) -> None:
    """Set limits; that of processes counts those of the program's own user or namespace alone."""
    limits = {
        resource.RLIMIT_CORE: 1,  # Not 0: that would still feed a host's handler of core dumps.
        resource.RLIMIT_NOFILE: NO_FILES,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NPROC: _NO_PROCESSES,
    }
    if spec.address_space is not None:
        limits[resource.RLIMIT_AS] = spec.address_space
    for kind, limit in limits.items():
        try:
            resource.setrlimit(kind, (limit, limit))
        except ValueError:  # The keeper's user is allowed less.
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (hard, hard))
    if spec.nice:
        os.nice(spec.nice)


def _kvm_groups() -> list[int]:
    """The group that may use KVM, where the host has one."""
    found = _KVM.stat()
    return [found.st_gid] if found.st_mode & 0o060 == 0o060 and found.st_gid else []
