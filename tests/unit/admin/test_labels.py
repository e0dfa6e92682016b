"""Labels made and removed, and notes (admin-api.md sections 4.5 and 4.10)."""

from contextlib import AsyncExitStack

import pytest

from insula.daemon.model.qube import Qube
from insula.daemon.store.store import Store
from tests.serving import Instance

LABEL = "admin.label"


async def test_a_label_is_made_and_used(instance: Instance) -> None:
    assert await instance.ok(f"{LABEL}.Create", "dom0", "teal", b" 0x00AAbb\n") == ""
    assert (await instance.ok(f"{LABEL}.List")).endswith("black\nteal\n")
    assert await instance.ok(f"{LABEL}.Get", "dom0", "teal") == "0x00AAbb"
    assert await instance.ok(f"{LABEL}.Index", "dom0", "teal") == "9"
    assert await instance.ok(f"{LABEL}.Get", "dom0", "9") == "0x00AAbb"
    assert await instance.refused(f"{LABEL}.Get", "dom0", "label-9") == "QubesValueError"
    await instance.ok("admin.vm.property.Set", "work", "label", b"teal")
    assert await instance.refused(f"{LABEL}.Remove", "dom0", "teal") == "QubesException"
    await instance.ok("admin.vm.property.Set", "work", "label", b"red")
    await instance.ok(f"{LABEL}.Remove", "dom0", "9")
    assert await instance.refused(f"{LABEL}.Get", "dom0", "teal") == "QubesValueError"


async def test_labels_are_numbered_on(instance: Instance) -> None:
    for number, name in enumerate(("one", "two", "three"), 9):
        await instance.ok(f"{LABEL}.Create", "dom0", name, b"0x000000")
        assert await instance.ok(f"{LABEL}.Index", "dom0", name) == str(number)
    await instance.ok(f"{LABEL}.Remove", "dom0", "two")
    await instance.ok(f"{LABEL}.Create", "dom0", "four", b"0x000000")
    assert await instance.ok(f"{LABEL}.Index", "dom0", "four") == "12"


@pytest.mark.parametrize(
    ("name", "color", "kind"),
    [
        ("", b"0x000000", None),
        ("12", b"0x000000", None),
        ("te/al", b"0x000000", None),
        ("teal", b"", None),
        ("teal", b"000000", None),
        ("teal", b"0x00000", None),
        ("teal", b"0x00000g", None),
        ("teal", b"0x\xc3\xa9", None),
        ("red", b"0x000000", "QubesValueError"),
    ],
)
async def test_labels_that_are_refused(
    instance: Instance, name: str, color: bytes, kind: str | None
) -> None:
    assert await instance.refused(f"{LABEL}.Create", "dom0", name, color) == kind
    assert len((await instance.ok(f"{LABEL}.List")).splitlines()) == 8


async def test_built_in_labels_stay(instance: Instance) -> None:
    assert await instance.refused(f"{LABEL}.Remove", "dom0", "red") is None
    assert await instance.refused(f"{LABEL}.Remove", "dom0", "1") is None
    assert await instance.refused(f"{LABEL}.Remove", "dom0", "teal") == "QubesValueError"
    assert await instance.refused(f"{LABEL}.Create", "work", "teal", b"0x000000") is None


async def test_labels_are_kept(instance: Instance) -> None:
    await instance.ok(f"{LABEL}.Create", "dom0", "teal", b"0x00aabb")
    await instance.ok(f"{LABEL}.Create", "dom0", "gone", b"0x00aabb")
    await instance.ok(f"{LABEL}.Remove", "dom0", "gone")
    await instance.world.store.close()
    async with AsyncExitStack() as undo:
        store = Store(instance.home)
        undo.push_async_callback(store.close)
        assert [label.name for label in store.load().labels] == ["teal"]


async def test_notes(instance: Instance) -> None:
    assert await instance.ok("admin.vm.notes.Get", "work") == ""
    text = "first\tline\nsecond \u00e9 \u202e \x1b[31m \u2028"
    assert await instance.ok("admin.vm.notes.Set", "work", "any", text.encode()) == ""
    shown = "first\tline\nsecond \u00e9 _ _[31m _"
    assert await instance.ok("admin.vm.notes.Get", "work", "any") == shown
    work = instance.system.named("work")
    assert Qube.from_json(work.to_json()).notes == shown
    await instance.ok("admin.vm.notes.Set", "work")
    assert await instance.ok("admin.vm.notes.Get", "work") == ""
    assert instance.told == []


async def test_notes_that_are_refused(instance: Instance) -> None:
    assert await instance.refused("admin.vm.notes.Set", "work", "", b"\xff") is None
    assert await instance.refused("admin.vm.notes.Set", "dom0", "", b"x") is None
    assert await instance.refused("admin.vm.notes.Get", "dom0") is None
