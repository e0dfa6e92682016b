"""QubesDB of a running qube: told of what changes for it; what it writes is kept apart."""

import asyncio
import os
import sys

from insula.daemon.lifecycle import live_keys
from insula.daemon.model.qube import Qube
from tests.serving import TIMEOUT, Instance


async def _database(instance: Instance, qube: Qube, command: str, *words: str) -> str:
    path = instance.run / "qubes" / str(qube.uuid) / "ports" / "qubesdb"
    script = (
        "import sys; from insula.guest.commands.qubesdb import main; "
        f"sys.argv[0] = 'qubesdb-{command}'; sys.exit(main())"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *words),
        env={**os.environ, "INSULA_QUBESDB_SOCKET": str(path)},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT):
        output, _ = await process.communicate()
    return output.decode()


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(TIMEOUT):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_running_qube_is_told_of_its_services(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    assert await _database(instance, work, "read", "/name") == "work\n"
    assert await _database(instance, work, "read", "-q", "/qubes-random-seed") == ""
    await instance.ok("admin.vm.feature.Set", "work", "service.cups", b"1")

    async def has() -> bool:
        return await _database(instance, work, "read", "-q", "/qubes-service/cups") == "1\n"

    await _until(has)
    await instance.ok("admin.vm.feature.Remove", "work", "service.cups")

    async def has_not() -> bool:
        return await _database(instance, work, "list", "/qubes-service/cups") == ""

    await _until(has_not)


async def test_what_a_qube_writes_is_kept_until_it_ends(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    kept = instance.world.untrusted_written
    await _database(instance, work, "write", "/features-request/gui", "1", "/x", "y")

    async def known() -> bool:
        return kept.get(work.uuid) == {"/features-request/gui": "1", "/x": "y"}

    await _until(known)
    await _database(instance, work, "rm", "/features-request/")

    async def gone() -> bool:
        return kept.get(work.uuid) == {"/x": "y"}

    await _until(gone)
    await instance.power.kill(work)
    assert work.uuid not in kept


async def test_what_a_qube_writes_has_a_limit(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    words = [word for number in range(120) for word in (f"/big/{number}", "v" * 3000)]
    await _database(instance, work, "write", *words)
    await _database(instance, work, "write", "/big/0", "last")
    kept = instance.world.untrusted_written[work.uuid]
    size = sum(len(key) + len(value) for key, value in kept.items())
    assert size <= live_keys.MOST_BYTES
