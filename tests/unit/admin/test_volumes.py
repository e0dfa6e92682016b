"""Volumes over the Admin API (admin-api.md sections 4.7, 4.13 and 9)."""

import os
import re
import time
from pathlib import Path

import pytest

from insula.daemon.engine.memory.engine import MemoryMachine
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.volume import Volume
from insula.daemon.rpc.services import Outcome
from insula.protocol.admin import Refusal, parse_pairs
from tests.serving import TEMPLATE, Instance

INTERNAL = "qubesd.internal.sock"
GIB = 1 << 30
REFUSED = "StoragePoolException"


async def _info(instance: Instance, qube: str, volume: str) -> dict[str, str]:
    return parse_pairs(await instance.ok("admin.vm.volume.Info", qube, volume))


async def _written(instance: Instance, qube: Qube) -> None:
    """Start and end a qube, which makes a revision of each volume that is kept."""
    await instance.power.start(qube)
    await instance.power.kill(qube)


async def _begin(instance: Instance, qube: str, volume: str, size: bytes = b"") -> tuple[int, Path]:
    method = "internal.vm.volume.ImportBegin"
    answer = await instance.ask(method, qube, volume, size, over=INTERNAL)
    assert isinstance(answer, bytes), answer
    wanted, _, path = answer.decode().partition(" ")
    return int(wanted), Path(path)


async def _end(instance: Instance, qube: str, volume: str, verdict: bytes = b"ok") -> str | None:
    """End an import; the kind of the refusal, or the empty text."""
    method = "internal.vm.volume.ImportEnd"
    answer = await instance.ask(method, qube, volume, verdict, over=INTERNAL)
    return answer.kind if isinstance(answer, Refusal) else "" if answer == b"" else None


async def test_the_fields_of_a_volume(instance: Instance) -> None:
    text = await instance.ok("admin.vm.volume.Info", "work", "root")
    assert [line.partition("=")[0] for line in text.splitlines()] == [
        *("pool", "vid", "size", "usage", "rw", "source", "path", "save_on_stop"),
        *("snap_on_start", "revisions_to_keep", "ephemeral", "is_outdated"),
    ]
    root = parse_pairs(text)
    assert root["vid"] == "appvms/work/root"
    assert root["source"] == f"vm-templates/{TEMPLATE}/root"
    assert (root["snap_on_start"], root["save_on_stop"], root["rw"]) == ("True", "False", "True")
    assert (await _info(instance, "work", "volatile"))["ephemeral"] == "True"
    assert (await _info(instance, "work", "private"))["ephemeral"] == "False"


async def test_a_running_qube_is_behind_its_template(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    assert (await _info(instance, "work", "root"))["is_outdated"] == "False"
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 0.01)  # Within the second of its start.
    await _written(instance, instance.system.named(TEMPLATE))
    assert (await _info(instance, "work", "root"))["is_outdated"] == "True"
    assert (await _info(instance, "work", "private"))["is_outdated"] == "False"
    await instance.power.kill(work)
    assert (await _info(instance, "work", "root"))["is_outdated"] == "False"


@pytest.mark.parametrize("method", ["Info", "ListSnapshots", "Revert", "Resize", "Clear"])
async def test_there_is_no_other_volume(instance: Instance, method: str) -> None:
    assert await instance.refused(f"admin.vm.volume.{method}", "work", "nothing") is None
    assert await instance.refused(f"admin.vm.volume.{method}", "dom0", "root") is None


async def test_a_volume_goes_back_to_a_revision(instance: Instance) -> None:
    work = instance.system.named("work")
    await _written(instance, work)
    await _written(instance, work)
    (revision,) = (await instance.ok("admin.vm.volume.ListSnapshots", "work", "private")).split()
    layers = work.volumes["private"].revisions[0].layers
    payload = f" {revision}\n".encode()
    assert await instance.ok("admin.vm.volume.Revert", "work", "private", payload) == ""
    assert work.volumes["private"].layers == layers


async def test_only_a_listed_revision_is_one(instance: Instance) -> None:
    for payload in (b"", b"0", b"7", b"x"):
        refused = await instance.refused("admin.vm.volume.Revert", "work", "private", payload)
        assert refused is None


async def test_what_is_being_written_is_not_reverted(instance: Instance) -> None:
    work = instance.system.named("work")
    await _written(instance, work)
    await instance.power.start(work)
    (revision,) = (await instance.ok("admin.vm.volume.ListSnapshots", "work", "private")).split()
    payload = revision.encode()
    assert await instance.refused("admin.vm.volume.Revert", "work", "private", payload) == REFUSED


async def test_a_volume_grows(instance: Instance) -> None:
    size = b" %d\n" % (3 * GIB)
    assert await instance.ok("admin.vm.volume.Resize", "work", "private", size) == ""
    assert (await _info(instance, "work", "private"))["size"] == str(3 * GIB)
    await instance.ok("admin.vm.volume.Resize", "work", "private", b"%d" % (3 * GIB + 1))
    assert (await _info(instance, "work", "private"))["size"] == str(3 * GIB + 512)


async def test_a_running_qube_grows_its_file_system(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    code = 0

    async def call_service(_calls: object, service: str, payload: bytes) -> Outcome:
        called.append((service, payload))
        return Outcome(code, b"")

    monkeypatch.setattr("insula.daemon.lifecycle.volumes.call_service", call_service)
    work = instance.system.named("work")
    await instance.power.start(work)
    machine = instance.world.running[work.uuid].machine
    assert isinstance(machine, MemoryMachine)
    await instance.ok("admin.vm.volume.Resize", "work", "private", b"%d" % (3 * GIB))
    assert machine.resized == {"private": 3 * GIB}
    assert called == [("qubes.ResizeDisk", b"private\n")]
    code = 1
    payload = b"%d" % (4 * GIB)
    assert await instance.refused("admin.vm.volume.Resize", "work", "private", payload) == REFUSED
    assert work.volumes["private"].size == 4 * GIB


@pytest.mark.parametrize(
    ("volume", "size", "kind"),
    [
        ("private", b"", None),
        ("private", b"x", None),
        ("private", b"-1", None),
        ("private", b"007", None),
        ("private", b"1" * 20, None),
        ("private", b"512", REFUSED),
        ("private", b"%d" % (2 * GIB - 1), REFUSED),
        ("private", b"%d" % (5000 * GIB), REFUSED),
        ("root", b"%d" % (20 * GIB), REFUSED),
    ],
)
async def test_sizes_that_are_refused(
    instance: Instance, volume: str, size: bytes, kind: str | None
) -> None:
    before = await _info(instance, "work", volume)
    assert await instance.refused("admin.vm.volume.Resize", "work", volume, size) == kind
    assert await _info(instance, "work", volume) == before


async def test_a_volume_is_cleared(instance: Instance) -> None:
    work = instance.system.named("work")
    await _written(instance, work)
    instance.told.clear()
    assert await instance.ok("admin.vm.volume.Clear", "work", "private") == ""
    assert work.volumes["private"].layers == ()
    assert [(one.name, one.fields) for one in instance.told] == [
        ("domain-volume-import-begin", {"volume": "private", "size": str(2 * GIB)}),
        ("domain-volume-import-end", {"volume": "private", "success": "True"}),
    ]
    assert await instance.refused("admin.vm.volume.Clear", "work", "root") == REFUSED
    await instance.power.start(work)
    refused = await instance.refused("admin.vm.volume.Clear", "work", "private")
    assert refused == "QubesVMNotHaltedError"


async def test_a_volume_is_cloned(instance: Instance) -> None:
    work, other = instance.system.named("work"), await instance.qube("other")
    await instance.ok("admin.vm.volume.Resize", "work", "private", b"%d" % (3 * GIB))
    await _written(instance, work)
    token = await instance.ok("admin.vm.volume.CloneFrom", "work", "private")
    assert re.fullmatch(r"[A-Za-z0-9]{32}", token)
    instance.told.clear()
    await instance.ok("admin.vm.volume.CloneTo", "other", "private", token.encode())
    (told,) = instance.told
    assert (told.subject, told.name) == ("other", "domain-import-volume")
    assert told.fields == {"name": "private", "source": "appvms/work/private"}
    assert len(other.volumes["private"].layers) == 1
    assert other.volumes["private"].size == 3 * GIB
    again = await instance.refused("admin.vm.volume.CloneTo", "other", "private", token.encode())
    assert again is None


async def test_a_token_is_used_up_by_a_failure(instance: Instance) -> None:
    token = (await instance.ok("admin.vm.volume.CloneFrom", "work", "private")).encode()
    assert await instance.refused("admin.vm.volume.CloneTo", "work", "root", token) == REFUSED
    assert await instance.refused("admin.vm.volume.CloneTo", "work", "private", token) is None


async def test_a_token_of_a_removed_qube_is_none(instance: Instance) -> None:
    await instance.qube("other")
    token = (await instance.ok("admin.vm.volume.CloneFrom", "other", "private")).encode()
    await instance.ok("admin.vm.Remove", "other")
    assert await instance.refused("admin.vm.volume.CloneTo", "work", "private", token) is None


async def test_a_snapshot_is_cloned_as_what_it_begins_from(instance: Instance) -> None:
    await instance.ok("admin.vm.Create.StandaloneVM", "dom0", "", b"name=new label=red")
    made = instance.system.named("new")
    token = (await instance.ok("admin.vm.volume.CloneFrom", "work", "root")).encode()
    await instance.ok("admin.vm.volume.CloneTo", made.name, "root", token)
    template = instance.system.named(TEMPLATE)
    assert len(made.volumes["root"].layers) == len(template.volumes["root"].layers)


async def test_a_volume_without_snapshots_is_not_cloned_while_in_use(instance: Instance) -> None:
    work = instance.system.named("work")
    await instance.qube("other")
    await instance.ok("admin.vm.volume.Set.revisions_to_keep", "work", "private", b"-1")
    await instance.power.start(work)
    token = (await instance.ok("admin.vm.volume.CloneFrom", "work", "private")).encode()
    assert await instance.refused("admin.vm.volume.CloneTo", "other", "private", token) == REFUSED


async def test_data_is_imported(instance: Instance) -> None:
    work = instance.system.named("work")
    instance.told.clear()
    size, path = await _begin(instance, "work", "private", b"1000")
    assert size == 1000
    path.write_bytes(b"a" * 1000)
    assert await _end(instance, "work", "private") == ""
    (layer,) = work.volumes["private"].layers
    stored = instance.home / "volumes" / str(work.uuid) / "private" / layer
    assert stored.read_bytes()[:1000] == b"a" * 1000
    assert work.volumes["private"].size == 1024
    assert not path.exists()
    assert instance.names() == ["domain-volume-import-begin", "domain-volume-import-end"]


async def test_without_a_size_the_volumes_own_is_imported(instance: Instance) -> None:
    size, path = await _begin(instance, "work", "private")
    assert size == path.stat().st_size == 2 * GIB
    assert await _end(instance, "work", "private") == ""


async def test_an_import_that_fails_changes_nothing(instance: Instance) -> None:
    before = instance.system.named("work").volumes["private"]
    _, path = await _begin(instance, "work", "private", b"1024")
    assert await _end(instance, "work", "private", b"fail\nit was short") == "QubesException"
    assert instance.system.named("work").volumes["private"] == before
    assert not path.exists()
    assert instance.told[-1].fields["success"] == "False"
    assert await _end(instance, "work", "private") == "QubesException"


async def test_there_is_one_import_at_a_time(instance: Instance) -> None:
    await _begin(instance, "work", "private", b"1024")
    method = "internal.vm.volume.ImportBegin"
    answer = await instance.ask(method, "work", "private", b"1024", over=INTERNAL)
    assert isinstance(answer, Refusal)
    assert answer.kind == REFUSED


async def test_an_import_that_was_given_up_makes_room_for_another(instance: Instance) -> None:
    begin = ("internal.vm.volume.ImportBegin", "work", "private", b"1024")
    _, path = await _begin(instance, "work", "private", b"1024")
    with path.open("r+b"):
        os.utime(path, (0, 0))
        answer = await instance.ask(*begin, over=INTERNAL)
        assert isinstance(answer, Refusal)
        assert answer.kind == REFUSED
    wanted, again = await _begin(instance, "work", "private", b"2048")
    assert (wanted, again.stat().st_size) == (2048, 2048)
    again.unlink()
    assert (await _begin(instance, "work", "private", b"512"))[0] == 512
    assert await _end(instance, "work", "private") == ""


@pytest.mark.parametrize(
    ("volume", "size", "kind"),
    [("private", b"x", None), ("private", b"0", REFUSED), ("root", b"", REFUSED), ("x", b"", None)],
)
async def test_imports_that_are_refused(
    instance: Instance, volume: str, size: bytes, kind: str | None
) -> None:
    method = "internal.vm.volume.ImportBegin"
    answer = await instance.ask(method, "work", volume, size, over=INTERNAL)
    assert (answer.kind if isinstance(answer, Refusal) else answer) == kind


async def test_a_running_qube_imports_nothing(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    method = "internal.vm.volume.ImportBegin"
    answer = await instance.ask(method, "work", "private", over=INTERNAL)
    assert isinstance(answer, Refusal)
    assert answer.kind == "QubesVMNotHaltedError"


@pytest.mark.parametrize(
    ("volume", "setting", "value", "kind"),
    [
        ("private", "revisions_to_keep", b"-2", "QubesValueError"),
        ("private", "revisions_to_keep", b"x", None),
        ("private", "revisions_to_keep", b"9" * 20, None),
        ("private", "revisions_to_keep", b"", None),
        ("private", "rw", b"perhaps", None),
        ("private", "ephemeral", b"perhaps", None),
        ("private", "ephemeral", b"True", "QubesValueError"),
        ("root", "ephemeral", b"1", "QubesValueError"),
    ],
)
async def test_settings_that_are_refused(
    instance: Instance, volume: str, setting: str, value: bytes, kind: str | None
) -> None:
    method = f"admin.vm.volume.Set.{setting}"
    assert await instance.refused(method, "work", volume, value) == kind


async def test_settings_of_a_volume(instance: Instance) -> None:
    for setting, value, shown in (
        ("revisions_to_keep", b"9" * 19, "9" * 19),
        ("revisions_to_keep", b"3", "3"),
        ("revisions_to_keep", b"-1", "-1"),
        ("rw", b"no", "False"),
        ("rw", b"True", "True"),
    ):
        await instance.ok(f"admin.vm.volume.Set.{setting}", "work", "private", value)
        assert (await _info(instance, "work", "private"))[setting] == shown
    await instance.ok("admin.vm.volume.Set.ephemeral", "work", "volatile", b"off")
    assert (await _info(instance, "work", "volatile"))["ephemeral"] == "False"


async def test_some_settings_need_a_halted_qube(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    for setting, value in (("rw", b"False"), ("revisions_to_keep", b"-1")):
        method = f"admin.vm.volume.Set.{setting}"
        refused = await instance.refused(method, "work", "private", value)
        assert refused == "QubesVMNotHaltedError"
    await instance.ok("admin.vm.volume.Set.revisions_to_keep", "work", "private", b"5")


async def test_a_volume_without_snapshots_is_its_qubes_alone(instance: Instance) -> None:
    mould = await instance.disposables()
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    disposable = instance.system.named(name)
    setting = ("admin.vm.volume.Set.revisions_to_keep", "mould", "private")
    await instance.power.start(disposable)
    assert await instance.refused(*setting, b"-1") == "QubesVMNotHaltedError"
    await instance.power.kill(disposable)
    named = await instance.qube("named", QubeClass.APP)
    await instance.ok(*setting, b"-1")
    assert named.halted
    await instance.power.start(mould)
    text = b"name=late label=red"
    await instance.ok("admin.vm.Create.DispVM", "dom0", "mould", text)
    assert await instance.refused("admin.vm.Start", "late") == "QubesVMError"
    await instance.power.kill(mould)
    await instance.ok("admin.vm.Start", "late")
    assert await instance.refused("admin.vm.Start", "mould") == "QubesVMNotHaltedError"
    await instance.power.kill(instance.system.named("late"))
    await instance.ok("admin.vm.Start", "mould")


async def test_a_template_in_place_minds_no_running_qubes(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    setting = ("admin.vm.volume.Set.revisions_to_keep", TEMPLATE, "root")
    await instance.ok(*setting, b"-1")
    await instance.power.start(instance.system.named(TEMPLATE))
    assert await instance.refused(*setting, b"2") == "QubesVMNotHaltedError"
    await instance.qube("play")
    assert await instance.refused("admin.vm.Start", "play") == "QubesVMError"


async def test_a_source_that_gets_a_new_state_meanwhile_is_cloned_in_that(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = instance.system.named("work")
    await _written(instance, work)
    await instance.qube("play")
    token = await instance.ok("admin.vm.volume.CloneFrom", "work", "private")
    clone, states = instance.world.storage.clone, []

    async def meanwhile(source: Volume, target: Volume) -> Volume:
        states.append(source)
        if len(states) == 1:
            await instance.ok("admin.vm.volume.Set.revisions_to_keep", "work", "private", b"0")
            await instance.ok("admin.vm.volume.Clear", "work", "private")
        return await clone(source, target)

    monkeypatch.setattr(instance.world.storage, "clone", meanwhile)
    await instance.ok("admin.vm.volume.CloneTo", "play", "private", token.encode())
    assert len(states) == 2
    assert instance.system.named("play").volumes["private"].layers == ()


async def test_a_kernel_is_no_volume_to_change(instance: Instance) -> None:
    for action, payload, kind in (
        ("Resize", b"1", REFUSED),
        ("Clear", b"", REFUSED),
        ("CloneFrom", b"", REFUSED),
        ("Set.rw", b"1", REFUSED),
        ("Revert", b"1", None),
    ):
        refused = await instance.refused(f"admin.vm.volume.{action}", "work", "kernel", payload)
        assert refused == kind


async def test_a_paused_qube_does_not_keep_a_resize_waiting(instance: Instance) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    await instance.ok("admin.vm.Pause", "work")
    refused = await instance.refused(
        "admin.vm.volume.Resize", "work", "private", str(3 * GIB).encode()
    )
    assert refused == REFUSED
    assert (await _info(instance, "work", "private"))["size"] == str(3 * GIB)
    await instance.power.kill(work)


async def test_a_volume_is_remembered_with_its_settings(instance: Instance) -> None:
    await instance.ok("admin.vm.volume.Set.ephemeral", "work", "volatile", b"0")
    work = instance.system.named("work")
    assert Qube.from_json(work.to_json()).volumes == work.volumes
    before = work.to_json()
    del before["volumes"]["volatile"]["ephemeral"]
    assert Qube.from_json(before).volumes["volatile"].ephemeral is None
    assert work.klass is QubeClass.APP
