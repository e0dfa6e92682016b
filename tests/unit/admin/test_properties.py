"""Properties over the Admin API (admin-api.md sections 3.1, 3.2, 4.3 and 6)."""

from pathlib import Path

import pytest

from insula.daemon.model.qube import QubeClass
from insula.protocol.admin import parse_property_lines
from tests.serving import TEMPLATE, Instance

IDENTITY = {"name", "qid", "uuid", "label", "klass", "icon"}
ADMIN = IDENTITY | {
    *("default_dispvm", "include_in_backups", "updateable", "devices_denied", "keyboard_layout")
}
COMMON = ADMIN | {
    *("audiovm", "autostart", "backup_timestamp", "bootmode", "debug", "default_user", "dns"),
    *("gateway", "gateway6", "guivm", "installed_by_rpm", "ip", "ip6", "kernel", "kernelopts"),
    *("mac", "management_dispvm", "maxmem", "memory", "netvm", "provides_network"),
    *("qrexec_timeout", "shutdown_timeout", "start_time", "stubdom_mem", "stubdom_uuid"),
    *("stubdom_xid", "vcpus", "virt_mode", "visible_ip", "visible_gateway", "visible_netmask"),
    *("visible_ip6", "visible_gateway6", "xid", "start_mode"),
}
SYSTEM = {
    *("check_updates_vm", "clockvm", "default_audiovm", "default_guivm", "default_dispvm"),
    *("management_dispvm", "default_kernel", "default_netvm", "default_pool"),
    *("default_pool_root", "default_pool_private", "default_pool_volatile"),
    *("default_pool_kernel", "default_qrexec_timeout", "default_shutdown_timeout"),
    *("default_template", "stats_interval", "updatevm"),
}


async def test_every_class_has_its_properties(instance: Instance) -> None:
    await instance.disposables("mould")
    await instance.ok("admin.vm.Create.DispVM", "dom0", "mould", b"name=named label=red")
    for name, expected in (
        ("dom0", ADMIN),
        ("work", COMMON | {"template", "template_for_dispvms"}),
        (TEMPLATE, COMMON | {"appvm_default_bootmode"}),
        ("named", COMMON | {"template", "dispid", "auto_cleanup", "is_preload"}),
    ):
        listed = (await instance.ok("admin.vm.property.List", name)).splitlines()
        assert len(listed) == len(expected)
        assert set(listed) == expected
    assert set((await instance.ok("admin.property.List")).splitlines()) == SYSTEM


async def test_listings_go_by_stage_and_then_by_name(instance: Instance) -> None:
    listed = (await instance.ok("admin.vm.property.List", "work")).splitlines()
    last = listed.index("audiovm")
    assert listed[last:] == sorted(listed[last:])
    assert set(listed[last:]) == {
        *("audiovm", "bootmode", "default_dispvm", "guivm", "kernelopts", "management_dispvm"),
        *("netvm", "template"),
    }
    answers = await instance.ok("admin.vm.property.GetAll", "work")
    assert [line.split(" ")[0] for line in answers.splitlines()] == listed
    system = (await instance.ok("admin.property.List")).splitlines()
    assert system == sorted(system)


async def test_all_at_once_says_what_each_alone_says(instance: Instance) -> None:
    await instance.ok("admin.vm.property.Set", "work", "kernelopts", b"a\\b\nc\\n")
    for prefix, name in (("admin.vm", "work"), ("admin.vm", "dom0"), ("admin", "dom0")):
        answers = parse_property_lines(await instance.ok(f"{prefix}.property.GetAll", name))
        for prop, answer in answers.items():
            one = await instance.ok(f"{prefix}.property.Get", name, prop)
            assert one == f"default={answer.is_default} type={answer.type} {answer.value}"
    line = [
        one
        for one in (await instance.ok("admin.vm.property.GetAll", "work")).splitlines()
        if one.startswith("kernelopts ")
    ]
    assert line == ["kernelopts default=False type=str a\\\\b\\nc\\\\n"]


@pytest.mark.parametrize(
    ("qube", "name", "answer", "default"),
    [
        ("work", "name", "default=False type=str work", ""),
        ("work", "qid", "default=False type=int 2", ""),
        ("work", "label", "default=False type=label blue", ""),
        ("work", "klass", "default=True type=str AppVM", "type=str AppVM"),
        ("work", "icon", "default=True type=str appvm-blue", "type=str appvm-blue"),
        ("work", "template", f"default=False type=vm {TEMPLATE}", ""),
        ("work", "netvm", "default=True type=vm ", "type=vm "),
        ("work", "guivm", "default=True type=vm dom0", "type=vm dom0"),
        ("work", "audiovm", "default=True type=vm dom0", "type=vm dom0"),
        ("work", "memory", "default=True type=int 400", "type=int 400"),
        ("work", "maxmem", "default=True type=int 4000", "type=int 4000"),
        ("work", "vcpus", "default=True type=int 2", "type=int 2"),
        ("work", "virt_mode", "default=True type=str pvh", "type=str pvh"),
        ("work", "xid", "default=True type=int -1", "type=int -1"),
        ("work", "stubdom_xid", "default=True type=int -1", "type=int -1"),
        ("work", "stubdom_mem", "default=True type=int ", ""),
        ("work", "backup_timestamp", "default=True type=int ", ""),
        ("work", "start_time", "default=True type=str ", "type=str "),
        ("work", "updateable", "default=True type=bool False", "type=bool False"),
        (TEMPLATE, "updateable", "default=True type=bool True", "type=bool True"),
        (TEMPLATE, "icon", "default=True type=str templatevm-black", "type=str templatevm-black"),
        ("work", "mac", "default=True type=str 00:16:3e:5e:6c:00", "type=str 00:16:3e:5e:6c:00"),
        ("work", "keyboard_layout", "default=True type=str us++", "type=str us++"),
        ("work", "include_in_backups", "default=True type=bool True", "type=bool True"),
        ("work", "default_user", "default=True type=str user", "type=str user"),
        ("work", "qrexec_timeout", "default=True type=int 60", "type=int 60"),
        ("work", "dns", "default=True type=str ", "type=str "),
        ("work", "ip", "default=True type=str ", "type=str "),
        ("work", "devices_denied", "default=True type=str ", "type=str "),
        ("work", "template_for_dispvms", "default=True type=bool False", "type=bool False"),
        ("dom0", "name", "default=True type=str dom0", "type=str dom0"),
        ("dom0", "qid", "default=True type=int 0", "type=int 0"),
        (
            *("dom0", "uuid", "default=True type=str 00000000-0000-0000-0000-000000000000"),
            "type=str 00000000-0000-0000-0000-000000000000",
        ),
        ("dom0", "label", "default=False type=label black", ""),
        ("dom0", "icon", "default=True type=str adminvm-black", "type=str adminvm-black"),
        ("dom0", "default_dispvm", "default=True type=vm ", "type=vm "),
        ("dom0", "updateable", "default=True type=bool True", "type=bool True"),
    ],
)
async def test_values_and_defaults(
    instance: Instance, qube: str, name: str, answer: str, default: str
) -> None:
    assert await instance.ok("admin.vm.property.Get", qube, name) == answer
    assert await instance.ok("admin.vm.property.GetDefault", qube, name) == default


@pytest.mark.parametrize(
    ("name", "answer", "default"),
    [
        ("default_guivm", "default=True type=vm dom0", "type=vm dom0"),
        ("clockvm", "default=True type=vm ", "type=vm "),
        ("default_template", f"default=False type=vm {TEMPLATE}", ""),
        ("default_kernel", f"default=False type=str {TEMPLATE}-0123456789ab", ""),
        ("check_updates_vm", "default=True type=bool True", "type=bool True"),
        ("default_pool", "default=True type=str varlibqubes", "type=str varlibqubes"),
        ("default_pool_root", "default=True type=str varlibqubes", "type=str varlibqubes"),
        ("default_shutdown_timeout", "default=True type=int 60", "type=int 60"),
        ("stats_interval", "default=True type=int 3", "type=int 3"),
    ],
)
async def test_values_and_defaults_of_the_system(
    instance: Instance, name: str, answer: str, default: str
) -> None:
    assert await instance.ok("admin.property.Get", "dom0", name) == answer
    assert await instance.ok("admin.property.GetDefault", "dom0", name) == default


@pytest.mark.parametrize(
    ("qube", "name", "payload", "value"),
    [
        ("work", "autostart", b"On", "True"),
        ("work", "autostart", b"nO", "False"),
        ("work", "memory", b" 1_024 ", "1024"),
        ("work", "memory", b"+500", "500"),
        ("work", "maxmem", b"0", "0"),
        ("work", "vcpus", b"00000000000000000000000000004", "4"),
        ("work", "label", b"red", "red"),
        ("work", "label", b"4", "green"),
        ("work", "label", b"label-6", "blue"),
        ("work", "label", b"04", "green"),
        ("work", "netvm", b"", ""),
        ("work", "guivm", b"", ""),
        ("work", "kernel", b"", ""),
        ("work", "mac", b"00:16:3E:AA:BB:CC", "00:16:3e:aa:bb:cc"),
        ("work", "ip", b"10.1.2.3", "10.1.2.3"),
        ("work", "ip6", b"FD00:0::1", "fd00::1"),
        ("work", "virt_mode", b"HVM", "hvm"),
        ("work", "keyboard_layout", b"de+neo+caps:none,grp:x", "de+neo+caps:none,grp:x"),
        ("work", "default_user", b"", ""),
        ("work", "devices_denied", b"u03****p02****u03****", "p02****u03****"),
        ("work", "kernelopts", b"x" * 512, "x" * 512),
        ("work", "bootmode", b"any thing", "any thing"),
        ("work", "start_mode", b"cold", "cold"),
        ("dom0", "keyboard_layout", b"de++", "de++"),
        ("dom0", "default_dispvm", b"work", "work"),
        ("dom0", "label", b"red", "red"),
    ],
)
async def test_what_can_be_set(
    instance: Instance, qube: str, name: str, payload: bytes, value: str
) -> None:
    assert await instance.ok("admin.vm.property.Set", qube, name, payload) == ""
    kind = (await instance.ok("admin.vm.property.Get", qube, name)).split(" ")[1]
    assert await instance.ok("admin.vm.property.Get", qube, name) == (
        f"default=False {kind} {value}"
    )


VALUE, PROPERTY = "QubesValueError", "QubesPropertyValueError"


@pytest.mark.parametrize(
    ("qube", "name", "payload", "kind"),
    [
        ("work", "nonsense", b"", "QubesNoSuchPropertyError"),
        ("dom0", "netvm", b"", "QubesNoSuchPropertyError"),
        ("work", "is_preload", b"True", "QubesNoSuchPropertyError"),
        # Of the wrong kind, whatever the property.
        ("work", "autostart", b"maybe", VALUE),
        ("work", "autostart", b"", VALUE),
        ("work", "autostart", b"\xc3\xa9", VALUE),
        ("work", "memory", b"much", VALUE),
        ("work", "memory", b"", VALUE),
        ("work", "xid", b"x", VALUE),
        ("work", "qid", b"x", VALUE),
        ("work", "icon", b"\x01", VALUE),
        ("work", "kernelopts", b"\x7f", VALUE),
        ("work", "netvm", b"1st", VALUE),
        ("work", "label", b"pink", "QubesLabelNotFoundError"),
        ("work", "label", b"label-red", "QubesLabelNotFoundError"),
        ("work", "label", b"label-99", "QubesLabelNotFoundError"),
        ("work", "label", b"", "QubesLabelNotFoundError"),
        # Computed, or not to be set again.
        ("work", "xid", b"1", PROPERTY),
        ("work", "icon", b"x", PROPERTY),
        ("work", "klass", b"x", PROPERTY),
        ("work", "updateable", b"True", PROPERTY),
        ("work", "name", b"other", NOTHING := None),
        ("work", "qid", b"5", NOTHING),
        ("work", "uuid", b"x", NOTHING),
        ("dom0", "name", b"other", PROPERTY),
        ("dom0", "qid", b"5", PROPERTY),
        ("dom0", "uuid", b"x", PROPERTY),
        # Not acceptable.
        ("work", "memory", b"0", PROPERTY),
        ("work", "maxmem", b"-1", PROPERTY),
        ("work", "template", b"", PROPERTY),
        ("work", "template", b"nobody", PROPERTY),
        ("work", "template", b"dom0", PROPERTY),
        ("work", "netvm", b"nobody", PROPERTY),
        ("work", "netvm", TEMPLATE.encode(), PROPERTY),
        ("work", "kernel", b"6.66", PROPERTY),
        ("work", "kernelopts", b"x" * 513, PROPERTY),
        ("work", "virt_mode", b"xen", PROPERTY),
        ("work", "default_user", b"a b", PROPERTY),
        ("work", "keyboard_layout", b"us", PROPERTY),
        ("work", "ip", b"10.1.2", VALUE),
        ("work", "ip", b"fd00::1", VALUE),
        ("work", "ip6", b"10.1.2.3", VALUE),
        ("work", "mac", b"00:16", NOTHING),
        ("work", "devices_denied", b"x03****", PROPERTY),
        ("work", "devices_denied", b"u03", PROPERTY),
        ("work", "start_mode", b"warm", PROPERTY),
    ],
)
async def test_what_cannot_be_set(
    instance: Instance, qube: str, name: str, payload: bytes, kind: str | None
) -> None:
    assert await instance.refused("admin.vm.property.Set", qube, name, payload) == kind
    assert instance.told == []


@pytest.mark.parametrize(
    ("name", "payload", "kind"),
    [
        ("nonsense", b"", "QubesNoSuchPropertyError"),
        ("default_netvm", b"work", PROPERTY),
        ("default_template", b"work", PROPERTY),
        ("default_template", b"nobody", PROPERTY),
        ("default_shutdown_timeout", b"1.5", VALUE),
        ("default_kernel", b"6.66", PROPERTY),
        ("default_pool", b"nowhere", PROPERTY),
        ("stats_interval", b"x", VALUE),
        ("check_updates_vm", b"x", VALUE),
    ],
)
async def test_what_of_the_system_cannot_be_set(
    instance: Instance, name: str, payload: bytes, kind: str
) -> None:
    assert await instance.refused("admin.property.Set", "dom0", name, payload) == kind
    assert instance.told == []


@pytest.mark.parametrize(
    "name", ["default_qrexec_timeout", "default_shutdown_timeout", "stats_interval"]
)
async def test_times_of_the_system_are_any_whole_numbers(instance: Instance, name: str) -> None:
    for payload, value in ((b"0", "0"), (b"-1", "-1"), (b" 90", "90"), (b"9" * 400, "9" * 400)):
        await instance.ok("admin.property.Set", "dom0", name, payload)
        assert await instance.ok("admin.property.Get", "dom0", name) == (
            f"default=False type=int {value}"
        )


async def test_there_need_be_no_default_template(instance: Instance) -> None:
    await instance.ok("admin.property.Set", "dom0", "default_template", b"")
    assert await instance.ok("admin.property.Get", "dom0", "default_template") == (
        "default=False type=vm "
    )
    found = await instance.refused("admin.vm.Create.AppVM", "dom0", "", b"name=new label=red")
    assert found == VALUE


async def test_a_pool_named_default_is_the_default_one(instance: Instance, tmp_path: Path) -> None:
    place = str(tmp_path / "place").encode()
    await instance.ok("admin.pool.Add", "dom0", "file", b"name=default\ndir_path=" + place)
    for name in ("default_pool", "default_pool_root", "default_pool_private"):
        assert await instance.ok("admin.property.GetDefault", "dom0", name) == "type=str default"
    assert await instance.refused("admin.pool.Remove", "dom0", "default") == "QubesPoolInUseError"


async def test_kernels_and_their_options_count_from_when_they_are_there(
    instance: Instance,
) -> None:
    place = instance.home / "kernels" / "6.6"
    place.mkdir()
    setting = ("admin.vm.property.Set", "work", "kernel", b"6.6")
    assert await instance.refused(*setting) == PROPERTY
    for part in ("vmlinuz", "initrd"):
        (place / part).write_text(part)
    await instance.ok(*setting)
    await instance.ok("admin.vm.property.Set", TEMPLATE, "kernel", b"6.6")
    for options in ("quiet", "noisy"):
        (place / "default-kernelopts-nopci.txt").write_text(f"{options}\n")
        answer = f"default=True type=str {options}"
        assert await instance.ok("admin.vm.property.Get", "work", "kernelopts") == answer
        answers = await instance.ok("admin.vm.property.GetAll", "work")
        assert f"kernelopts {answer}" in answers.splitlines()


async def test_networks_have_no_loops(instance: Instance) -> None:
    for name in ("one", "two"):
        await instance.qube(name, provides_network=True)
    await instance.ok("admin.vm.property.Set", "two", "netvm", b"one")
    for provider in (b"one", b"two"):
        assert await instance.refused("admin.vm.property.Set", "one", "netvm", provider) == VALUE
    # Through the default: it applies to every qube that sets none, so to the one in question.
    assert await instance.refused("admin.property.Set", "dom0", "default_netvm", b"two") == PROPERTY
    await instance.ok("admin.vm.property.Set", "one", "netvm", b"")
    await instance.ok("admin.property.Set", "dom0", "default_netvm", b"two")
    assert await instance.refused("admin.vm.property.Reset", "one", "netvm") == VALUE


async def test_a_default_network_may_be_named_before_it_is_one(instance: Instance) -> None:
    await instance.qube("later", netvm="")
    await instance.ok("admin.property.Set", "dom0", "default_netvm", b"later")
    assert await instance.ok("admin.vm.property.Get", "work", "netvm") == (
        "default=True type=vm later"
    )
    await instance.ok("admin.vm.property.Set", "later", "provides_network", b"True")
    found = await instance.refused("admin.vm.property.Reset", "later", "netvm")
    assert found == VALUE


async def test_a_provider_is_one_while_it_has_clients(instance: Instance) -> None:
    await instance.qube("one", provides_network=True)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"one")
    for method, payload in (("Set", b"False"), ("Reset", b"")):
        found = await instance.refused(
            f"admin.vm.property.{method}", "one", "provides_network", payload
        )
        assert found == VALUE
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"")
    await instance.ok("admin.vm.property.Set", "one", "provides_network", b"False")


async def test_a_running_qube_gets_no_provider_that_is_halted(instance: Instance) -> None:
    await instance.qube("one", provides_network=True)
    await instance.ok("admin.vm.Start", "work")
    found = await instance.refused("admin.vm.property.Set", "work", "netvm", b"one")
    assert found == "QubesVMNotStartedError"
    await instance.ok("admin.vm.Start", "one")
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"one")


async def test_templates_are_changed_at_rest(instance: Instance) -> None:
    await instance.qube("leaf", QubeClass.TEMPLATE)
    await instance.ok("admin.vm.Start", "work")
    found = await instance.refused("admin.vm.property.Set", "work", "template", b"leaf")
    assert found == "QubesVMNotHaltedError"
    await instance.ok("admin.vm.Kill", "work")
    await instance.ok("admin.vm.property.Set", "work", "template", b"leaf")
    await instance.disposables("mould")
    made = await instance.ok("admin.vm.CreateDisposable")
    await instance.ok("admin.vm.Start", made)
    found = await instance.refused("admin.vm.property.Set", "mould", "template", b"leaf")
    assert found == "QubesVMInUseError"


async def test_a_disposable_template_is_one_while_it_has_disposables(instance: Instance) -> None:
    await instance.disposables("mould")
    made = await instance.ok("admin.vm.CreateDisposable")
    for method, payload in (("Set", b"False"), ("Reset", b"")):
        found = await instance.refused(
            f"admin.vm.property.{method}", "mould", "template_for_dispvms", payload
        )
        assert found == "QubesVMInUseError"
    await instance.ok("admin.vm.Remove", made)
    await instance.ok("admin.vm.property.Set", "mould", "template_for_dispvms", b"False")


async def test_a_reset_brings_the_default_back(instance: Instance) -> None:
    await instance.ok("admin.vm.property.Set", "work", "memory", b"700")
    assert await instance.ok("admin.vm.property.Reset", "work", "memory") == ""
    assert await instance.ok("admin.vm.property.Get", "work", "memory") == (
        "default=True type=int 400"
    )
    await instance.ok("admin.property.Reset", "dom0", "default_template")
    assert await instance.ok("admin.property.Get", "dom0", "default_template") == (
        "default=True type=vm "
    )


@pytest.mark.parametrize(
    ("qube", "name", "kind"),
    [
        ("work", "nonsense", "QubesNoSuchPropertyError"),
        ("work", "template", VALUE),
        ("work", "label", VALUE),
        ("work", "name", NOTHING),
        ("work", "qid", NOTHING),
        ("work", "uuid", NOTHING),
    ],
)
async def test_what_has_no_default_is_not_reset(
    instance: Instance, qube: str, name: str, kind: str | None
) -> None:
    assert await instance.refused("admin.vm.property.Reset", qube, name) == kind
    assert instance.told == []


async def test_a_reset_of_what_is_computed_changes_nothing(instance: Instance) -> None:
    for qube, name in (("work", "xid"), ("work", "klass"), ("dom0", "name")):
        assert await instance.ok("admin.vm.property.Reset", qube, name) == ""
    assert instance.told == []


async def test_every_property_is_explained(instance: Instance) -> None:
    for prefix, qube in (("admin.vm", "work"), ("admin.vm", TEMPLATE), ("admin", "dom0")):
        for name in (await instance.ok(f"{prefix}.property.List", qube)).splitlines():
            text = await instance.ok(f"{prefix}.property.Help", qube, name)
            assert text.endswith(".")
            assert "\n" not in text
    assert await instance.refused("admin.vm.property.Help", "work", "nonsense") == (
        "QubesNoSuchPropertyError"
    )


async def test_the_system_is_asked_through_dom0_alone(instance: Instance) -> None:
    for method in ("List", "Get", "GetAll", "GetDefault", "Help", "Set", "Reset"):
        argument = "" if method in ("List", "GetAll") else "clockvm"
        assert await instance.refused(f"admin.property.{method}", "work", argument) is NOTHING


async def test_nothing_is_kept_of_a_change_that_the_store_refuses(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_connection: object, _changes: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("insula.daemon.store.store._execute", full)
        found = await instance.refused("admin.vm.property.Set", "work", "memory", b"700")
        assert found == "QubesException"
        found = await instance.refused("admin.property.Set", "dom0", "stats_interval", b"7")
        assert found == "QubesException"
    assert instance.told == []
    assert await instance.ok("admin.vm.property.Get", "work", "memory") == (
        "default=True type=int 400"
    )
    assert await instance.ok("admin.property.Get", "dom0", "stats_interval") == (
        "default=True type=int 3"
    )
