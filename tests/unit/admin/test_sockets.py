"""Each socket has methods of its own; what is asked on another's is unknown."""

import json

from insula.protocol.admin import Refusal
from tests.serving import TEMPLATE, Instance

INTERNAL = "qubesd.internal.sock"
MISC = "qubesd.misc.sock"


async def test_a_name_means_something_on_its_own_socket_alone(instance: Instance) -> None:
    assert isinstance(await instance.ask("internal.GetSystemInfo", over=INTERNAL), bytes)
    assert await instance.ask("internal.GetSystemInfo") is None
    for other in (INTERNAL, MISC):
        assert await instance.ask("admin.vm.List", over=other) is None
        assert await instance.ask("admin.Events", over=other) is None


async def test_qubes_are_looked_up_on_every_socket(instance: Instance) -> None:
    answer = await instance.ask("internal.GetSystemInfo", "nobody", over=INTERNAL)
    assert isinstance(answer, Refusal)
    assert answer.kind == "QubesVMNotFoundError"


async def test_the_system_as_policies_see_it(instance: Instance) -> None:
    await instance.ok("admin.vm.tag.Set", "work", "mine")
    await instance.ok("admin.vm.feature.Set", "work", "internal", b"1")
    mould = await instance.disposables("mould")
    parameters = b"name=far label=red"
    await instance.ok("admin.vm.Create.RemoteVM", "dom0", "", parameters)
    await instance.ok("admin.vm.property.Set", "far", "relayvm", b"work")
    await instance.ok("admin.vm.property.Set", "far", "transport_rpc", b"qubes.Ssh")
    answer = await instance.ask("internal.GetSystemInfo", over=INTERNAL)
    assert isinstance(answer, bytes)
    domains = json.loads(answer)["domains"]
    assert set(domains) == {"dom0", TEMPLATE, "work", "mould", "far"}
    assert domains["work"] == {
        "internal": "1",
        "tags": ["audiovm-dom0", "created-by-dom0", "guivm-dom0", "mine"],
        "type": "AppVM",
        "template_for_dispvms": False,
        "default_dispvm": "mould",
        "guivm": "dom0",
        "relayvm": None,
        "transport_rpc": None,
        "icon": "appvm-blue",
        "label": "0x3465a4",
        "power_state": "Halted",
        "uuid": str(instance.system.named("work").uuid),
    }
    assert domains["mould"]["template_for_dispvms"] is True
    assert domains["mould"]["uuid"] == str(mould.uuid)
    assert domains["dom0"]["type"] == "AdminVM"
    assert domains["dom0"]["guivm"] is None
    assert domains["far"]["relayvm"] == "work"
    assert domains["far"]["transport_rpc"] == "qubes.Ssh"
    assert domains["far"]["power_state"] == "Running"
