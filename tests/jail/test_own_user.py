"""Where keeper and machines are one user: what keeps them apart all the same."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from insula.keeper.client import KeeperError
from tests.keeping import TIMEOUT, Keeping, as_user, keeping, shell

PERSON = 764_200_000 if os.geteuid() == 0 else None  # whose keeper it is, if not ours


@pytest.fixture
async def keeper() -> AsyncIterator[Keeping]:
    async with keeping(PERSON) as made:
        yield made


@pytest.fixture
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A file of the keeper's user, and a descriptor of it that reads from its second word."""
    folder = tmp_path_factory.mktemp("images")
    path = folder / "root.qcow2"
    path.write_bytes(b"first\nsecond\n")
    for way in (folder, *folder.parents[:2]):
        way.chmod(0o755)
    if PERSON is not None:
        for one in (folder, path):
            os.chown(one, PERSON, PERSON)
    descriptor = os.open(path, os.O_RDONLY)
    os.lseek(descriptor, len(b"first\n"), os.SEEK_SET)
    yield path, descriptor
    os.close(descriptor)


async def test_a_file_is_read_on_from_where_it_was(
    keeper: Keeping, image: tuple[Path, int]
) -> None:
    script = "read word <&7; echo $word; echo third >>/proc/self/fd/7; exec /usr/bin/sleep 600"
    jail = replace(shell(script), uid=None, descriptors=(7,))
    os.close((await keeper.client.spawn("q", jail, [image[1]])).pidfd)
    log = ""
    async with asyncio.timeout(TIMEOUT):
        while "fd/7" not in log:
            log = await keeper.client.log("q")
    assert log.startswith("second\n")
    assert "Read-only file system" in log
    assert image[0].read_bytes() == b"first\nsecond\n"


async def test_a_file_without_a_name_is_not_given(keeper: Keeping, image: tuple[Path, int]) -> None:
    image[0].unlink()
    with pytest.raises(KeeperError, match="cannot be mounted read-only"):
        await spawn(keeper, image[1])
    assert keeper.children() == set()


async def test_another_file_in_its_place_is_not_given(
    keeper: Keeping, image: tuple[Path, int]
) -> None:
    other = image[0].with_name("other")
    other.write_bytes(b"another")
    other.chmod(0o644)
    other.rename(image[0])
    with pytest.raises(KeeperError, match="cannot be mounted read-only"):
        await spawn(keeper, image[1])


async def spawn(keeper: Keeping, descriptor: int) -> None:
    jail = replace(shell("exec /usr/bin/sleep 600"), uid=None, descriptors=(7,))
    os.close((await keeper.client.spawn("q", jail, [descriptor])).pidfd)


CROWD = """
import threading
gate = threading.Event()
for _ in range(600):
    threading.Thread(target=gate.wait, daemon=True).start()
print("there", flush=True)
input()
"""


@pytest.fixture
def crowd() -> Iterator[None]:
    """A program of the keeper's user with more threads than a jail may have."""
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", CROWD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **as_user(PERSON),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        yield
        process.kill()


@pytest.mark.usefixtures("crowd")
async def test_what_else_its_user_runs_takes_nothing_of_its_limit_of_threads(
    keeper: Keeping, image: tuple[Path, int]
) -> None:
    await spawn(keeper, image[1])


async def test_its_user_may_be_allowed_less_than_a_jail_is(
    keeper: Keeping, image: tuple[Path, int]
) -> None:
    lowered = ["/usr/bin/prlimit", "--core=0:0", "--pid", str(keeper.pid)]
    assert await asyncio.to_thread(complaint, lowered) == ""
    await spawn(keeper, image[1])
    pid = (await keeper.client.list())["q"].pid
    limits = Path("/proc", str(pid), "limits").read_text().splitlines()
    (core,) = (line.split()[-3:] for line in limits if line.startswith("Max core file size"))
    assert core == ["0", "0", "bytes"]


async def test_a_keeper_hides_itself_from_others_of_its_user(keeper: Keeping) -> None:
    """Descriptors it holds are in no /proc that a program of the same user can open."""
    for command, name in (("cat", "environ"), ("cat", "maps"), ("ls", "fd")):
        argv = [f"/usr/bin/{command}", f"/proc/{keeper.pid}/{name}"]
        assert "Permission denied" in await asyncio.to_thread(complaint, argv)


def complaint(argv: list[str]) -> str:
    """What a program of the keeper's user says on stderr."""
    done = subprocess.run(
        argv, capture_output=True, timeout=TIMEOUT, check=False, **as_user(PERSON)
    )
    return str(done.stderr, "utf-8")
