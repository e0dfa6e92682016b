"""Qubes made and removed; and random administration, whose outcome the store always has."""

import asyncio
import json
import logging
import sqlite3
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from insula.daemon.admin.dispatch import SOCKETS, answer
from insula.daemon.lifecycle.administration import NewQube
from insula.daemon.model.errors import (
    NotHaltedError,
    PropertyValueError,
    QubeInUseError,
    QubeNotFoundError,
    RefusedError,
    ValueRefusedError,
)
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.store import store
from insula.protocol.admin import AdminRequest, decode_answer
from insula.protocol.errors import ReportableError
from tests.serving import TEMPLATE, Instance, memory_engine, open_instance

METHODS = SOCKETS["qubesd.sock"]


async def test_a_new_qube_is_told_of_in_order(instance: Instance) -> None:
    work = await instance.qube("work")
    assert instance.told[0].fields == {"vm": "work"}
    assert instance.names() == [
        *("domain-add", "domain-tag-add:created-by-dom0", "domain-tag-add:guivm-dom0"),
        *("domain-tag-add:audiovm-dom0", "domain-create-on-disk"),
    ]
    assert work.qid == 2
    assert work.tags == {"created-by-dom0", "guivm-dom0", "audiovm-dom0"}
    assert (instance.home / "volumes" / str(work.uuid) / "private").is_dir()


async def test_numbers_are_used_again_lowest_first(instance: Instance) -> None:
    for name in ("one", "two", "three"):
        await instance.qube(name)
    await instance.administration.remove(instance.system.named("one"))
    assert (await instance.qube("four")).qid == 2
    assert (await instance.qube("five")).qid == 5


async def test_creators_mark_what_they_make(instance: Instance) -> None:
    maker = await instance.qube("maker")
    maker.features |= {"tag-created-vm-with": "one two", "set-created-guivm": "maker"}
    instance.system.properties["check_updates_vm"] = False
    made = await instance.administration.create(
        NewQube(
            klass=QubeClass.APP,
            name="made",
            label="red",
            template=instance.system.named(TEMPLATE),
            creator=maker,
        )
    )
    assert made.tags == {"created-by-maker", "one", "two", "guivm-maker", "audiovm-dom0"}
    assert made.properties["guivm"] == maker.uuid
    assert made.features == {"check-updates": ""}


async def test_a_disposable_takes_over_what_was_set_on_its_template(instance: Instance) -> None:
    mould = await instance.disposables()
    for name, value in (("memory", "700"), ("netvm", ""), ("autostart", "True")):
        await instance.ok("admin.vm.property.Set", "mould", name, value.encode())
    await instance.ok("admin.vm.feature.Set", "mould", "service.cups", b"1")
    mould.features["preload-dispvm-max"] = "2"
    await instance.ok("admin.vm.tag.Set", "mould", "mine")
    maker = await instance.qube("maker")
    made = await instance.administration.create_disposable(mould, maker)
    assert made.label == mould.label
    dispid = made.properties.pop("dispid")
    assert made.name == f"disp{dispid}"
    assert made.properties == {
        "template": mould.uuid,
        "memory": 700,
        "netvm": None,
        "autostart": True,
        "auto_cleanup": True,
    }
    assert made.features == {"service.cups": "1"}
    assert made.tags == {
        *("mine", "created-by-dom0", "guivm-dom0", "audiovm-dom0"),
        *("created-by-maker", "disp-created-by-maker"),
    }
    assert (await instance.ok("admin.vm.property.Get", made.name, "default_dispvm")).endswith(
        "default=True type=vm mould"
    )


async def test_disposables_need_a_disposable_template(instance: Instance) -> None:
    work = await instance.qube("work")
    with pytest.raises(RefusedError, match="work") as refusal:
        await instance.administration.create_disposable(work, instance.system.dom0)
    assert refusal.value.api_name == "QubesException"
    assert "template_for_dispvms True" in (refusal.value.hint or "")


async def test_a_disposable_gets_a_name_that_is_free(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mould = await instance.disposables()
    await instance.qube("disp7")
    numbers = iter((7, 7, 8, 8, 9))
    monkeypatch.setattr("secrets.randbelow", lambda _below: next(numbers))
    first = await instance.administration.create_disposable(mould, instance.system.dom0)
    second = await instance.administration.create_disposable(mould, instance.system.dom0)
    assert (first.name, second.name) == ("disp8", "disp9")


async def test_running_out_of_numbers_is_told(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mould = await instance.disposables()
    monkeypatch.setattr("secrets.randbelow", lambda _below: 7)
    await instance.administration.create_disposable(mould, instance.system.dom0)
    with pytest.raises(RefusedError, match="no free number"):
        await instance.administration.create_disposable(mould, instance.system.dom0)


async def test_a_qube_in_use_stays_and_its_users_are_named(instance: Instance) -> None:
    template = instance.system.named(TEMPLATE)
    await instance.qube("work")
    before = instance.told.copy()
    with pytest.raises(QubeInUseError, match="global property default_template; template for work"):
        await instance.administration.remove(template)
    assert instance.told == before


async def test_a_removed_qube_is_told_of_and_gone(instance: Instance) -> None:
    work = await instance.qube("work")
    instance.told.clear()
    await instance.administration.remove(work)
    assert [(one.subject, one.name, one.fields) for one in instance.told] == [
        ("", "domain-pre-delete", {"vm": "work"}),
        ("", "domain-delete", {"vm": "work"}),
        ("work", "domain-remove-from-disk", {}),
    ]
    assert not (instance.home / "volumes" / str(work.uuid)).exists()
    with pytest.raises(QubeNotFoundError):
        await instance.administration.remove(work)


async def test_what_cannot_be_removed(instance: Instance) -> None:
    work = await instance.qube("work")
    with pytest.raises(QubeInUseError):
        await instance.administration.remove(instance.system.dom0)
    work.properties["installed_by_rpm"] = True
    with pytest.raises(QubeInUseError, match="package"):
        await instance.administration.remove(work)
    work.properties["installed_by_rpm"] = False
    await instance.power.start(work)
    with pytest.raises(NotHaltedError) as refusal:
        await instance.administration.remove(work)
    assert "qvm-shutdown --wait work" in (refusal.value.hint or "")


async def test_a_template_of_the_wrong_kind_is_refused(instance: Instance) -> None:
    work = await instance.qube("work")
    for klass in (QubeClass.APP, QubeClass.DISPOSABLE):
        new = NewQube(
            klass=klass, name="new", label="red", template=work, creator=instance.system.dom0
        )
        with pytest.raises(PropertyValueError, match="work"):
            await instance.administration.create(new)
    assert not instance.system.has_name("new")


async def test_two_at_once_cannot_have_one_name(instance: Instance) -> None:
    ends = await asyncio.gather(*(instance.qube("same") for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [Qube, ValueRefusedError, ValueRefusedError]


async def test_nothing_is_left_of_a_qube_that_could_not_be_kept(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "_execute", _full)
        with pytest.raises(ReportableError, match=r"insula\.db.*full"):
            await instance.qube("work")
    assert instance.told == []
    assert not instance.system.has_name("work")
    owners = {UUID(one.name) for one in (instance.home / "volumes").iterdir()}
    assert owners == {instance.system.named(TEMPLATE).uuid}


async def test_a_creation_given_up_is_made_wholly_or_not_at_all(instance: Instance) -> None:
    mould = await instance.disposables()
    for steps in range(12):
        making = asyncio.create_task(
            instance.administration.create_disposable(mould, instance.system.dom0)
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        making.cancel()
        await asyncio.wait([making])
        await instance.ok("admin.vm.tag.Set", "mould", f"later-{steps}")
        stored = {one.uuid: one.to_json() for one in instance.world.store.load().qubes}
        assert stored == {one.uuid: one.to_json() for one in instance.system.qubes.values()}


def _full(_connection: object, _changes: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


QUBES = ["dom0", TEMPLATE, "one", "two", "three", "x" * 32, "none", ""]
PROPERTIES = [
    *("label", "netvm", "template", "template_for_dispvms", "provides_network", "memory"),
    *("default_dispvm", "guivm", "audiovm", "kernel", "mac", "ip", "keyboard_layout", "name"),
    *("maxmem", "klass", "auto_cleanup", "start_mode", "devices_denied", "nonsense"),
]
SETTINGS = [
    *("default_netvm", "default_dispvm", "default_guivm", "clockvm", "default_template"),
    *("default_kernel", "check_updates_vm", "default_pool", "stats_interval", "nonsense"),
]
VALUES = ["", "True", "False", "7", "one", "two", TEMPLATE, "red", "us++", "1.2.3.4", "é", "\n"]
FEATURES = ["service.x", "service.meminfo-writer", "servicevm", "vm-config.x", "os", "bad name"]


class RandomAdministration(RuleBasedStateMachine):
    """Calls of every kind that changes something; the daemon may end and the disk fill between."""

    def __init__(self) -> None:
        super().__init__()
        self._scratch = tempfile.TemporaryDirectory(prefix="insula-")
        self._home, self._run = Path(self._scratch.name, "home"), Path(self._scratch.name, "run")
        self._run.mkdir()
        self._runner = asyncio.Runner()
        self._faults = _Faults()
        logging.getLogger("insula.daemon.admin.dispatch").addHandler(self._faults)
        self._undo = AsyncExitStack()
        self._open()
        self._runner.run(self._instance.template())

    def _open(self) -> None:
        opening = open_instance(self._undo, self._home, self._run, memory_engine())
        self._instance = self._runner.run(opening)

    def teardown(self) -> None:
        self._runner.run(self._undo.aclose())
        self._runner.close()
        logging.getLogger("insula.daemon.admin.dispatch").removeHandler(self._faults)
        self._scratch.cleanup()

    def _call(self, method: str, qube: str, argument: str = "", payload: str = "") -> None:
        request = AdminRequest(method, argument, "dom0", qube)
        decode_answer(
            self._runner.run(answer(self._instance.api, METHODS, request, payload.encode()))
        )

    @rule(
        klass=st.sampled_from(["AppVM", "TemplateVM", "DispVM"]),
        name=st.sampled_from(QUBES),
        template=st.sampled_from(["", *QUBES]),
        label=st.sampled_from(["red", "gray", "pink"]),
    )
    def create(self, klass: str, name: str, template: str, label: str) -> None:
        if name.isascii() and " " not in template:
            self._call(f"admin.vm.Create.{klass}", "dom0", template, f"name={name} label={label}")

    @rule(qube=st.sampled_from(QUBES))
    def create_disposable(self, qube: str) -> None:
        self._call("admin.vm.CreateDisposable", qube)

    @rule(qube=st.sampled_from(QUBES))
    def remove(self, qube: str) -> None:
        self._call("admin.vm.Remove", qube)

    @rule(
        qube=st.sampled_from(QUBES),
        name=st.sampled_from(PROPERTIES),
        value=st.sampled_from(VALUES),
        reset=st.booleans(),
    )
    def change_property(self, qube: str, name: str, value: str, reset: bool) -> None:
        if reset:
            self._call("admin.vm.property.Reset", qube, name)
        else:
            self._call("admin.vm.property.Set", qube, name, value)

    @rule(name=st.sampled_from(SETTINGS), value=st.sampled_from(VALUES), reset=st.booleans())
    def change_setting(self, name: str, value: str, reset: bool) -> None:
        if reset:
            self._call("admin.property.Reset", "dom0", name)
        else:
            self._call("admin.property.Set", "dom0", name, value)

    @rule(
        qube=st.sampled_from(QUBES),
        name=st.sampled_from(FEATURES),
        value=st.sampled_from(VALUES),
        remove=st.booleans(),
    )
    def change_feature(self, qube: str, name: str, value: str, remove: bool) -> None:
        if remove:
            self._call("admin.vm.feature.Remove", qube, name)
        else:
            self._call("admin.vm.feature.Set", qube, name, value)

    @rule(
        qube=st.sampled_from(QUBES),
        tag=st.sampled_from(["a", "guivm-x", "created-by-y", "no!"]),
        remove=st.booleans(),
    )
    def change_tag(self, qube: str, tag: str, remove: bool) -> None:
        self._call(f"admin.vm.tag.{'Remove' if remove else 'Set'}", qube, tag)

    @rule(
        qube=st.sampled_from(QUBES), name=st.sampled_from(PROPERTIES), value=st.sampled_from(VALUES)
    )
    def fill_the_disk(self, qube: str, name: str, value: str) -> None:
        before = self._memory()
        with pytest.MonkeyPatch.context() as patch, self._instance.listening() as told:
            patch.setattr(store, "_execute", _full)
            self._call("admin.vm.property.Set", qube, name, value)
            self._call("admin.vm.Create.TemplateVM", "dom0", "", "name=three label=red")
            self._call("admin.vm.CreateDisposable", "dom0")
            self._call("admin.vm.Remove", qube)
            self._call("admin.vm.feature.Set", qube, "x", "1")
            self._call("admin.property.Set", "dom0", "default_guivm", qube)
        assert told == []
        assert self._memory() == before

    @rule()
    def end_and_start_the_daemon(self) -> None:
        before = self._memory()
        self._runner.run(self._undo.aclose())
        self._open()
        assert self._memory() == before

    @invariant()
    def the_store_has_what_is_in_memory(self) -> None:
        stored = self._instance.world.store.load()
        assert _told(stored.qubes, stored.settings) == self._memory()

    @invariant()
    def nothing_refers_to_what_is_not_there(self) -> None:
        system = self._instance.system
        held = [system.properties, *(qube.properties for qube in system.qubes.values())]
        referred = {value for one in held for value in one.values() if isinstance(value, UUID)}
        assert referred <= set(system.qubes)
        assert {qube.name for qube in system.qubes.values()} == set(system._named)

    @invariant()
    def no_call_met_a_fault_of_ours(self) -> None:
        assert self._faults.seen == []

    @invariant()
    def everything_can_be_listed(self) -> None:
        for qube in self._instance.system.in_order():
            request = AdminRequest("admin.vm.property.GetAll", "", "dom0", qube.name)
            assert self._runner.run(answer(self._instance.api, METHODS, request, b"")).startswith(
                b"0\0"
            )

    def _memory(self) -> Any:
        system = self._instance.system
        return _told(list(system.qubes.values()), system.properties)


class _Faults(logging.Handler):
    """What was logged with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.seen.append(repr(record.exc_info[1]))


def _told(qubes: list[Qube], properties: dict[str, Any]) -> Any:
    listed = sorted((qube.to_json() for qube in qubes), key=lambda one: str(one["uuid"]))
    return json.loads(json.dumps([listed, {name: str(properties[name]) for name in properties}]))


TestRandomAdministration = RandomAdministration.TestCase
TestRandomAdministration.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
