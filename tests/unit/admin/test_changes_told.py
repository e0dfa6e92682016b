"""Which events tell of which change, in which order and with which arguments (section 5)."""

from insula.protocol.admin import Event
from tests.serving import TEMPLATE, Instance


def _set(subject: str, name: str, new: str, old: str | None) -> list[Event]:
    fields = {"name": name, "newvalue": new} | ({} if old is None else {"oldvalue": old})
    return [Event(subject, f"property-{kind}:{name}", fields) for kind in ("pre-set", "set")]


def _reset(subject: str, name: str, old: str | None) -> list[Event]:
    fields = {"name": name} | ({} if old is None else {"oldvalue": old})
    return [
        Event(subject, f"property-{kind}:{name}", fields)
        for kind in ("pre-reset", "pre-del", "reset", "del")
    ]


def _derived(subject: str, name: str, **fields: str) -> Event:
    return Event(subject, f"property-reset:{name}", {"name": name, **fields})


async def _change(instance: Instance, qube: str, name: str, value: str) -> list[Event]:
    with instance.listening() as told:
        await instance.ok("admin.vm.property.Set", qube, name, value.encode())
    return told


async def test_a_set_property_is_told_with_both_values(instance: Instance) -> None:
    assert await _change(instance, "work", "debug", "yes") == _set("work", "debug", "True", "False")
    assert await _change(instance, "work", "debug", "no") == _set("work", "debug", "False", "True")


async def test_none_is_a_value_and_unset_is_not(instance: Instance) -> None:
    told = await _change(instance, "work", "default_dispvm", "work")
    assert told == _set("work", "default_dispvm", "work", "None")
    told = await _change(instance, "work", "default_dispvm", "")
    assert told == _set("work", "default_dispvm", "None", "work")
    told = await _change(instance, "work", "stubdom_mem", "5")
    assert told == _set("work", "stubdom_mem", "5", None)


async def test_a_reset_is_told_four_times(instance: Instance) -> None:
    await _change(instance, "work", "debug", "yes")
    with instance.listening() as told:
        await instance.ok("admin.vm.property.Reset", "work", "debug")
    assert told == _reset("work", "debug", "True")


async def test_a_reset_of_what_was_not_set_is_told_as_well(instance: Instance) -> None:
    with instance.listening() as told:
        await instance.ok("admin.vm.property.Reset", "work", "debug")
        await instance.ok("admin.vm.property.Reset", "work", "stubdom_mem")
    assert told == [*_reset("work", "debug", "False"), *_reset("work", "stubdom_mem", None)]


async def test_icons_follow_labels_and_kinds(instance: Instance) -> None:
    told = await _change(instance, "work", "label", "red")
    assert told == [*_set("work", "label", "red", "blue"), _derived("work", "icon")]
    told = await _change(instance, "work", "template_for_dispvms", "True")
    assert told == [
        *_set("work", "template_for_dispvms", "True", "False"),
        _derived("work", "icon"),
    ]


async def test_a_provider_is_a_service_qube(instance: Instance) -> None:
    told = await _change(instance, "work", "provides_network", "True")
    feature = {"feature": "servicevm", "value": "1"}
    assert told == [
        *_set("work", "provides_network", "True", "False"),
        _derived("work", "gateway"),
        _derived("work", "gateway6"),
        Event("work", "domain-feature-pre-set:servicevm", feature),
        Event("work", "domain-feature-set:servicevm", feature),
        _derived("work", "icon"),
    ]
    told = await _change(instance, "work", "provides_network", "False")
    assert [one.name for one in told][-3:] == [
        *("domain-feature-pre-delete:servicevm", "domain-feature-delete:servicevm"),
        "property-reset:icon",
    ]


async def test_children_of_a_template_hear_of_what_they_inherit(instance: Instance) -> None:
    await instance.qube("other")
    await instance.ok("admin.vm.property.Set", "other", "memory", b"900")
    told = await _change(instance, TEMPLATE, "memory", "700")
    assert told == [*_set(TEMPLATE, "memory", "700", "400"), _derived("work", "memory")]
    with instance.listening() as told:
        await instance.ok("admin.vm.property.Reset", TEMPLATE, "memory")
    assert told == [*_reset(TEMPLATE, "memory", "700"), _derived("work", "memory")]


async def test_tags_follow_gui_and_audio_qubes(instance: Instance) -> None:
    told = await _change(instance, "work", "guivm", TEMPLATE)
    assert told == [
        *_set("work", "guivm", TEMPLATE, "dom0"),
        Event("work", "domain-tag-delete:guivm-dom0", {"tag": "guivm-dom0"}),
        Event("work", f"domain-tag-add:guivm-{TEMPLATE}", {"tag": f"guivm-{TEMPLATE}"}),
    ]
    told = await _change(instance, "work", "audiovm", "")
    assert told == [
        *_set("work", "audiovm", "None", "dom0"),
        Event("work", "domain-tag-delete:audiovm-dom0", {"tag": "audiovm-dom0"}),
    ]


async def test_a_default_gui_qube_is_everybodys(instance: Instance) -> None:
    await instance.qube("other")
    await _change(instance, "other", "guivm", "")
    with instance.listening() as told:
        await instance.ok("admin.property.Set", "dom0", "default_guivm", b"other")
    fields = {"name": "guivm", "newvalue": "other", "oldvalue": "dom0"}
    assert told == [
        *_set("", "default_guivm", "other", "dom0"),
        *(
            one
            for name in (TEMPLATE, "work")
            for one in (
                Event(name, "property-set:guivm", fields),
                Event(name, "domain-tag-delete:guivm-dom0", {"tag": "guivm-dom0"}),
                Event(name, "domain-tag-add:guivm-other", {"tag": "guivm-other"}),
            )
        ),
    ]
    assert "guivm-other" in instance.system.named("work").tags
    stored = {qube.name: qube for qube in instance.world.store.load().qubes}
    assert "guivm-other" in stored["work"].tags


async def test_a_default_network_is_told_to_all_who_use_it(instance: Instance) -> None:
    await instance.qube("net", provides_network=True, netvm="")
    with instance.listening() as told:
        await instance.ok("admin.property.Set", "dom0", "default_netvm", b"net")
    pre = {"name": "netvm", "newvalue": "net", "oldvalue": "None"}
    assert told == [
        *_set("", "default_netvm", "net", "None"),
        Event("work", "property-pre-set:netvm", pre),
        _derived("work", "netvm", oldvalue="None"),
        *(
            _derived("work", name)
            for name in (
                *("visible_ip", "visible_ip6", "visible_gateway", "visible_gateway6"),
                *("gateway", "gateway6"),
            )
        ),
    ]


async def test_a_default_disposable_template_is_told_to_all_who_use_it(instance: Instance) -> None:
    with instance.listening() as told:
        await instance.ok("admin.property.Set", "dom0", "default_dispvm", b"work")
    assert told == [
        *_set("", "default_dispvm", "work", "None"),
        *(_derived(name, "default_dispvm", oldvalue="None") for name in ("dom0", TEMPLATE, "work")),
    ]


async def test_a_keyboard_layout_is_that_of_who_shows_the_windows(instance: Instance) -> None:
    told = await _change(instance, "dom0", "keyboard_layout", "de++")
    assert told == [
        *_set("dom0", "keyboard_layout", "de++", "us++"),
        *(_derived(name, "keyboard_layout", oldvalue="us++") for name in (TEMPLATE, "work")),
    ]
    assert await instance.ok("admin.vm.property.Get", "work", "keyboard_layout") == (
        "default=True type=str de++"
    )
    assert await instance.ok("admin.vm.property.GetDefault", "dom0", "keyboard_layout") == (
        "type=str us++"
    )
    told = await _change(instance, "work", "guivm", "")
    assert told[-1] == _derived("work", "keyboard_layout", oldvalue="de++")


async def test_the_clock_moves_with_its_qube(instance: Instance) -> None:
    await instance.qube("other")
    await instance.ok("admin.property.Set", "dom0", "clockvm", b"work")
    assert instance.system.named("work").features == {"service.clocksync": "1"}
    await instance.ok("admin.property.Set", "dom0", "clockvm", b"other")
    assert instance.system.named("work").features == {}
    assert instance.system.named("other").features == {"service.clocksync": "1"}
    await instance.ok("admin.property.Reset", "dom0", "clockvm")
    assert instance.system.named("other").features == {}


async def test_features_are_told_of(instance: Instance) -> None:
    with instance.listening() as told:
        await instance.ok("admin.vm.feature.Set", "work", "x", b"1")
        await instance.ok("admin.vm.feature.Set", "work", "x", b"")
        await instance.ok("admin.vm.feature.Remove", "work", "x")
    first = {"feature": "x", "value": "1"}
    second = {"feature": "x", "value": "", "oldvalue": "1"}
    assert told == [
        Event("work", "domain-feature-pre-set:x", first),
        Event("work", "domain-feature-set:x", first),
        Event("work", "domain-feature-pre-set:x", second),
        Event("work", "domain-feature-set:x", second),
        Event("work", "domain-feature-pre-delete:x", {"feature": "x"}),
        Event("work", "domain-feature-delete:x", {"feature": "x"}),
    ]


async def test_icons_and_boot_modes_follow_features(instance: Instance) -> None:
    with instance.listening() as told:
        await instance.ok("admin.vm.feature.Set", "work", "servicevm", b"1")
        await instance.ok("admin.vm.feature.Set", "work", "boot-mode.active", b"default")
        await instance.ok("admin.vm.feature.Set", TEMPLATE, "boot-mode.appvm-default", b"x")
    derived = [one for one in told if one.name.startswith("property-reset")]
    assert derived == [
        _derived("work", "icon"),
        _derived("work", "bootmode"),
        _derived(TEMPLATE, "appvm_default_bootmode"),
        _derived("work", "bootmode"),
    ]


async def test_tags_are_told_of_when_they_change(instance: Instance) -> None:
    with instance.listening() as told:
        for method in ("Set", "Set", "Remove"):
            await instance.ok(f"admin.vm.tag.{method}", "work", "mine")
    assert told == [
        Event("work", "domain-tag-add:mine", {"tag": "mine"}),
        Event("work", "domain-tag-delete:mine", {"tag": "mine"}),
    ]
