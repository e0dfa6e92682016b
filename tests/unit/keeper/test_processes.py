"""Processes and their two layers: nothing is left of one that failed or was killed."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from insula.keeper import processes
from insula.keeper.client import KeeperClient, KeeperError, Spawned
from insula.keeper.loop import Loop
from insula.keeper.spawn import SpawnError, parent
from insula.protocol.keeper import JailKind, JailSpec
from tests.keeping import SLEEPER, TIMEOUT, UID, Keeping, gone, shell, until

GO = 9  # descriptor of the pipe that `ran` holds its shells back by
ANOTHER = {"uid": 0} if os.geteuid() == 0 else {"uid": 12345}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe; the writing end is closed after the test if it is still open."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


async def started(keeper: Keeping, name: str, jail: JailSpec = SLEEPER) -> Spawned:
    spawned = await keeper.client.spawn(name, jail, [])
    os.close(spawned.pidfd)
    return spawned


async def ran(keeper: Keeping, name: str, jail: JailSpec, given: Sequence[int] = ()) -> int:
    """Have a shell do its work once it was seen to run; its exit status."""
    ours, theirs = os.pipe()
    script = jail.program[2]
    jail = replace(
        jail,
        program=(*jail.program[:2], f"read go <&{GO}; exec {GO}<&-; {script}"),
        descriptors=(GO, *jail.descriptors),
    )
    try:
        os.close((await keeper.client.spawn(name, jail, [ours, *given])).pidfd)
    finally:
        os.close(ours)
        os.close(theirs)
    return await keeper.exit_of(name)


async def test_a_process_gets_its_descriptors_and_its_words(
    keeper: Keeping, pipe: tuple[int, int]
) -> None:
    jail = replace(shell("echo $GREETING >&8"), descriptors=(8,), environment={"GREETING": "hi"})
    assert await ran(keeper, "q", jail, [pipe[1]]) == 0
    os.close(pipe[1])
    assert os.read(pipe[0], 100) == b"hi\n"
    assert os.read(pipe[0], 100) == b""


async def test_descriptors_may_change_places(keeper: Keeping) -> None:
    """Numbers that may be another descriptor's in the keeper."""
    ends = [os.pipe() for _ in range(6)]
    numbers = (5, 4, 3, 8, 7, 6)
    script = ";".join(f"echo {number} >&{number}" for number in numbers)
    jail = replace(shell(script), descriptors=numbers)
    status = await ran(keeper, "q", jail, [theirs for _, theirs in ends])
    assert status == 0, await keeper.client.log("q")
    for (ours, theirs), number in zip(ends, numbers, strict=True):
        os.close(theirs)
        assert os.read(ours, 100) == b"%d\n" % number
        os.close(ours)


async def test_two_processes_of_one_name_do_not_run(keeper: Keeping) -> None:
    first = await started(keeper, "q")
    with pytest.raises(KeeperError, match="runs already"):
        await keeper.client.spawn("q", SLEEPER, [])
    assert (await keeper.client.list())["q"].pid == first.pid


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3)])
async def test_exits_are_reported_and_remembered(keeper: Keeping, script: str, status: int) -> None:
    assert await ran(keeper, "q", shell(script)) == status
    assert (await keeper.client.list())["q"].exit == status
    assert await keeper.client.log("q") == ""
    for refused in (keeper.client.verify("q"), keeper.client.log("other")):
        with pytest.raises(KeyError):
            await refused
    await keeper.client.forget("q")
    assert await keeper.client.list() == {}


async def test_every_watcher_is_told(keeper: Keeping) -> None:
    other = await KeeperClient.connect(keeper.path)
    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    other.on_exit = lambda name, status: told.put_nowait((name, status))
    await other.watch()
    assert await ran(keeper, "q", shell("exit 5")) == 5
    async with asyncio.timeout(TIMEOUT):
        assert await told.get() == ("q", 5)
    await other.close()


async def test_a_process_that_runs_is_not_forgotten(keeper: Keeping) -> None:
    await started(keeper, "q")
    with pytest.raises(KeeperError, match="still runs"):
        await keeper.client.forget("q")
    with pytest.raises(KeyError):
        await keeper.client.forget("other")


async def test_a_killed_process_leaves_neither_layer(keeper: Keeping) -> None:
    spawned = await keeper.client.spawn("q", SLEEPER, [])
    outer = parent(spawned.pid)
    assert keeper.children() == {outer}
    await keeper.client.kill("q")
    assert await keeper.exit_of("q") != 0
    assert keeper.children() == set()
    assert gone(outer)
    assert gone(spawned.pid)
    os.close(spawned.pidfd)
    await keeper.client.kill("q")  # Again does no harm.


@pytest.mark.parametrize("layer", ["outer", "inner"])
async def test_a_layer_that_dies_takes_the_other_along(keeper: Keeping, layer: str) -> None:
    spawned = await started(keeper, "q")
    outer = parent(spawned.pid)
    os.kill(outer if layer == "outer" else spawned.pid, signal.SIGKILL)
    expected = -signal.SIGKILL if layer == "outer" else 128 + signal.SIGKILL
    assert await keeper.exit_of("q") == expected
    assert gone(outer)
    assert gone(spawned.pid)


async def test_an_outer_layer_that_hangs_does_not_stay(keeper: Keeping) -> None:
    spawned = await started(keeper, "q")
    outer = parent(spawned.pid)
    os.kill(outer, signal.SIGSTOP)
    os.kill(spawned.pid, signal.SIGKILL)
    assert await keeper.exit_of("q") == -signal.SIGKILL
    assert gone(outer)


async def test_bwrap_killed_at_any_moment_of_a_start_leaves_nothing(keeper: Keeping) -> None:
    """The program may be known by then or not, and may run or not."""
    for delay in range(24):
        starting = asyncio.create_task(keeper.client.spawn("q", SLEEPER, []))
        await until(lambda: bool(keeper.children()), "a child of the keeper")
        for _ in range(delay):
            await asyncio.sleep(0.0007)
        for child in keeper.children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            spawned = await starting
        except KeeperError:
            assert keeper.children() == set()
            assert await keeper.client.list() == {}
        else:
            os.close(spawned.pidfd)
            await keeper.exit_of("q")
            assert gone(spawned.pid)
            await keeper.client.forget("q")


@pytest.mark.parametrize(
    "change",
    [
        {"program": ("/nowhere",)},  # the inner layer fails
        {"program": ("/usr/lib64",)},
        {"read_only": (("/nowhere", "/nowhere"),)},  # the outer one does
        {"address_space": 4096},
        {"program": ()},
        ANOTHER,
        {"kind": JailKind.MACHINE},
        {"kvm": True},
        {"descriptors": (2,)},
        {"descriptors": (1022,)},
        {"descriptors": (4, 4)},
    ],
)
async def test_a_start_that_fails_leaves_nothing(
    keeper: Keeping, pipe: tuple[int, int], change: dict[str, Any]
) -> None:
    jail = replace(SLEEPER, **{"descriptors": (7,), **change})
    with pytest.raises(KeeperError):
        await keeper.client.spawn("q", jail, [pipe[1]] * len(jail.descriptors))
    assert keeper.children() == set()
    assert await keeper.client.list() == {}
    os.close(pipe[1])
    assert os.read(pipe[0], 1) == b""
    assert keeper.exits.empty()


async def test_the_reason_of_a_failed_start_is_told(keeper: Keeping) -> None:
    with pytest.raises(KeeperError, match="/nowhere: No such file"):
        await keeper.client.spawn("q", replace(SLEEPER, program=("/nowhere",)), [])
    with pytest.raises(KeeperError, match="1 descriptors for 0 numbers"):
        await keeper.client.spawn("q", SLEEPER, [0])


async def test_a_start_that_is_not_waited_for_is_undone(
    keeper: Keeping, pipe: tuple[int, int]
) -> None:
    jail = replace(SLEEPER, descriptors=(7,))
    for turns in range(12):
        starting = asyncio.create_task(keeper.client.spawn("q", jail, [pipe[1]]))
        for _ in range(turns):
            await asyncio.sleep(0.002)
        starting.cancel()
        try:
            spawned = await starting
        except asyncio.CancelledError:
            pass
        else:
            os.close(spawned.pidfd)
            await keeper.client.kill("q")
        await _forgotten(keeper, "q")
        assert not keeper.children()
    os.close(pipe[1])
    assert os.read(pipe[0], 1) == b""


async def _forgotten(keeper: Keeping, name: str) -> None:
    """Wait until the keeper knows of no process of that name."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                await keeper.client.forget(name)
            except KeyError:
                return
            except KeeperError:  # It has not ended yet.
                await asyncio.sleep(0.005)


async def test_what_a_process_writes_is_kept_to_its_end(keeper: Keeping) -> None:
    await ran(keeper, "q", shell("echo out; echo err >&2"))
    assert await keeper.client.log("q") == "out\nerr\n"


async def test_a_process_that_floods_its_output_costs_others_nothing(keeper: Keeping) -> None:
    await started(keeper, "q", shell("while echo 123456789012345678901234567890; do :; done"))
    for _ in range(50):
        await keeper.client.hello()
    assert len(await keeper.client.log("q")) <= 65_536


async def test_many_processes_start_at_once(keeper: Keeping) -> None:
    names = [f"q{number}" for number in range(12)]
    await asyncio.gather(*(started(keeper, name) for name in names))
    assert sorted(await keeper.client.list()) == sorted(names)
    assert len(keeper.children()) == 12


async def test_a_process_has_its_limits(keeper: Keeping) -> None:
    spawned = await started(keeper, "q", replace(SLEEPER, nice=7, address_space=2**34))
    limits = Path("/proc", str(spawned.pid), "limits").read_text()
    assert limits.split("Max core file size")[1].split()[:2] == ["1", "1"]
    assert limits.split("Max address space")[1].split()[:2] == [str(2**34)] * 2
    assert limits.split("Max open files")[1].split()[:2] == ["1024"] * 2
    assert os.getpriority(os.PRIO_PROCESS, spawned.pid) == 7
    if UID is not None:
        assert limits.split("Max processes")[1].split()[:2] == ["512"] * 2


def test_what_has_ended_makes_room_and_what_runs_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_PROCESSES", 2)
    loop, answered, ended = Loop(), set[str](), set[str]()
    held = processes.Processes(loop, lambda name, _status: ended.add(name))

    def start(name: str) -> None:
        held.start(name, SLEEPER, [], lambda _started, _pidfd, _why: answered.add(name))
        while name not in answered:
            loop.step()

    def end(name: str) -> None:
        held.kill(name)
        while name not in ended:
            loop.step()

    for name in ("first", "second", "third"):
        start(name)
        end(name)
    assert set(held.listing()) == {"second", "third"}
    start("fourth")
    start("fifth")
    with pytest.raises(SpawnError, match="2 processes already"):
        start("sixth")
    end("fourth")
    end("fifth")
    assert held.running() == 0
