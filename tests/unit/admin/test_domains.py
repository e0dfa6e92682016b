"""Qubes over the Admin API: listed, created, removed (admin-api.md section 4.1)."""

import re

import pytest

from insula.protocol.admin import Refusal
from tests.serving import TEMPLATE, Instance


async def test_qubes_are_listed_dom0_first_and_then_by_name(instance: Instance) -> None:
    await instance.qube("Alpha")
    listed = await instance.ok("admin.vm.List")
    uuid = {name: instance.system.named(name).uuid for name in ("Alpha", TEMPLATE, "work")}
    assert listed == (
        "dom0 class=AdminVM state=Running uuid=00000000-0000-0000-0000-000000000000\n"
        f"Alpha class=AppVM state=Halted uuid={uuid['Alpha']}\n"
        f"{TEMPLATE} class=TemplateVM state=Halted uuid={uuid[TEMPLATE]}\n"
        f"work class=AppVM state=Halted uuid={uuid['work']}\n"
    )


async def test_a_qube_lists_itself(instance: Instance) -> None:
    uuid = instance.system.named("work").uuid
    line = f"work class=AppVM state=Halted uuid={uuid}\n"
    assert await instance.ok("admin.vm.List", "work") == line
    assert await instance.ok("admin.vm.List", f"uuid:{uuid}") == line


async def test_classes(instance: Instance) -> None:
    listed = "AdminVM\nAppVM\nDispVM\nRemoteVM\nStandaloneVM\nTemplateVM\n"
    assert await instance.ok("admin.vmclass.List") == listed


async def test_a_qube_is_created(instance: Instance) -> None:
    answer = await instance.ok("admin.vm.Create.AppVM", "dom0", TEMPLATE, b"name=new label=red")
    assert answer == ""
    new = instance.system.named("new")
    assert new.label == "red"
    assert new.template == instance.system.named(TEMPLATE).uuid
    assert instance.names() == [
        *("domain-add", "domain-tag-add:created-by-dom0", "domain-tag-add:guivm-dom0"),
        *("domain-tag-add:audiovm-dom0", "domain-create-on-disk"),
    ]


async def test_without_a_template_the_default_is_taken(instance: Instance) -> None:
    await instance.ok("admin.vm.Create.AppVM", "dom0", "", b"label=red name=new")
    assert instance.system.named("new").template == instance.system.named(TEMPLATE).uuid
    await instance.disposables("mould")
    await instance.ok("admin.vm.Create.DispVM", "dom0", "", b"name=named label=red")
    assert instance.system.named("named").template == instance.system.named("mould").uuid
    assert await instance.ok("admin.vm.property.Get", "named", "auto_cleanup") == (
        "default=True type=bool False"
    )


NOTHING = None
LABELS = b"name=new label=red"


@pytest.mark.parametrize(
    ("method", "argument", "payload", "kind"),
    [
        # The template is looked at before the parameters.
        ("Create.TemplateVM", TEMPLATE, b"nonsense", "QubesValueError"),
        ("Create.AppVM", "nobody", b"nonsense", "QubesVMNotFoundError"),
        # Parameters in their order.
        ("Create.AppVM", TEMPLATE, b"", NOTHING),
        ("Create.AppVM", TEMPLATE, b"nonsense", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=1st nonsense", "QubesValueError"),
        ("Create.AppVM", TEMPLATE, b"nonsense name=1st", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new", NOTHING),
        ("Create.AppVM", TEMPLATE, b"label=red", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new label=red label=red", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new  label=red", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new label=red x=y", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new label=r\xc3\xb6d", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new label=1", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new label=r/d", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=new label=pink", "QubesLabelNotFoundError"),
        ("Create.AppVM", TEMPLATE, b"label=pink name=1st", "QubesLabelNotFoundError"),
        ("Create.AppVM", TEMPLATE, b"name=new label=red pool=varlibqubes", NOTHING),
        ("Create.AppVM", TEMPLATE, b"name=work label=red", "QubesValueError"),
        ("Create.AppVM", TEMPLATE, b"name=dom0 label=red", "QubesValueError"),
        # Then creation.
        ("Create.AppVM", "work", LABELS, "QubesPropertyValueError"),
        ("Create.DispVM", "work", LABELS, "QubesPropertyValueError"),
        ("Create.DispVM", "", LABELS, "QubesValueError"),
        ("Create.DispVM", "", b"name=work label=red", "QubesValueError"),
        ("Create.AdminVM", "", LABELS, NOTHING),
        ("Create.AdminVM", TEMPLATE, LABELS, "QubesValueError"),
        ("Create.AdminVM", "", b"name=1st label=red", "QubesValueError"),
        ("Create.AdminVM", "", b"name=work label=red", "QubesValueError"),
        # Pools.
        ("CreateInPool.AppVM", TEMPLATE, LABELS + b" pool=nowhere", "QubesException"),
        ("CreateInPool.AppVM", TEMPLATE, LABELS + b" pool:private=nowhere", "QubesException"),
        ("CreateInPool.AppVM", TEMPLATE, LABELS + b" pool:nothing=varlibqubes", NOTHING),
        ("CreateInPool.AppVM", TEMPLATE, LABELS + b" pool:root=varlibqubes", "QubesException"),
        ("CreateInPool.AppVM", TEMPLATE, LABELS + b" pool=linux-kernel", "QubesException"),
        # Whether a pool can hold what it is named for is asked last.
        ("CreateInPool.AppVM", TEMPLATE, b"name=new pool:root=varlibqubes", NOTHING),
        (
            "CreateInPool.AppVM",
            TEMPLATE,
            b"name=work label=red pool:root=varlibqubes",
            "QubesValueError",
        ),
        (
            "CreateInPool.AppVM",
            TEMPLATE,
            b"name=work label=red pool:root=nowhere",
            "QubesException",
        ),
        (
            "CreateInPool.AppVM",
            TEMPLATE,
            LABELS + b" pool=varlibqubes pool:private=varlibqubes",
            NOTHING,
        ),
        (
            "CreateInPool.AppVM",
            TEMPLATE,
            LABELS + b" pool:private=varlibqubes pool=varlibqubes",
            NOTHING,
        ),
    ],
)
async def test_creation_refuses_in_this_order(
    instance: Instance, method: str, argument: str, payload: bytes, kind: str | None
) -> None:
    assert await instance.refused(f"admin.vm.{method}", "dom0", argument, payload) == kind
    assert not instance.system.has_name("new")
    assert instance.told == []


@pytest.mark.parametrize(
    "pools",
    [
        b"",
        b" pool=varlibqubes",
        b" pool:private=varlibqubes pool:volatile=varlibqubes pool:kernel=linux-kernel",
    ],
)
async def test_pools_may_be_named(instance: Instance, pools: bytes) -> None:
    await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE, LABELS + pools)


async def test_without_defaults_a_template_has_to_be_named(instance: Instance) -> None:
    await instance.ok("admin.property.Reset", "dom0", "default_template")
    answer = await instance.ask("admin.vm.Create.AppVM", "dom0", "", LABELS)
    assert isinstance(answer, Refusal)
    assert answer.kind == "QubesValueError"
    assert "qubes-prefs default_template NAME" in answer.message


async def test_disposables_are_created(instance: Instance) -> None:
    await instance.disposables("mould")
    name = await instance.ok("admin.vm.CreateDisposable")
    assert re.fullmatch(r"disp[0-9]{1,4}", name)
    assert await instance.ok("admin.vm.property.Get", name, "auto_cleanup") == (
        "default=False type=bool True"
    )
    uuid = await instance.ok("admin.vm.CreateDisposable", "mould", "", b"uuid")
    assert uuid.removeprefix("uuid:") in {str(one) for one in instance.system.qubes}


@pytest.mark.parametrize(
    ("destination", "argument", "payload", "kind"),
    [
        ("mould", "other", b"", NOTHING),
        ("mould", "", b"name", "QubesValueError"),
        ("mould", "", b"\xc3", "QubesValueError"),
        ("work", "", b"", "QubesException"),
        ("work", "preload", b"x", "QubesValueError"),
    ],
)
async def test_creation_of_disposables_refuses(
    instance: Instance, destination: str, argument: str, payload: bytes, kind: str | None
) -> None:
    await instance.disposables("mould")
    found = await instance.refused("admin.vm.CreateDisposable", destination, argument, payload)
    assert found == kind


async def test_without_a_default_there_are_no_disposables(instance: Instance) -> None:
    answer = await instance.ask("admin.vm.CreateDisposable")
    assert isinstance(answer, Refusal)
    assert answer.kind == "QubesException"
    assert "qubes-prefs default_dispvm NAME" in answer.message


async def test_a_qube_is_removed(instance: Instance) -> None:
    assert await instance.ok("admin.vm.Remove", "work") == ""
    assert await instance.refused("admin.vm.Remove", "work") == "QubesVMNotFoundError"
    assert await instance.refused("admin.vm.Remove", "dom0") == "QubesVMInUseError"
    assert await instance.refused("admin.vm.Remove", TEMPLATE) == "QubesVMInUseError"


async def test_the_current_state_of_qubes(instance: Instance) -> None:
    halted = await instance.ok("admin.vm.CurrentState", "work")
    assert halted == "mem=0 mem_static_max=4096000 cputime=0 power_state=Halted"
    await instance.ok("admin.vm.Start", "work")
    state = await instance.ok("admin.vm.CurrentState", "work")
    found = re.fullmatch(
        r"mem=(\d+) mem_static_max=4096000 cputime=(\d+) power_state=Running", state
    )
    assert found is not None
    assert int(found[1]) > 1000
    state = await instance.ok("admin.vm.CurrentState", "dom0")
    most = instance.system.host_memory
    found = re.fullmatch(
        rf"mem=(\d+) mem_static_max={most} cputime=(\d+) power_state=Running", state
    )
    assert found is not None
    assert all(int(number) > 0 for number in found.groups())


async def test_power_over_the_api(instance: Instance) -> None:
    for method, state in (
        ("Start", "Running"),
        ("Start", "Running"),
        ("Pause", "Paused"),
        ("Unpause", "Running"),
        ("Kill", "Halted"),
        ("Start", "Running"),
    ):
        assert await instance.ok(f"admin.vm.{method}", "work") == ""
        assert instance.system.named("work").power == state
    assert await instance.ok("admin.vm.Shutdown", "work", "wait+force") == ""
    assert instance.system.named("work").halted


@pytest.mark.parametrize(
    ("method", "destination", "argument", "kind"),
    [
        ("Shutdown", "work", "", "QubesVMNotStartedError"),
        ("Shutdown", "work", "now", NOTHING),
        ("Shutdown", "work", "force+", NOTHING),
        ("Kill", "work", "", "QubesVMNotStartedError"),
        ("Kill", "work", "x", NOTHING),
        ("Pause", "work", "", "QubesVMNotRunningError"),
        ("Unpause", "work", "", "QubesVMNotPausedError"),
        ("Start", "dom0", "", "QubesVMNotHaltedError"),
        ("Kill", "dom0", "", "QubesVMError"),
        ("Shutdown", "dom0", "", NOTHING),
        ("Pause", "dom0", "", NOTHING),
        ("Unpause", "dom0", "", NOTHING),
    ],
)
async def test_power_refuses(
    instance: Instance, method: str, destination: str, argument: str, kind: str | None
) -> None:
    assert await instance.refused(f"admin.vm.{method}", destination, argument) == kind
