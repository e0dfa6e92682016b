"""A running qube's console as a terminal (admin-api.md section 4.2)."""

import asyncio
import os

import pytest

from tests.serving import TIMEOUT, Instance


async def _read_until(terminal: int, text: bytes | None) -> None:
    """Wait until a terminal shows a text, or is no more."""
    seen = b""
    async with asyncio.timeout(TIMEOUT):
        while text is None or text not in seen:
            try:
                data = os.read(terminal, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.01)
                continue
            except OSError:
                data = b""
            if not data:
                assert text is None
                return
            seen += data


async def test_a_console_is_a_terminal(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    path = await instance.ok("admin.vm.Console", "work")
    assert path.startswith("/dev/pts/")
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        # One in memory repeats what it is told.
        os.write(terminal, b"hello\r")
        await _read_until(terminal, b"hello\r")
        assert await instance.ok("admin.vm.Console", "work") == path
        os.write(terminal, b"still there")
        await _read_until(terminal, b"still there")
    finally:
        os.close(terminal)


async def test_a_machines_end_is_its_consoles(instance: Instance) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    path = await instance.ok("admin.vm.Console", "work")
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        await instance.power.kill(work)
        await _read_until(terminal, None)
    finally:
        os.close(terminal)
    await instance.power.start(work)
    assert (await instance.ok("admin.vm.Console", "work")).startswith("/dev/pts/")


@pytest.mark.parametrize("qube", ["work", "dom0"])
async def test_only_what_runs_has_one(instance: Instance, qube: str) -> None:
    assert await instance.refused("admin.vm.Console", qube) == "QubesVMNotRunningError"


async def test_a_paused_qube_has_none(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.vm.Pause", "work")
    assert await instance.refused("admin.vm.Console", "work") == "QubesVMNotRunningError"
