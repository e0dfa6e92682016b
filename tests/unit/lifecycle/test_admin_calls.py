"""The Admin API as qubes reach it, where the policy lets them (admin-api.md 1.3, 1.5)."""

import asyncio
import fcntl
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from insula.daemon.model.qube import Qube
from insula.protocol import admin
from tests.serving import TEMPLATE, TIMEOUT, Instance, serving, user

SIZE = 256 << 10  # bytes, more than a request may have
NOT_FOUND, TAKEN = 127, 200
FIRST = b"1\0\0connection-established\0\0"


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    """One whose work may call everything."""
    async with serving(tmp_path / "home") as one:
        await one.template()
        for name in ("work", "vault"):
            await one.qube(name, default_user=user())
        rule = "* * work {} allow target=dom0\n"
        policy = rule.format("@anyvm") + rule.format("@adminvm")
        (one.home / "policy.d" / "30-user.policy").write_text(policy)
        await one.power.start(one.system.named("work"))
        yield one


@asynccontextmanager
async def calling(
    instance: Instance, target: str, called: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of work that calls a service, for the length of the block."""
    work = instance.system.named("work")
    agent = instance.run / "qubes" / str(work.uuid) / "ports" / "agent"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "insula.guest.client_vm", target, called),
        env={**os.environ, "INSULA_AGENT_SOCKET": str(agent)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def call(
    instance: Instance, target: str, called: str, payload: bytes = b""
) -> tuple[int | None, bytes]:
    """Exit code and output of a whole call."""
    async with calling(instance, target, called) as process:
        output, _ = await process.communicate(payload)
    return process.returncode, output


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("target", ["dom0", "vault"])
async def test_a_qube_hears_of_events_for_as_long_as_it_listens(
    instance: Instance, target: str
) -> None:
    listeners = instance.world.events._listeners
    before = len(listeners)
    async with calling(instance, target, "admin.Events") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write_eof()
        assert await process.stdout.readexactly(len(FIRST)) == FIRST
        await instance.ok("admin.vm.tag.Set", "vault", "mine")
        expected = admin.event("vault", "domain-tag-add:mine", {"tag": "mine"})
        assert await process.stdout.readexactly(len(expected)) == expected
        assert len(listeners) == before + 1
    await until(lambda: len(listeners) == before)


async def test_a_qube_hears_of_what_others_use(instance: Instance) -> None:
    code, output = await call(instance, "vault", "admin.vm.Stats")
    assert code == 0
    assert output.startswith(FIRST + b"2\0QubesVMNotRunningError\0\0")


def _content(instance: Instance, qube: Qube) -> bytes:
    (layer,) = qube.volumes["private"].layers
    return (instance.home / "volumes" / str(qube.uuid) / "private" / layer).read_bytes()


async def test_a_qube_fills_a_volume(instance: Instance) -> None:
    data, vault = os.urandom(SIZE), instance.system.named("vault")
    called = "admin.vm.volume.ImportWithSize+private"
    assert await call(instance, "vault", called, b"%d\n" % SIZE + data) == (0, b"0\0")
    assert _content(instance, vault) == data
    again = os.urandom(SIZE)
    assert await call(instance, "vault", "admin.vm.volume.Import+private", again) == (0, b"0\0")
    assert _content(instance, vault) == again
    code, output = await call(instance, "work", "admin.vm.volume.Import+private", again)
    assert (code, output.split(b"\0")[1]) == (1, b"QubesVMNotHaltedError")


async def test_one_at_a_time_is_at_a_qubes_console(instance: Instance) -> None:
    code, output = await call(instance, "vault", "admin.vm.Console")
    assert (code, output.split(b"\0")[1]) == (1, b"QubesVMNotRunningError")
    await instance.power.start(instance.system.named("vault"))
    # One in memory repeats what it is told.
    assert await call(instance, "vault", "admin.vm.Console", b"hello\r") == (0, b"hello\r")
    with (instance.run / "console-vault.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert await call(instance, "vault", "admin.vm.Console", b"x") == (TAKEN, b"")


async def test_the_end_of_a_qube_is_that_of_its_console(instance: Instance) -> None:
    vault = instance.system.named("vault")
    await instance.power.start(vault)
    async with calling(instance, "vault", "admin.vm.Console") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"there")
        assert await process.stdout.readexactly(5) == b"there"
        await instance.power.kill(vault)
        assert await process.stdout.read() == b""
        assert await process.wait() == 0


async def test_what_qubes_tell_of_themselves_has_no_answer_but_its_end(instance: Instance) -> None:
    work, tree = instance.system.named("work"), instance.system.named(TEMPLATE)
    for payload, code in ((b"some\n", 1), (b"3\n", 0)):
        assert await call(instance, "dom0", "qubes.NotifyUpdates", payload) == (code, b"")
        assert tree.features.get("updates-available") == (None if code else "1")
    written = instance.world.untrusted_written.setdefault(work.uuid, {})
    for value, code in (("no/thing", 1), ("1", 0)):
        written["/features-request/supported-rpc.x"] = value
        assert await call(instance, "dom0", "qubes.FeaturesRequest") == (code, b"")
        assert work.features.get("supported-rpc.x") == (None if code else "1")


@pytest.mark.parametrize(
    ("method", "code"),
    [
        *((f"admin.vm.{name}", NOT_FOUND) for name in ("Suspend", "Resume")),
        *((f"admin.vm.Create{how}.RemoteVM", NOT_FOUND) for how in ("", "InPool")),
        *(("admin.vm.firewall.Flush", 0), ("admin.property.HelpRst", 0)),
    ],
)
async def test_some_methods_are_for_dom0_alone_and_some_are_none(
    instance: Instance, method: str, code: int
) -> None:
    assert await call(instance, "dom0", method, b"name=far label=red") == (code, b"")
    assert not instance.system.has_name("far")
