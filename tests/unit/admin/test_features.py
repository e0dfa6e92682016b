"""Features, tags and labels over the Admin API (admin-api.md sections 4.4, 4.5 and 7)."""

import pytest

from tests.serving import TEMPLATE, Instance

NOTHING = None
VALUE, MISSING = "QubesValueError", "QubesFeatureNotFoundError"


async def _set(instance: Instance, qube: str, name: str, value: str) -> None:
    await instance.ok("admin.vm.feature.Set", qube, name, value.encode())


async def test_features_are_set_listed_and_removed(instance: Instance) -> None:
    await _set(instance, "work", "a.b-c_1", " ~printable~ ")
    await _set(instance, "work", "empty", "")
    listed = await instance.ok("admin.vm.feature.List", "work")
    assert sorted(listed.splitlines()) == ["a.b-c_1", "empty"]
    assert await instance.ok("admin.vm.feature.Get", "work", "a.b-c_1") == " ~printable~ "
    assert await instance.ok("admin.vm.feature.Get", "work", "empty") == ""
    await instance.ok("admin.vm.feature.Remove", "work", "empty")
    assert await instance.refused("admin.vm.feature.Get", "work", "empty") == MISSING
    assert await instance.refused("admin.vm.feature.Remove", "work", "empty") == MISSING


async def test_a_search_stops_at_the_first_that_has_it_be_it_empty(instance: Instance) -> None:
    await instance.disposables("mould")
    made = await instance.ok("admin.vm.CreateDisposable")
    await instance.qube("net", provides_network=True)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"net")
    await _set(instance, TEMPLATE, "t", "template")
    await _set(instance, "net", "n", "net")
    await _set(instance, "dom0", "d", "dom0")
    check = "admin.vm.feature.Check"
    assert await instance.ok(f"{check}WithTemplate", made, "t") == "template"
    assert await instance.ok(f"{check}WithNetvm", "work", "n") == "net"
    assert await instance.ok(f"{check}WithAdminVM", "work", "d") == "dom0"
    assert await instance.ok(f"{check}WithTemplateAndAdminVM", made, "d") == "dom0"
    assert await instance.ok(f"{check}WithTemplateAndAdminVM", made, "t") == "template"
    for name, method in (("t", "WithTemplate"), ("n", "WithNetvm"), ("d", "WithAdminVM")):
        await _set(instance, "work", name, "")
        assert await instance.ok(f"{check}{method}", "work", name) == ""
        assert await instance.refused(f"{check}{method}", "work", "nowhere") == MISSING
        assert await instance.refused(f"{check}{method}", "dom0", "nowhere") == MISSING


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("", b"", VALUE),
        ("a/b", b"", VALUE),
        ("x", b"\n", VALUE),
        ("x", b"\x7f", VALUE),
        ("x", b"\xc3\xa9", NOTHING),
        ("service.", b"1", VALUE),
        ("service..", b"1", VALUE),
        ("service." + "x" * 49, b"1", VALUE),
        ("vm-config.1", b"1", VALUE),
        ("vm-config." + "x" * 53, b"1", VALUE),
        ("vm-config.", b"1", VALUE),
        ("custom-persist.x", b"relative", VALUE),
        ("custom-persist." + "x" * 55, b"/x", VALUE),
        ("custom-persist.x", b"dir:user:user:999:/x", VALUE),
        ("preload-dispvm-max", b"x", VALUE),
        ("preload-dispvm-delay", b"x", VALUE),
        ("preload-dispvm-threshold", b"x", VALUE),
        ("preload-dispvm", b"1", NOTHING),
        ("preload-dispvm-completed", b"1", NOTHING),
        ("preload-dispvm-in-progress", b"1", NOTHING),
        ("deferred-netvm-original", b"1", NOTHING),
        ("deferred-netvm-original", b"\n", VALUE),
        ("preload-dispvm-delay", b"nan", VALUE),
    ],
)
async def test_features_that_are_refused(
    instance: Instance, name: str, value: bytes, kind: str | None
) -> None:
    before = dict(instance.system.named("work").features)
    assert await instance.refused("admin.vm.feature.Set", "work", name, value) == kind
    assert instance.system.named("work").features == before
    assert instance.told == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", "1"),
        ("service." + "x" * 48, "1"),
        ("service.app-dispvm." + "x" * 60, "1"),
        ("vm-config." + "x" * 52, ""),
        ("custom-persist.x", "/var/x"),
        ("custom-persist.x", "dir:user:user:0755:/var/x"),
        ("preload-dispvm-delay", "-1.5"),
        ("preload-dispvm-delay", "1e1"),
        ("preload-dispvm-threshold", "500"),
        ("x-mine", "0"),
    ],
)
async def test_features_that_are_accepted(instance: Instance, name: str, value: str) -> None:
    await _set(instance, "work", name, value)
    assert await instance.ok("admin.vm.feature.Get", "work", name) == value


async def test_preloading_needs_qubes_that_say_when_they_are_up(instance: Instance) -> None:
    await instance.disposables("mould")
    await _set(instance, TEMPLATE, "supported-rpc.qubes.WaitForRunningSystem", "")
    limit = ("admin.vm.feature.Set", "work", "preload-dispvm-max", b"2")
    assert await instance.refused(*limit) == VALUE
    found = await instance.refused("admin.vm.CreateDisposable", "mould", "preload")
    assert found == VALUE
    await _set(instance, TEMPLATE, "supported-rpc.qubes.WaitForRunningSystem", "1")
    await _set(instance, "work", "preload-dispvm-max", "2")


async def test_the_memory_service_is_a_property(instance: Instance) -> None:
    work = instance.system.named("work")
    await _set(instance, "work", "service.meminfo-writer", "")
    assert work.properties["maxmem"] == 0
    assert work.features == {}
    await _set(instance, "work", "service.meminfo-writer", "1")
    assert "maxmem" not in work.properties
    assert work.features == {}


async def test_managed_features_are_not_removed_either(instance: Instance) -> None:
    instance.system.named("work").features["preload-dispvm"] = "disp1"
    assert await instance.refused("admin.vm.feature.Remove", "work", "preload-dispvm") is NOTHING


async def test_tags_are_set_listed_and_removed(instance: Instance) -> None:
    listed = "audiovm-dom0\ncreated-by-dom0\nguivm-dom0\n"
    assert await instance.ok("admin.vm.tag.List", "work") == listed
    assert await instance.ok("admin.vm.tag.Get", "work", "mine") == "0"
    assert await instance.ok("admin.vm.tag.Set", "work", "mine") == ""
    assert await instance.ok("admin.vm.tag.Get", "work", "mine") == "1"
    assert await instance.ok("admin.vm.tag.List", "work") == listed + "mine\n"
    assert await instance.ok("admin.vm.tag.Remove", "work", "mine") == ""
    assert await instance.refused("admin.vm.tag.Remove", "work", "mine") == "QubesTagNotFoundError"
    for method in ("Get", "Set", "Remove"):
        assert await instance.refused(f"admin.vm.tag.{method}", "work", "a.b") is NOTHING


async def test_labels(instance: Instance) -> None:
    assert await instance.ok("admin.label.List") == (
        "red\norange\nyellow\ngreen\ngray\nblue\npurple\nblack\n"
    )
    assert await instance.ok("admin.label.Get", "dom0", "green") == "0x73d216"
    assert await instance.ok("admin.label.Get", "dom0", "4") == "0x73d216"
    assert await instance.ok("admin.label.Index", "dom0", "purple") == "7"
    assert await instance.raw(b"admin.label.Get+pink dom0 name dom0\0") == (
        b"2\0QubesValueError\0\0\0"
    )
    for method in ("List", "Get", "Index"):
        assert await instance.refused(f"admin.label.{method}", "work") is NOTHING


async def test_volumes_are_listed(instance: Instance) -> None:
    assert await instance.ok("admin.vm.volume.List", "work") == "root\nprivate\nvolatile\nkernel\n"
    assert await instance.ok("admin.vm.volume.List", "dom0") == ""
    assert await instance.ok("admin.vm.volume.ListSnapshots", "work", "private") == ""
    for qube, volume in (("work", "other"), ("work", ""), ("dom0", "root"), ("dom0", "kernel")):
        for method in ("Info", "ListSnapshots"):
            found = await instance.refused(f"admin.vm.volume.{method}", qube, volume)
            assert found is NOTHING


INFO = (
    "pool={pool}\nvid={vid}\nsize={size}\nusage={usage}\nrw={rw}\nsource={source}\npath=\n"
    "save_on_stop={save}\nsnap_on_start={snap}\nrevisions_to_keep={keep}\nephemeral={ephemeral}\n"
    "is_outdated=False\n"
)


@pytest.mark.parametrize(
    ("qube", "volume", "expected"),
    [
        (
            *("work", "root"),
            {
                "vid": "appvms/work/root",
                "source": f"vm-templates/{TEMPLATE}/root",
                "snap": True,
                "size": 10 << 30,
            },
        ),
        ("work", "private", {"vid": "appvms/work/private", "save": True, "size": 2 << 30}),
        ("work", "volatile", {"vid": "appvms/work/volatile", "size": 10 << 30, "ephemeral": True}),
        (
            *("work", "kernel"),
            {
                "pool": "linux-kernel",
                "vid": f"{TEMPLATE}-0123456789ab",
                "size": 13,
                "usage": 13,
                "rw": False,
                "keep": 0,
            },
        ),
        (
            *(TEMPLATE, "private"),
            {"vid": f"vm-templates/{TEMPLATE}/private", "save": True, "size": 2 << 30},
        ),
        (
            *("named", "private"),
            {
                "vid": "appvms/named/private",
                "source": "appvms/mould/private",
                "snap": True,
                "size": 2 << 30,
            },
        ),
        (
            "named",
            "volatile",
            {"vid": "appvms/named/volatile", "size": 12 << 30, "ephemeral": True},
        ),
    ],
)
async def test_what_volumes_are(
    instance: Instance, qube: str, volume: str, expected: dict[str, object]
) -> None:
    await instance.disposables("mould")
    await instance.ok("admin.vm.Create.DispVM", "dom0", "mould", b"name=named label=red")
    usual = {
        "pool": "varlibqubes",
        "usage": 0,
        "rw": True,
        "source": "",
        "save": False,
        "snap": False,
        "keep": 1,
        "ephemeral": False,
    }
    found = await instance.ok("admin.vm.volume.Info", qube, volume)
    assert found == INFO.format(**(usual | expected))


async def test_revisions_are_counted_and_listed_oldest_first(instance: Instance) -> None:
    keep = "admin.vm.volume.Set.revisions_to_keep"
    await instance.ok(keep, "work", "private", b"2")
    for listed in ("1\n", "1\n2\n", "2\n3\n"):
        await instance.ok("admin.vm.Start", "work")
        await instance.ok("admin.vm.Kill", "work")
        found = await instance.ok("admin.vm.volume.ListSnapshots", "work", "private")
        assert found == listed
    assert await instance.ok("admin.vm.volume.ListSnapshots", "work", "kernel") == ""
    found = await instance.ok("admin.vm.volume.Info", "work", "private")
    assert "\nusage=0\n" not in found
