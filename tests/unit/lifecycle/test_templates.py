"""Templates as builders register them, and the snapshots made from them."""

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from insula.daemon.lifecycle.templates import BuiltRoot
from insula.daemon.model.errors import NotHaltedError, RefusedError, ValueRefusedError
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.store import store
from insula.protocol.errors import ReportableError
from tests.serving import TEMPLATE, Instance, serving

from .conftest import until

OTHER = "fedcba9876543210"


@pytest_asyncio.fixture
async def snapping(tmp_path: Path) -> AsyncIterator[Instance]:
    """An instance whose qubes start from snapshots."""
    async with serving(tmp_path / "home", clone=True) as made:
        yield made


async def test_a_template_is_what_new_qubes_are_made_from(instance: Instance) -> None:
    template = instance.system.named(TEMPLATE)
    assert template.klass is QubeClass.TEMPLATE
    assert template.label == "black"
    assert template.features["qrexec"] == template.features["gui"] == "1"
    assert instance.system.properties["default_template"] == template.uuid
    assert instance.system.properties["default_kernel"] == template.properties["kernel"]
    assert template.volumes["root"].layers == ("1-1.qcow2",)


async def test_what_is_registered_already_changes_nothing(instance: Instance) -> None:
    template = await instance.template()
    assert instance.told == []
    assert template.volumes["root"].number == 1


async def test_a_template_of_before_says_what_its_agent_serves_now(instance: Instance) -> None:
    template = instance.system.named(TEMPLATE)
    service = "supported-rpc.qubes.WaitForRunningSystem"
    del template.features[service]
    template.features["gui"] = ""
    await instance.template()
    assert template.features[service] == "1"
    assert template.features["gui"] == ""
    assert template.volumes["root"].number == 1


async def test_a_new_root_reaches_qubes_at_their_next_start(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    template = await instance.template(recipe=OTHER)
    assert template.volumes["root"].layers == ("2-2.qcow2",)
    assert work.power.value == "Running"
    await instance.power.kill(work)
    await instance.power.start(work)


async def test_a_running_template_is_not_replaced(instance: Instance) -> None:
    template = instance.system.named(TEMPLATE)
    await instance.power.start(template)
    before = template.volumes["root"]
    with pytest.raises(NotHaltedError, match=TEMPLATE):
        await instance.template(recipe=OTHER)
    assert template.volumes["root"] == before


async def test_another_kind_of_qube_keeps_its_name(instance: Instance) -> None:
    await instance.qube("work")
    with pytest.raises(RefusedError, match="work"):
        await instance.template("work")
    with pytest.raises(ValueRefusedError, match="1st"):
        await instance.template("1st")


async def test_a_template_is_as_it_was_when_its_root_cannot_be_kept(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = instance.system.named(TEMPLATE)
    before = json.dumps(template.to_json())

    def full(_connection: object, _changes: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_execute", full)
        with pytest.raises(ReportableError, match="full"):
            await instance.template(recipe=OTHER)
    assert json.dumps(template.to_json()) == before
    files = {
        one.name for one in (instance.home / "volumes" / str(template.uuid) / "root").iterdir()
    }
    assert files == {"1-1.qcow2"}
    await instance.template(recipe=OTHER)


async def test_a_missing_build_is_named(instance: Instance) -> None:
    nowhere = instance.home / "nowhere"
    with pytest.raises(ReportableError, match="nowhere"):
        await instance.templates.register(
            BuiltRoot(name="leaf", root=nowhere, kernel=nowhere, initrd=nowhere, recipe=OTHER)
        )


async def test_two_at_once_make_one_template(instance: Instance) -> None:
    made = await asyncio.gather(*(instance.template("leaf", OTHER) for _ in range(2)))
    assert made[0] is made[1]
    assert made[0].volumes["root"].number == 1


async def test_a_template_gets_its_snapshot_in_the_background(snapping: Instance) -> None:
    await snapping.template()
    await until(lambda: snapping.world.goldens.count() == 1)


async def test_a_qube_starts_from_the_snapshot_of_its_template(snapping: Instance) -> None:
    template = await snapping.template()
    work = await snapping.qube("work")
    key = await snapping.snapshots.ensure(template)
    assert await snapping.snapshots.ensure(work) == key
    await snapping.power.start(work)
    assert snapping.world.goldens.count() == 1


async def test_nobody_may_write_the_files_of_a_snapshot(snapping: Instance) -> None:
    key = await snapping.snapshots.ensure(await snapping.template())
    (place,) = (snapping.home / "golden").glob(f"{key}-*")
    files = list(place.iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o400}


async def test_what_a_template_wrote_makes_its_snapshot_anew(snapping: Instance) -> None:
    template = await snapping.template()
    before = await snapping.snapshots.ensure(template)
    await snapping.power.start(template)
    await snapping.power.shutdown(template, wait=True)
    await until(lambda: before not in snapping.snapshots.wanted())
    (now,) = snapping.snapshots.wanted()
    await until(lambda: _snapshots(snapping) == {now})


async def test_a_snapshot_of_yesterday_is_made_anew_beside_it_and_then_replaces_it(
    snapping: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    await snapping.snapshots.ensure(await snapping.template())
    work = await snapping.qube("work")
    await snapping.snapshots.renew()
    (before,) = (snapping.home / "golden").iterdir()
    monkeypatch.setattr("insula.daemon.lifecycle.snapshots.OLDEST", -1.0)
    await snapping.snapshots.renew()
    assert before.exists()  # A start may just have chosen it.
    assert snapping.world.goldens.count() == 2
    monkeypatch.setattr("insula.daemon.lifecycle.goldens.CHOSEN_FOR", 0.0)
    await snapping.snapshots.sweep()
    (after,) = (snapping.home / "golden").iterdir()
    assert after != before
    await snapping.power.start(work)


async def test_a_snapshot_that_cannot_be_made_does_not_keep_qubes_from_booting(
    snapping: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_basis: object) -> None:
        raise ReportableError("no snapshot today")

    monkeypatch.setattr(snapping.world.goldens, "ensure", fails)
    await snapping.template()
    await snapping.power.start(await snapping.qube("work"))


async def test_snapshots_of_removed_templates_go(snapping: Instance) -> None:
    template = await snapping.template()
    await snapping.snapshots.ensure(template)
    await snapping.ok("admin.property.Reset", "dom0", "default_template")
    await snapping.administration.remove(template)
    await snapping.snapshots.sweep()
    assert _snapshots(snapping) == set()


def _snapshots(instance: Instance) -> set[str]:
    """Keys of the snapshots there are."""
    found = (instance.home / "golden").glob("*/meta.json")
    return {one.parent.name.partition("-")[0] for one in found}
