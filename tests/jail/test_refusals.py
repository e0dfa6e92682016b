"""A machine is refused when one wall of its jail is missing, judged by what the kernel says."""

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from insula.daemon.engine.qemu.arguments import SANDBOX
from insula.keeper import jail, spawn
from insula.keeper.client import JailError, Requirements, assert_jailed, described
from insula.keeper.facts import read_facts
from insula.keeper.spawn import SpawnError
from insula.protocol.keeper import JailKind, JailSpec
from tests.jail.probing import qemu, without_option
from tests.keeping import TIMEOUT, UID

ROOT = os.geteuid() == 0
QMP, MORE = 10, 11
Change = Callable[[list[str]], list[str]]


@dataclass(slots=True)
class Machine:
    """A QEMU with its monitor, started as the keeper does it, but for what a test changes."""

    folder: Path
    closing: ExitStack
    given: list[int] = field(default_factory=list)

    def spec(self, *, sandbox: bool = True, more: Sequence[int] = ()) -> JailSpec:
        listener = self.closing.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.folder / "qmp"))
        listener.listen(1)
        self.given = [listener.fileno(), *more]
        words = ["-chardev", f"socket,id=q,fd={QMP},server=on,wait=off"]
        words += ["-mon", "chardev=q,mode=control"]
        if sandbox:
            words += ["-sandbox", SANDBOX]
        numbers = tuple(range(QMP, QMP + len(self.given)))
        return JailSpec(kind=JailKind.MACHINE, program=qemu(*words), descriptors=numbers, uid=UID)

    def judge(self, spec: JailSpec) -> None:
        """Start it and hold it to what is required of every machine."""
        with started(spec, self.given) as pid:
            self._wait_ready()
            known = described(self.given[:1])
            assert_jailed(read_facts(pid), Requirements(uid=UID, seccomp=True, given=known))

    def _wait_ready(self) -> None:
        """As the engine does: when QEMU has answered a command, it has opened what it opens."""
        monitor = self.closing.enter_context(socket.socket(socket.AF_UNIX))
        monitor.settimeout(TIMEOUT)
        monitor.connect(str(self.folder / "qmp"))
        lines = monitor.makefile("rb")
        self.closing.callback(lines.close)
        assert b"QMP" in lines.readline()
        monitor.sendall(json.dumps({"execute": "qmp_capabilities"}).encode())
        assert b"return" in lines.readline()


@contextmanager
def started(spec: JailSpec, given: Sequence[int]) -> Iterator[int]:
    """What the keeper starts; the pid of the inner process."""
    layers = spawn.spawn(spec, given)
    deadline = time.monotonic() + TIMEOUT
    try:
        for step in (layers.read_info, layers.entered):
            while not step():
                assert time.monotonic() < deadline, "its jail was not made"
                time.sleep(0.001)
        yield layers.inner
    finally:
        # The inner one alone, if there is one: bwrap then waits for it and ends.
        last = layers.outer_fd if layers.inner_fd < 0 else layers.inner_fd
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(last, signal.SIGKILL)
        os.waitpid(layers.outer, 0)
        os.close(layers.output)
        layers.close()


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with ExitStack() as closing:
        yield Machine(tmp_path_factory.mktemp("m"), closing)


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Have jails made of other words."""
    original = jail.bwrap_argv

    def change(how: Change) -> None:
        monkeypatch.setattr(jail, "bwrap_argv", lambda *given: how(original(*given)))

    return change


def without(option: str, values: int = 0) -> Change:
    return lambda argv: without_option(argv, option, values)


def adding(*words: str) -> Change:
    return lambda argv: [*argv[: argv.index("--chdir")], *words, *argv[argv.index("--chdir") :]]


def root_writable(argv: list[str]) -> list[str]:
    at = argv.index("/", argv.index("--remount-ro"))
    return [*argv[: at - 1], *argv[at + 1 :]]


def in_our_pid_namespace(argv: list[str]) -> list[str]:
    return without_option(without_option(argv, "--unshare-pid", 0), "--as-pid-1", 0)


def in_our_uts_namespace(argv: list[str]) -> list[str]:
    return without_option(without_option(argv, "--unshare-uts", 0), "--hostname", 1)


def test_a_whole_jail_is_accepted(machine: Machine) -> None:
    machine.judge(machine.spec())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("--unshare-net"), "it shares namespaces: net"),
        (without("--unshare-ipc"), "it shares namespaces: ipc"),
        (in_our_uts_namespace, "it shares namespaces: uts"),
        (in_our_pid_namespace, "it shares namespaces: pid"),
        (without("--seccomp", 1), "its own system call filter is not in force"),
        (adding("--cap-add", "CAP_NET_ADMIN"), "it has capabilities 0x1000"),
        (root_writable, r"it can write to /(;|$)"),
        (without("--remount-ro", 1), "it can write to /proc"),
        (adding("--ro-bind", "/etc", "/usr/share"), "it has mounted /usr/share"),
        (adding("--bind", "/tmp", "/usr/share"), "it can write to /usr/share"),
        (adding("--dev-bind", "/dev", "/dev"), "it has mounted /dev"),
        (adding("--bind", "/proc", "/proc"), "it can write to /proc"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_missing_wall_is_refused(
    machine: Machine, changed: Callable[[Change], None], change: Change, said: str
) -> None:
    changed(change)
    with pytest.raises(JailError, match=said):
        machine.judge(machine.spec())


def test_a_folder_of_the_hosts_is_refused(
    machine: Machine, changed: Callable[[Change], None]
) -> None:
    def show(argv: list[str]) -> list[str]:
        at = argv.index("--ro-bind")
        return [*argv[:at], "--ro-bind", "/etc", "/etc", *argv[at:]]

    changed(show)
    with pytest.raises(JailError, match="it sees etc; it has mounted /etc"):
        machine.judge(machine.spec())


def test_a_qemu_without_its_own_filter_is_refused(machine: Machine) -> None:
    with pytest.raises(JailError, match="its own system call filter is not in force"):
        machine.judge(machine.spec(sandbox=False))


def test_no_filter_at_all_is_refused(machine: Machine, changed: Callable[[Change], None]) -> None:
    changed(without("--seccomp", 1))
    with pytest.raises(JailError, match="no system call filter is in force"):
        machine.judge(machine.spec(sandbox=False))


@pytest.mark.parametrize(
    "opened",
    [
        lambda: os.open("/etc/passwd", os.O_RDONLY),
        lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        lambda: os.open("/proc/self/ns/net", os.O_RDONLY),
        lambda: os.memfd_create("another's memory"),
        lambda: os.pidfd_open(os.getpid()),
        lambda: os.open("/dev/full", os.O_RDWR),
    ],
    ids=["file", "folder", "namespace", "memory", "process", "device"],
)
def test_a_descriptor_beyond_the_list_is_refused(
    machine: Machine, opened: Callable[[], int]
) -> None:
    more = opened()
    machine.closing.callback(os.close, more)
    with pytest.raises(JailError, match=f"it holds descriptor {MORE}"):
        machine.judge(machine.spec(more=[more]))


def test_a_descriptor_that_slips_through_stops_the_start(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection, too, which facts cannot tell from one that QEMU accepted."""
    original = spawn._place
    ours, theirs = socket.socketpair()
    machine.closing.enter_context(ours)
    machine.closing.enter_context(theirs)

    def leak(placed: list[tuple[int, int]], output: int) -> None:
        leaking = fcntl.fcntl(theirs, fcntl.F_DUPFD, 500)
        original(placed, output)
        os.dup2(placed[0][1], leaking)

    monkeypatch.setattr(spawn, "_place", leak)
    with pytest.raises(SpawnError, match="its jail was not made"):
        machine.judge(machine.spec())


def of_the_machines_user(folder: Path) -> int:
    """A file that its reader owns."""
    path = folder / "root.qcow2"
    path.write_bytes(b"template")
    path.chmod(0o600)
    if UID is not None:
        os.chown(path, UID, UID)
    return os.open(path, os.O_RDONLY)


def test_a_file_it_could_open_to_write_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "keep_from_writing", lambda _: None)
    more = of_the_machines_user(machine.folder)
    machine.closing.callback(os.close, more)
    with pytest.raises(JailError, match=f"it may only read descriptor {MORE} but could write"):
        machine.judge(machine.spec(more=[more]))


if ROOT:  # Nobody else can become another user.

    def test_another_user_is_refused(machine: Machine) -> None:
        spec = machine.spec()
        with pytest.raises(JailError, match="it runs as uid"):
            machine.judge(replace(spec, uid=(spec.uid or 0) + 16))

    def test_a_group_of_the_hosts_is_refused(
        machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = os.setgroups
        monkeypatch.setattr(os, "setgroups", lambda _: original([27]))
        with pytest.raises(JailError, match="it has the groups"):
            machine.judge(machine.spec())


def test_a_process_in_no_jail_is_refused_for_all_of_it() -> None:
    with pytest.raises(JailError, match=r"namespaces: ipc, mnt, net, pid, user, uts; .* it sees"):
        assert_jailed(
            read_facts(os.getpid()), Requirements(uid=None, seccomp=True, given=frozenset())
        )
