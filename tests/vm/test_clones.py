"""The three dangers of clones, each with its answer, and what happens where the answer is missing.

Clones begin with the same random state, share the memory image they were made from, and have their
state loaded by a process that may start no program.
"""

import asyncio
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from insula.daemon.engine.qemu import images
from insula.keeper.client import KeeperClient
from tests.bench.floor import BareMachine, Floor
from tests.vm.instance import Instance
from tests.vm.laboratory import Laboratory, without_generation_id

CLONES = int(os.environ.get("INSULA_TEST_CLONES", "6"))
# Randomness, an id of the kernel's, where a new program's stack and libraries lie.
_DRAWN = (
    "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; cat /proc/sys/kernel/random/uuid; "
    "sed -n '/stack/s/ .*//p;/libc.so/{s/ .*//p;q}' /proc/self/maps"
)
# Who writes and frees memory all over, so that whatever of it were shared would show.
_CHURN = (
    "python3 -c 'import os\n"
    "for _ in range(3): block = bytearray(os.urandom(1 << 20)) * 150; del block' && "
    "echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/urandom of=/dev/shm/x bs=1M count=60 "
    "2>/dev/null && rm /dev/shm/x"
)


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    """Removed, with all it runs, after this file."""
    home, run = (Path(tempfile.mkdtemp(prefix=f"insula-{what}-")) for what in ("lab", "run"))
    try:
        yield Laboratory(home, run)
    finally:
        asyncio.run(_end_keeper(run / "keeper.sock"))
        for place in (home, run):
            shutil.rmtree(place)


async def _end_keeper(path: Path) -> None:
    if path.exists():
        keeper = await KeeperClient.connect(path)
        await keeper.stop()
        await keeper.close()


@pytest.fixture(scope="module")
def sound(laboratory: Laboratory) -> Floor:
    """A snapshot whose agent is as it should be."""
    return laboratory.snapshot("sound")


@pytest.fixture(scope="module")
def lame(laboratory: Laboratory) -> Floor:
    """A snapshot whose agent neither freezes anything nor reseeds the generator."""

    def without_answers(package: Path) -> None:
        _replace(package / "guest/seed.py", "fcntl.ioctl(", "(lambda *_given: None)(")
        _replace(package / "guest/seed.py", "    set_clock(seed.clock)\n", "")
        _replace(package / "guest/freeze.py", 'os.write(switch, b"1")', 'os.write(switch, b"0")')
        _replace(package / "guest/freeze.py", "while self.free_to_run() or", "while False and")

    return laboratory.snapshot("lame", without_answers)


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has changed: what is taken out here has to be found anew"
    file.write_text(text.replace(old, new))


def _drawn(floor: Floor, scratch: Path, count: int) -> list[list[str]]:
    """What clones draw, one after the other."""
    found = []
    for _ in range(count):
        with without_generation_id(), floor.machine(scratch) as clone:
            code, output = clone.run(_DRAWN)
            assert code == 0
            found.append(output.decode().split())
    return found


@pytest.fixture
def scratch(laboratory: Laboratory) -> Path:
    """For a clone's sockets."""
    place = laboratory.run / "bare"
    place.mkdir(exist_ok=True)
    return place


def test_the_agents_seed_alone_keeps_clones_apart(sound: Floor, scratch: Path) -> None:
    drawn = _drawn(sound, scratch, CLONES)
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == CLONES, kind


def test_without_the_agents_seed_clones_draw_the_same(lame: Floor, scratch: Path) -> None:
    """The control of the test above: it can fail.

    What was stopped anywhere may also hang where it is, and then draws nothing.
    """
    drawn: list[list[str]] = []
    for _ in range(6):
        with suppress(TimeoutError):
            drawn += _drawn(lame, scratch, 1)
        if len(drawn) == 3:
            break
    assert any(len(set(kind)) < len(kind) for kind in zip(*drawn, strict=True))


def test_nothing_but_the_agent_could_run_before_the_seed(
    sound: Floor, lame: Floor, scratch: Path
) -> None:
    free = {}
    for name, floor in (("sound", sound), ("lame", lame)):
        with without_generation_id(), floor.machine(scratch) as clone:
            free[name] = clone.free_before_seed
    assert free["sound"] == 0
    assert free["lame"] > 0


def test_the_kernel_is_told_that_it_was_cloned(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "orange", "cloned")
    try:
        instance.say("qvm-start", "cloned")
        told = instance.say("qvm-run", "-p", "-u", "root", "cloned", "dmesg | grep -ci 'fork'")
        assert int(told) >= 1
    finally:
        instance.command("qvm-kill", "cloned")
        instance.say("qvm-remove", "--force", "cloned")


def test_clones_of_the_daemon_share_no_ids_and_no_randomness(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "red", "dvm-clones")
    instance.say("qvm-prefs", "dvm-clones", "template_for_dispvms", "True")
    drawn = []
    for _ in range(CLONES):
        words = ("qvm-run", "-p", "-q", "--dispvm=dvm-clones", f"cat /etc/machine-id; {_DRAWN}")
        drawn.append(instance.say(*words).split())
    instance.remove("dvm-clones")
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == CLONES, kind


def test_no_clone_changes_the_image_it_shares(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "purple", "churn")
    try:
        instance.say("qvm-start", "churn")
        image = asyncio.run(_shared_image(instance, "purple"))
        try:
            before = _digest(image)
            instance.say("qvm-run", "-p", "-u", "root", "churn", _CHURN)
            devices = instance.say("qvm-run", "-p", "churn", "cat /sys/bus/virtio/devices/*/device")
            assert "0x0005" not in devices.split(), "a balloon"
            _try_to_change(image)
            assert _digest(image) == before
        finally:
            os.close(image)
    finally:
        instance.command("qvm-kill", "churn")
        instance.say("qvm-remove", "--force", "churn")


async def _shared_image(instance: Instance, label: str) -> int:
    """The memory image that clones of a label map."""
    keeper = await KeeperClient.connect(instance.run / "keeper.sock")
    try:
        names = [name for name in await keeper.names("ram/") if name.endswith(f"/{label}")]
        return await keeper.take(names[-1])
    finally:
        await keeper.close()


def _digest(image: int) -> str:
    with mmap.mmap(image, 0, prot=mmap.PROT_READ) as mapped:
        return hashlib.sha256(mapped).hexdigest()


def _try_to_change(image: int) -> None:
    """All that a QEMU which was taken over could do to the descriptor that it has."""
    size = os.fstat(image).st_size
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: os.pwrite(image, b"x", 0),
        "truncate": lambda: os.ftruncate(image, size - 4096),
        "grow": lambda: os.ftruncate(image, size + 4096),
        "allocate": lambda: os.posix_fallocate(image, size, 4096),
        "map": lambda: mmap.mmap(image, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE),
        "unseal": lambda: fcntl.fcntl(image, fcntl.F_ADD_SEALS, 0),
    }
    for name, attempt in tries.items():
        with pytest.raises(OSError, match="not permitted") as refused:
            attempt()
        assert refused.value.errno == errno.EPERM, name
    assert fcntl.fcntl(image, fcntl.F_GET_SEALS) == images.SEALS


def test_an_image_without_its_seals_could_be_changed() -> None:
    """The control of the test above: it can fail."""
    image = images.blank("unsealed", 1 << 20)
    with pytest.raises(pytest.fail.Exception):
        _try_to_change(image)
    os.close(image)


def test_state_comes_by_a_descriptor_for_no_program_can_be_started(
    sound: Floor, scratch: Path
) -> None:
    """`exec:` migration, the way that was not taken, fails or ends the machine."""
    witness = scratch / "witness"
    with without_generation_id(), sound.machine(scratch) as clone:
        assert clone.run("true") == (0, b"")
        with pytest.raises((RuntimeError, EOFError, ConnectionError)):
            _migrate_by_program(clone, witness)
    assert not witness.exists()


def _migrate_by_program(clone: BareMachine, witness: Path) -> None:
    clone.qmp.ask("stop")
    clone.qmp.ask("migrate", uri=f"exec:cat > {witness}")
    deadline = time.monotonic() + 20
    while (status := clone.qmp.ask("query-migrate")["status"]) != "completed":
        if status == "failed" or time.monotonic() > deadline:
            raise RuntimeError(status)


def test_machines_wait_for_their_state_and_may_start_nothing(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "gray", "looked-at")
    try:
        instance.say("qvm-start", "looked-at")
        (pid,) = [one["pid"] for one in instance.status()["running"] if one["name"] == "looked-at"]
        words = Path("/proc", str(pid), "cmdline").read_bytes().decode().split("\0")
        assert words[words.index("-incoming") + 1] == "defer"
        assert "spawn=deny" in words[words.index("-sandbox") + 1].split(",")
        assert not any(word.startswith("exec:") for word in words)
    finally:
        instance.command("qvm-kill", "looked-at")
        instance.say("qvm-remove", "--force", "looked-at")
