"""What a starting qube is told of itself (in-qube.md section 1.3)."""

import base64
import hashlib

import pytest

from insula.daemon.lifecycle import autostart
from insula.daemon.lifecycle.planning import order_of
from insula.daemon.lifecycle.qubesdb import entries
from insula.daemon.model.qube import PowerState, Qube
from tests.serving import TEMPLATE, Instance


async def _told(instance: Instance, name: str) -> dict[str, str]:
    return entries(instance.system, instance.system.named(name))


async def test_a_qube_is_told_who_it_is(instance: Instance, work: Qube) -> None:
    told = await _told(instance, work.name)
    seed = base64.b64decode(told.pop("/qubes-random-seed"))
    assert len(seed) == 64
    told.pop("/qubes-timezone", None)
    assert told == {
        "/name": "work",
        "/type": "AppVM",
        "/qubes-vm-type": "AppVM",
        "/default-user": "user",
        "/qubes-vm-updateable": "False",
        "/qubes-vm-persistence": "rw-only",
        "/qubes-debug-mode": "0",
        "/qubes-base-template": TEMPLATE,
        "/keyboard-layout": "us++",
        "/qubes-service/meminfo-writer": "1",
        "/qubes-gui-enabled": "True",
        "/qubes-gui-domain-xid": "0",
        "/qubes-audio-domain-xid": "0",
        "/qubes-block-devices": "",
        "/qubes-usb-devices": "",
        "/qubes-iptables-error": "",
    }


async def test_seeds_differ(instance: Instance, work: Qube) -> None:
    first, second = await _told(instance, "work"), await _told(instance, work.name)
    assert first["/qubes-random-seed"] != second["/qubes-random-seed"]


async def test_classes_and_roles(instance: Instance) -> None:
    await instance.disposables("mould")
    disposable = await instance.ok("admin.vm.CreateDisposable")
    await instance.qube("net", provides_network=True)
    await instance.qube("proxy", provides_network=True, netvm="net")
    roles = {}
    for name in (TEMPLATE, disposable, "net", "proxy"):
        told = await _told(instance, name)
        roles[name] = (told["/qubes-vm-type"], told["/qubes-vm-persistence"])
    assert roles == {
        TEMPLATE: ("TemplateVM", "full"),
        disposable: ("AppVM", "none"),
        "net": ("NetVM", "rw-only"),
        "proxy": ("ProxyVM", "rw-only"),
    }


async def test_a_networked_qube_is_told_its_addresses(instance: Instance, work: Qube) -> None:
    net = await instance.qube("net", provides_network=True)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"net")
    told = await _told(instance, "work")
    assert {key: told[key] for key in told if key.startswith(("/qubes-ip", "/qubes-mac"))} == {
        "/qubes-ip": f"10.137.0.{work.qid}",
        "/qubes-mac": "00:16:3e:5e:6c:00",
        "/qubes-iptables-error": "",
    }
    assert told["/qubes-gateway"] == f"10.137.0.{net.qid}"
    assert told["/qubes-netmask"] == "255.255.255.255"
    assert (told["/qubes-primary-dns"], told["/qubes-secondary-dns"]) == (
        *("10.139.1.1", "10.139.1.2"),
    )


async def test_features_become_keys(instance: Instance, work: Qube) -> None:
    work.features |= {
        "service.cups": "1",
        "service.off": "",
        "service." + "x" * 49: "1",
        "check-updates": "",
        "vm-config.some": "value",
        "custom-persist.some": "/some",
        "service.guivm": "1",
        "gui-videoram-min": "5",
        "anon-timezone": "1",
    }
    instance.system.dom0.features["gui-videoram-overhead"] = "7"
    work.properties |= {"maxmem": 0, "debug": True}
    told = await _told(instance, "work")
    assert {key: value for key, value in told.items() if "service" in key} == {
        "/qubes-service/meminfo-writer": "0",
        "/qubes-service/cups": "1",
        "/qubes-service/off": "0",
        "/qubes-service/guivm": "1",
        "/qubes-service/qubes-update-check": "0",
    }
    assert told["/vm-config/some"] == "value"
    assert told["/persist/some"] == "/some"
    assert told["/guivm-windows-prefix"] == "GuiVM"
    assert told["/qubes-gui-videoram-min"] == "5"
    assert told["/qubes-gui-videoram-overhead"] == "7"
    assert told["/qubes-debug-mode"] == "1"
    assert "/qubes-timezone" not in told


async def test_applications_with_long_names_are_told_by_their_hash(
    instance: Instance, work: Qube
) -> None:
    short, long = "x" * 37, "org.example." + "x" * 30
    work.features |= {f"service.app-dispvm.{name}": "1" for name in (short, long)}
    work.features[f"service.app-dispvm.{long}y"] = ""
    told = await _told(instance, "work")
    digest = hashlib.sha256(long.encode()).digest()
    key = base64.b64encode(digest, altchars=b"-_").decode().removesuffix("=")
    assert {name: value for name, value in told.items() if "app-dispvm" in name} == {
        f"/qubes-service/app-dispvm.{short}": "1",
        f"/hash-app-dispvm/{key}": long,
    }


async def test_a_qube_that_shows_its_own_windows_has_no_keyboard_of_others(
    instance: Instance, work: Qube
) -> None:
    other = await instance.qube("other")
    other.xid = 7
    work.properties["guivm"] = other.uuid
    told = await _told(instance, "work")
    assert told["/qubes-gui-domain-xid"] == "7"
    work.properties |= {"guivm": work.uuid, "audiovm": None}
    told = await _told(instance, "work")
    assert "/keyboard-layout" not in told
    assert "/qubes-audio-domain-xid" not in told
    work.properties["guivm"] = None
    told = await _told(instance, "work")
    assert told["/qubes-gui-enabled"] == "False"
    assert "/qubes-gui-domain-xid" not in told


async def test_boot_modes_choose_options_and_users(instance: Instance, work: Qube) -> None:
    template = instance.system.named(TEMPLATE)
    template.features |= {
        "boot-mode.kernelopts.safe": "single",
        "boot-mode.default-user.safe": "rescue",
    }
    await instance.world.agent.ready()
    before = order_of(instance.world, work, None).kernel.options
    work.features["boot-mode.active"] = "safe"
    work.properties["kernelopts"] = "mine"
    assert order_of(instance.world, work, None).kernel.options == f"{before} mine single"
    assert (await _told(instance, "work"))["/default-user"] == "rescue"


async def test_qubes_start_with_the_instance_once(
    instance: Instance, work: Qube, caplog: pytest.LogCaptureFixture
) -> None:
    await instance.qube("broken", autostart=True, kernel="")
    last = await instance.qube("x", autostart=True)
    await autostart.start_all(instance.world, instance.power, "first")
    assert last.power is PowerState.RUNNING
    assert work.halted
    assert "qube not started" in caplog.text
    await instance.power.kill(last)
    await autostart.start_all(instance.world, instance.power, "first")
    assert last.halted
    await autostart.start_all(instance.world, instance.power, "second")
    assert not last.halted
