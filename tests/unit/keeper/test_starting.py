"""A keeper's coming and going: one a socket, in the background, with nothing of its starter's."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from insula.keeper.client import KeeperClient, KeeperError, start_keeper
from tests.keeping import SLEEPER, TIMEOUT, Keeping, gone


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Keepers to end after the test."""
    started: list[int] = []
    yield started
    for pid in started:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def run(argv: list[str], **options: Any) -> int:
    return subprocess.run(argv, timeout=TIMEOUT, check=False, **options).returncode


async def pid_at(path: Path) -> int:
    client = await KeeperClient.connect(path)
    pid: int = (await client.hello())["pid"]
    await client.close()
    return pid


async def stop(path: Path) -> None:
    client = await KeeperClient.connect(path)
    await client.stop()
    await client.close()


async def test_two_starts_make_one_keeper(tmp_path: Path, pids: list[int]) -> None:
    path, log = tmp_path / "k", tmp_path / "log"
    await asyncio.gather(*(asyncio.to_thread(start_keeper, path, log) for _ in range(4)))
    pids.append(await pid_at(path))
    start_keeper(path, log)
    assert await pid_at(path) == pids[0]


async def test_a_stopped_keeper_makes_room_for_the_next_at_once(
    tmp_path: Path, pids: list[int]
) -> None:
    path, log = tmp_path / "k", tmp_path / "log"
    for _ in range(3):
        start_keeper(path, log)
        pids.append(await pid_at(path))
        await stop(path)
        assert not path.exists()
        with pytest.raises(KeeperError, match="does not answer"):
            await KeeperClient.connect(path)
    assert len(set(pids)) == 3


async def test_what_a_killed_keeper_left_is_taken_over(tmp_path: Path, pids: list[int]) -> None:
    path, log = tmp_path / "k", tmp_path / "log"
    start_keeper(path, log)
    first = await pid_at(path)
    os.kill(first, signal.SIGKILL)
    start_keeper(path, log)
    pids.append(await pid_at(path))
    assert pids != [first]


async def test_a_keeper_with_processes_does_not_stop(keeper: Keeping) -> None:
    os.close((await keeper.client.spawn("q", SLEEPER, [])).pidfd)
    with pytest.raises(KeeperError, match="1 processes run"):
        await keeper.client.stop()
    await keeper.client.kill("q")
    assert await keeper.exit_of("q")


async def test_a_long_path_is_reached_all_the_same(tmp_path: Path, pids: list[int]) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    start_keeper(folder / "keeper.sock", folder / "log")
    pids.append(await pid_at(folder / "keeper.sock"))


def test_a_name_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeeperError, match="too long for the name of a socket"):
        start_keeper(tmp_path / ("x" * 120), tmp_path / "log")
    with pytest.raises(KeeperError, match="No such file"):
        start_keeper(tmp_path / "none" / "k", tmp_path / "log")


async def test_the_socket_is_its_owners_alone(keeper: Keeping) -> None:
    assert stat.S_IMODE(keeper.path.stat().st_mode) == 0o600


async def test_a_keeper_is_on_its_own(tmp_path: Path, pids: list[int]) -> None:
    """In no session, folder or process group of its starter's, and with none of its files."""
    ours, theirs = os.pipe()
    argv = [sys.executable, "-m", "insula.keeper", "--socket", "k", "--background", "log"]
    assert await asyncio.to_thread(run, argv, cwd=tmp_path, pass_fds=[theirs]) == 0
    os.close(theirs)
    pids.append(await pid_at(tmp_path / "k"))
    assert os.read(ours, 1) == b""
    os.close(ours)
    assert os.getsid(pids[0]) not in (os.getsid(0), pids[0])
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(pids[0], number)
    assert await pid_at(tmp_path / "k") == pids[0]


async def test_a_keeper_outlives_its_starter(tmp_path: Path, pids: list[int]) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from insula.keeper.client import start_keeper;"
        "start_keeper(Path(sys.argv[1]), Path(sys.argv[2]));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "k"), str(tmp_path / "log")]
    assert await asyncio.to_thread(run, argv) == -signal.SIGKILL
    pids.append(await pid_at(tmp_path / "k"))


@pytest.fixture
def in_the_way(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock of tmp_path's keeper, but does not listen."""
    code = (
        "import fcntl, os, sys; lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT);"
        "fcntl.flock(lock, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "k.lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_a_starter_waits_for_a_keeper_that_is_ending(
    tmp_path: Path, pids: list[int], in_the_way: "subprocess.Popen[bytes]"
) -> None:
    path = tmp_path / "k"
    starting = asyncio.create_task(asyncio.to_thread(start_keeper, path, tmp_path / "log"))
    await asyncio.sleep(0)
    assert not path.exists()
    in_the_way.kill()
    await starting
    pids.append(await pid_at(path))
