"""Imports as other programs do them: the scripts of a policy, daemons that die, who gives up."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.admin.methods.volumes import parse_count, parse_size
from insula.daemon.model.errors import RefusedSilentlyError
from insula.daemon.model.qube import Qube, QubeClass
from insula.protocol import admin
from insula.protocol.admin import Refusal, parse_pairs
from tests.serving import TIMEOUT, Instance, end_machines, memory_engine, open_instance

INTERNAL = "qubesd.internal.sock"
BEGIN, END = "internal.vm.volume.ImportBegin", "internal.vm.volume.ImportEnd"
SIZE = 1 << 20


async def _script(
    instance: Instance, name: str, volume: str, stdin: bytes, target: str = "work"
) -> tuple[int, bytes]:
    """Exit code and standard output of a policy's script."""
    environment = {
        **os.environ,
        "INSULA_RUN": str(instance.run),
        "QREXEC_REMOTE_DOMAIN": "dom0",
        "QREXEC_REQUESTED_TARGET": target,
    }
    program = f"import sys; from insula.tools.volume_import import {name}; sys.exit({name}())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, volume, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(TIMEOUT):
        answer, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, answer


def _content(instance: Instance, qube: Qube, volume: str) -> bytes:
    """What the only layer of a volume holds."""
    (layer,) = qube.volumes[volume].layers
    place = instance.home / "volumes" / str(qube.uuid) / volume
    return (place / layer).read_bytes()


def _files(instance: Instance, qube: Qube, volume: str = "private") -> set[str]:
    place = instance.home / "volumes" / str(qube.uuid) / volume
    return {path.name for path in place.iterdir()}


async def test_a_script_brings_data_into_a_volume(instance: Instance) -> None:
    work, data = instance.system.named("work"), os.urandom(SIZE)
    with instance.listening() as told:
        code, answer = await _script(instance, "with_size", "private", b"%d\n" % SIZE + data)
    assert (code, answer) == (0, b"0\0")
    assert _content(instance, work, "private") == data
    info = parse_pairs(await instance.ok("admin.vm.volume.Info", "work", "private"))
    assert info["size"] == str(SIZE)
    assert [(one.subject, one.name, one.fields) for one in told] == [
        ("work", "domain-volume-import-begin", {"volume": "private", "size": str(SIZE)}),
        ("work", "domain-volume-import-end", {"volume": "private", "success": "True"}),
    ]
    other = os.urandom(SIZE)
    assert await _script(instance, "own_size", "private", other) == (0, b"0\0")
    assert _content(instance, work, "private") == other
    await instance.ok("admin.vm.volume.Revert", "work", "private", b"2")
    assert _content(instance, work, "private") == data


async def test_a_former_state_has_its_former_size(instance: Instance) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    await instance.power.kill(work)
    before = work.volumes["private"]
    assert await _script(instance, "with_size", "private", b"512\n" + bytes(512)) == (0, b"0\0")
    assert work.volumes["private"].size == 512
    await instance.ok("admin.vm.volume.Revert", "work", "private", b"2")
    after = work.volumes["private"]
    assert (after.layers, after.size) == (before.layers, before.size)
    assert Qube.from_json(work.to_json()).volumes == work.volumes
    stored = work.to_json()
    for revision in stored["volumes"]["private"]["revisions"]:
        del revision["size"]
    (kept,) = Qube.from_json(stored).volumes["private"].revisions
    assert kept.size is None


@pytest.mark.parametrize("length", [0, SIZE - 1, SIZE + 1])
async def test_a_script_with_too_little_or_too_much_leaves_the_volume(
    instance: Instance, length: int
) -> None:
    work = instance.system.named("work")
    before = work.volumes["private"]
    with instance.listening() as told:
        stdin = b"%d\n" % SIZE + bytes(length)
        code, answer = await _script(instance, "with_size", "private", stdin)
    assert code == 0
    refusal = admin.decode_answer(answer)
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "QubesException"
    assert work.volumes["private"] == before
    assert told[-1].fields == {"volume": "private", "success": "False"}
    assert _files(instance, work) == set()


async def test_a_script_passes_refusals_on(instance: Instance) -> None:
    assert await _script(instance, "own_size", "nothing", b"") == (1, b"")
    assert await _script(instance, "with_size", "private", b"-1\n") == (1, b"")
    code, answer = await _script(instance, "own_size", "private", b"", "nobody")
    assert (code, answer[:23]) == (1, b"2\0QubesVMNotFoundError\0")
    code, answer = await _script(instance, "own_size", "root", b"")
    assert (code, answer[:23]) == (1, b"2\0StoragePoolException\0")


async def test_a_standalone_gets_a_root_and_its_boot_mode(instance: Instance) -> None:
    text = b"name=alone label=red"
    await instance.ok("admin.vm.Create.StandaloneVM", "dom0", "", text)
    alone = instance.system.named("alone")
    assert alone.klass is QubeClass.STANDALONE
    for name, value in (("standalone-default", b"plain"), ("kernelopts.plain", b"quiet")):
        await instance.ok("admin.vm.feature.Set", "alone", f"boot-mode.{name}", value)
    data = os.urandom(SIZE)
    with instance.listening() as told:
        stdin = b"%d\n" % SIZE + data
        assert await _script(instance, "with_size", "root", stdin, "alone") == (0, b"0\0")
    assert "property-set:bootmode" in [one.name for one in told]
    assert _content(instance, alone, "root") == data
    answer = await instance.ok("admin.vm.property.Get", "alone", "bootmode")
    assert answer == "default=False type=str plain"
    await instance.ok("admin.vm.property.Reset", "alone", "bootmode")
    await instance.ok("admin.vm.volume.Clear", "alone", "root")
    answer = await instance.ok("admin.vm.property.Get", "alone", "bootmode")
    assert answer.startswith("default=True ")


async def test_a_daemon_that_dies_amid_an_import_leaves_the_volume(
    tmp_path: Path, instance: Instance
) -> None:
    home, run = tmp_path / "other", instance.run / "other"
    run.mkdir()
    engine = memory_engine()
    async with AsyncExitStack() as first:
        one = await open_instance(first, home, run, engine)
        await one.template()
        work = await one.qube("work")
        before = work.volumes["private"]
        answer = await one.ask(BEGIN, "work", "private", str(SIZE).encode(), over=INTERNAL)
        assert isinstance(answer, bytes)
        path = Path(answer.decode().partition(" ")[2])
        path.write_bytes(b"half")
    async with AsyncExitStack() as second:
        second.push_async_callback(end_machines, engine)
        other = await open_instance(second, home, run, engine)
        work = other.system.named("work")
        assert work.volumes["private"] == before
        refused = await other.ask(END, "work", "private", b"ok", over=INTERNAL)
        assert isinstance(refused, Refusal)
        assert refused.kind == "QubesException"
        volumes = [one for qube in other.system.in_order() for one in qube.volumes.values()]
        assert await other.world.storage.sweep(volumes) == (f"{work.uuid}/private/{path.name}",)
        data = os.urandom(SIZE)
        assert await _script(other, "with_size", "private", b"%d\n" % SIZE + data) == (0, b"0\0")
        assert _content(other, work, "private") == data


async def test_a_qube_that_starts_amid_an_import_keeps_its_volume(instance: Instance) -> None:
    work = instance.system.named("work")
    answer = await instance.ask(BEGIN, "work", "private", str(SIZE).encode(), over=INTERNAL)
    assert isinstance(answer, bytes)
    await instance.power.start(work)
    refused = await instance.ask(END, "work", "private", b"ok", over=INTERNAL)
    assert isinstance(refused, Refusal)
    assert refused.kind == "QubesVMNotHaltedError"
    await instance.power.kill(work)
    assert work.volumes["private"].layers == ("1.qcow2",)
    assert _files(instance, work) == {"1.qcow2"}


async def test_a_qube_removed_amid_an_import_is_gone(instance: Instance) -> None:
    answer = await instance.ask(BEGIN, "work", "private", b"512", over=INTERNAL)
    assert isinstance(answer, bytes)
    await instance.ok("admin.vm.Remove", "work")
    refused = await instance.ask(END, "work", "private", b"ok", over=INTERNAL)
    assert isinstance(refused, Refusal)
    assert refused.kind == "QubesVMNotFoundError"


@given(text=st.text(max_size=25))
def test_a_size_is_digits_or_refused(text: str) -> None:
    for parse in (parse_size, parse_count):
        try:
            found = parse(text)
        except RefusedSilentlyError:
            continue
        assert str(found) == text or (parse is parse_count and text == "-0")
        assert len(text.removeprefix("-")) < 20


@given(number=st.integers(-(10**19) + 1, 10**19 - 1))
def test_every_size_of_fewer_than_twenty_digits_is_one(number: int) -> None:
    assert parse_count(str(number)) == number
