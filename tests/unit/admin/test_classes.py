"""StandaloneVM and RemoteVM: what they have, and what is refused of them."""

import pytest

from insula.daemon.model.qube import PowerState, Qube
from tests.serving import Instance


async def _made(instance: Instance, klass: str) -> Qube:
    await instance.ok(f"admin.vm.Create.{klass}", "dom0", "", b"name=new label=blue")
    return instance.system.named("new")


async def _value(instance: Instance, name: str) -> str:
    answer = await instance.ok("admin.vm.property.Get", "new", name)
    return answer.split(" ", 2)[2]


async def test_a_standalone_has_a_root_of_its_own(instance: Instance) -> None:
    made = await _made(instance, "StandaloneVM")
    assert made.volumes["root"].persistent
    assert made.volumes["private"].persistent
    assert instance.system.root_template(made) is made
    assert await _value(instance, "updateable") == "True"
    assert await _value(instance, "icon") == "standalonevm-blue"
    names = (await instance.ok("admin.vm.property.List", "new")).splitlines()
    assert "template" not in names
    assert "template_for_dispvms" in names


async def test_what_a_standalone_writes_stays(instance: Instance) -> None:
    made = await _made(instance, "StandaloneVM")
    await instance.ok("admin.vm.Start", "new")
    assert made.power is PowerState.RUNNING
    await instance.ok("admin.vm.Shutdown", "new", "wait")
    assert made.volumes["root"].number == 1


async def test_disposables_are_made_from_a_standalone(instance: Instance) -> None:
    made = await _made(instance, "StandaloneVM")
    await instance.ok("admin.vm.property.Set", "new", "template_for_dispvms", b"True")
    name = await instance.ok("admin.vm.CreateDisposable", "new")
    assert instance.system.root_template(instance.system.named(name)) is made


async def test_a_remote_qube_is_only_an_entry(instance: Instance) -> None:
    made = await _made(instance, "RemoteVM")
    assert made.volumes == {}
    assert made.tags == {"created-by-dom0"}
    listed = await instance.ok("admin.vm.List", "new")
    assert listed == f"new class=RemoteVM state=Running uuid={made.uuid}\n"
    state = await instance.ok("admin.vm.CurrentState", "new")
    assert state == "mem=0 mem_static_max=0 cputime=0 power_state=Running"
    assert await instance.ok("admin.vm.volume.List", "new") == ""
    assert set((await instance.ok("admin.vm.property.List", "new")).split()) == {
        *("name", "qid", "uuid", "label", "klass", "icon"),
        *("include_in_backups", "relayvm", "transport_rpc", "remote_name"),
    }
    assert await _value(instance, "icon") == "remotevm-blue"
    assert await _value(instance, "include_in_backups") == "False"


async def test_the_relay_of_a_remote_qube_tags_it(instance: Instance) -> None:
    made = await _made(instance, "RemoteVM")
    await instance.ok("admin.vm.property.Set", "new", "relayvm", b"work")
    assert "relayvm-work" in made.tags
    assert await instance.refused("admin.vm.Remove", "work") == "QubesVMInUseError"
    await instance.ok("admin.vm.property.Reset", "new", "relayvm")
    assert "relayvm-work" not in made.tags


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("admin.vm.Start", "QubesVMNotHaltedError"),
        ("admin.vm.Kill", "QubesVMError"),
        ("admin.vm.Shutdown", None),
        ("admin.vm.Pause", None),
        ("admin.vm.Unpause", None),
        ("admin.vm.volume.Info+root", None),
    ],
)
async def test_a_remote_qube_has_no_life_here(
    instance: Instance, method: str, kind: str | None
) -> None:
    await _made(instance, "RemoteVM")
    method, _, argument = method.partition("+")
    assert await instance.refused(method, "new", argument) == kind


@pytest.mark.parametrize("name", ["netvm", "guivm", "default_dispvm", "management_dispvm"])
async def test_no_property_refers_to_a_remote_qube(instance: Instance, name: str) -> None:
    await _made(instance, "RemoteVM")
    refused = await instance.refused("admin.vm.property.Set", "work", name, b"new")
    assert refused == "QubesPropertyValueError"


async def test_a_remote_qube_is_removed(instance: Instance) -> None:
    await _made(instance, "RemoteVM")
    await instance.ok("admin.vm.Remove", "new")
    assert not instance.system.has_name("new")


async def test_there_is_no_second_admin_domain(instance: Instance) -> None:
    parameters = b"name=new label=red"
    assert await instance.refused("admin.vm.Create.AdminVM", "dom0", "", parameters) is None
    assert not instance.system.has_name("new")
