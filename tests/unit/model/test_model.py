"""Names, references, addresses and computed defaults (admin-api.md sections 3.4, 6.3 to 6.6)."""

import json
import string
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.model import addresses
from insula.daemon.model.assignments import Assignment
from insula.daemon.model.changes import set_property, users_of
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    LabelNotFoundError,
    PropertyValueError,
    QubeNotFoundError,
    ValueRefusedError,
)
from insula.daemon.model.properties.defaults import given_kernelopts
from insula.daemon.model.properties.definition import Access
from insula.daemon.model.properties.parsing import check_kind
from insula.daemon.model.properties.qubes import BY_CLASS, value_of
from insula.daemon.model.properties.system_wide import GLOBAL
from insula.daemon.model.qube import Qube, QubeClass, Value, check_name
from insula.daemon.model.system import System, new_dom0
from insula.protocol.errors import ReportableError


def _qube(system: System, name: str, klass: QubeClass, **properties: Value) -> Qube:
    qube = Qube(
        uuid=uuid4(),
        qid=system.free_qid(),
        name=name,
        klass=klass,
        label="red",
        properties=properties,
    )
    system.add(qube)
    return qube


@pytest.fixture
def system() -> System:
    made = System(kernels=frozenset(("6.1",)))
    made.add(new_dom0())
    return made


@pytest.fixture
def template(system: System) -> Qube:
    return _qube(system, "tree", QubeClass.TEMPLATE)


@pytest.fixture
def work(system: System, template: Qube) -> Qube:
    return _qube(system, "work", QubeClass.APP, template=template.uuid)


@given(
    name=st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,30}", fullmatch=True).filter(
        lambda name: name not in ("Domain-0", "none", "default") and not name.endswith("-dm")
    )
)
def test_names_of_the_right_form_are_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "1a", "-a", "a b", "a/b", "a\n", "é", "aé", "a" * 32, "none", "default"),
        *("Domain-0", "a-dm", "a\0", "_a", ".a"),
    ],
)
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(ValueRefusedError):
        check_name(name)


def test_qubes_are_found_by_what_names_them(system: System, work: Qube) -> None:
    assert system.named("work") is work
    assert system.find(work.uuid) is work
    system.remove(work)
    with pytest.raises(QubeNotFoundError, match="work"):
        system.named("work")
    assert system.find(work.uuid) is None
    assert system.find(None) is None


def test_labels_are_found_by_name_and_number(system: System) -> None:
    assert {system.label(text).name for text in ("blue", "6", "06")} == {"blue"}
    for text in ("", "9", "label-", "label-blue", "Blue", "-6", " 6"):
        with pytest.raises(LabelNotFoundError) as refusal:
            system.label(text)
        assert "red, orange" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("number", "address"),
    [
        (1, "10.137.0.1"),
        (254, "10.137.0.254"),
        (255, "10.137.1.1"),
        (508, "10.137.1.254"),
        (509, "10.137.2.1"),
        (9999, "10.137.39.93"),
    ],
)
def test_addresses_follow_from_numbers(number: int, address: str) -> None:
    assert addresses.ip(number, disposable=False) == address
    assert addresses.ip(number, disposable=True) == address.replace(".137.", ".138.")


@given(numbers=st.lists(st.integers(1, 9999), min_size=2, max_size=50, unique=True))
def test_no_two_numbers_share_an_address(numbers: list[int]) -> None:
    found = {addresses.ip(one, disposable=False) for one in numbers}
    found |= {addresses.ip6(one, disposable=True) for one in numbers}
    assert len(found) == 2 * len(numbers)


def test_addresses_of_qubes(system: System, template: Qube) -> None:
    net = _qube(system, "net", QubeClass.APP, template=template.uuid, provides_network=True)
    work = _qube(system, "work", QubeClass.APP, template=template.uuid, netvm=net.uuid)
    disposable = _qube(
        system, "disp7", QubeClass.DISPOSABLE, template=work.uuid, dispid=7, netvm=net.uuid
    )

    def values(qube: Qube) -> dict[str, Value]:
        names = ("ip", "ip6", "visible_ip", "visible_gateway", "visible_netmask", "gateway", "dns")
        return {name: value_of(system, qube, name) for name in names}

    assert values(work) == {
        "ip": "10.137.0.3",
        "ip6": None,
        "visible_ip": "10.137.0.3",
        "visible_gateway": "10.137.0.2",
        "visible_netmask": "255.255.255.255",
        "gateway": None,
        "dns": "10.139.1.1 10.139.1.2",
    }
    assert values(net)["gateway"] == values(net)["ip"] == "10.137.0.2"
    assert values(disposable)["ip"] == "10.138.0.7"
    net.features["ipv6"] = "1"
    assert value_of(system, work, "ip6") == "fd09:24ef:4179::a89:3"
    assert value_of(system, disposable, "ip6") == "fd09:24ef:4179::a8a:7"
    assert value_of(system, work, "visible_gateway6") == "fd09:24ef:4179::a89:2"
    work.features["ipv6"] = ""
    assert value_of(system, work, "ip6") is None
    template.features["net.fake-ip"] = "192.168.0.2"
    work.features["net.fake-gateway"] = "192.168.0.1"
    assert value_of(system, work, "visible_ip") == "192.168.0.2"
    assert value_of(system, work, "visible_gateway") == "192.168.0.1"


def test_a_qube_without_network_has_no_address(system: System, work: Qube) -> None:
    for name in ("ip", "ip6", "visible_ip", "gateway", "visible_gateway", "visible_netmask", "dns"):
        assert value_of(system, work, name) is None


def test_values_come_from_the_template_and_its_template(system: System, template: Qube) -> None:
    mould = _qube(system, "mould", QubeClass.APP, template=template.uuid, template_for_dispvms=True)
    disposable = _qube(system, "disp1", QubeClass.DISPOSABLE, template=mould.uuid)
    assert value_of(system, disposable, "memory") == 400
    template.properties["memory"] = 500
    assert value_of(system, disposable, "memory") == 500
    mould.properties["memory"] = 600
    assert value_of(system, disposable, "memory") == 600
    disposable.properties["memory"] = 700
    assert value_of(system, disposable, "memory") == 700
    system.properties["default_kernel"] = "6.1"
    assert value_of(system, disposable, "kernel") == "6.1"
    assert value_of(system, disposable, "default_dispvm") == mould.uuid


def test_how_far_memory_may_grow(system: System, template: Qube, work: Qube) -> None:
    assert value_of(system, work, "maxmem") == 4000
    template.properties["memory"] = 300
    assert value_of(system, work, "maxmem") == 4000
    template.features |= {"os": "Linux", "qrexec": "1"}
    work.properties["memory"] = 1000
    assert value_of(system, work, "maxmem") == 3000  # ten times what the template has
    system.host_memory = 2048
    assert value_of(system, work, "maxmem") == 1024
    work.properties["virt_mode"] = "hvm"
    assert value_of(system, work, "maxmem") == 1024
    work.features["qrexec"] = ""
    assert value_of(system, work, "maxmem") == 0
    del work.features["qrexec"]
    template.features["supported-service.x"] = "1"
    assert value_of(system, work, "maxmem") == 0
    template.features["supported-service.meminfo-writer"] = "1"
    assert value_of(system, work, "maxmem") == 1024


def test_boot_modes(system: System, template: Qube, work: Qube) -> None:
    assert value_of(system, work, "bootmode") == "default"
    template.features["boot-mode.appvm-default"] = "safe"
    assert value_of(system, template, "appvm_default_bootmode") == "safe"
    assert value_of(system, work, "bootmode") == "default"  # There is no such mode.
    template.features["boot-mode.kernelopts.safe"] = "x"
    assert value_of(system, work, "bootmode") == "safe"
    work.features["boot-mode.active"] = "other"
    assert value_of(system, work, "bootmode") == "safe"
    work.features["boot-mode.active"] = "default"
    assert value_of(system, work, "bootmode") == "default"


def test_kernel_options_follow_from_what_boots(system: System, template: Qube, work: Qube) -> None:
    assert value_of(system, work, "kernelopts") == ""
    template.properties["kernel"] = "6.1"
    assert value_of(system, work, "kernelopts") == "swiotlb=2048"
    assert given_kernelopts(system, work) is None
    template.properties["kernelopts"] = ""
    assert value_of(system, work, "kernelopts") == given_kernelopts(system, work) == ""
    work.assignments = (Assignment(devclass="pci", backend=None, port="00_1", mode="required"),)
    template.properties["kernelopts"] = "a=b"
    assert value_of(system, work, "kernelopts") == ""
    system.dom0.features["suspend-s0ix"] = "1"
    assert value_of(system, work, "kernelopts") == " qubes_exp_pm_use_suspend=1"


def test_qubes_are_virtualised_as_their_template_is(
    system: System, template: Qube, work: Qube
) -> None:
    assert value_of(system, work, "virt_mode") == "pvh"
    device = Assignment(devclass="pci", backend=None, port="00_1", mode="required")
    template.assignments = (device,)
    assert value_of(system, work, "virt_mode") == "hvm"
    template.properties["virt_mode"] = "pv"
    assert value_of(system, work, "virt_mode") == "pv"
    work.assignments = (device,)
    assert value_of(system, work, "virt_mode") == "hvm"


def test_a_kernel_can_bring_its_own_options(system: System, template: Qube, work: Qube) -> None:
    system.kernel_options = {("6.1", False): "quiet", ("6.1", True): "swiotlb=8192"}
    template.properties["kernel"] = "6.1"
    assert value_of(system, work, "kernelopts") == given_kernelopts(system, work) == "quiet"
    template.properties["kernelopts"] = "a=b"
    assert value_of(system, work, "kernelopts") == "a=b"
    work.assignments = (Assignment(devclass="pci", backend=None, port="00_1", mode="required"),)
    assert value_of(system, work, "kernelopts") == "swiotlb=8192"
    system.dom0.features["suspend-s0ix"] = "1"
    assert value_of(system, work, "kernelopts") == "swiotlb=8192 qubes_exp_pm_use_suspend=1"


def test_keyboards_follow_chains_of_gui_qubes_and_no_loops(system: System, work: Qube) -> None:
    gui = _qube(system, "gui", QubeClass.APP, keyboard_layout="fr++")
    work.properties["guivm"] = gui.uuid
    assert value_of(system, work, "keyboard_layout") == "fr++"
    del gui.properties["keyboard_layout"]
    system.dom0.properties["keyboard_layout"] = "de++"
    assert value_of(system, work, "keyboard_layout") == "de++"
    gui.properties["guivm"] = work.uuid
    assert value_of(system, work, "keyboard_layout") == "us++"
    gui.properties["guivm"] = gui.uuid
    assert value_of(system, work, "keyboard_layout") == "us++"


def test_qubes_cut_off_on_purpose_share_no_memory(system: System, work: Qube) -> None:
    assert value_of(system, work, "start_mode") == "snapshot"
    work.properties["netvm"] = None
    assert value_of(system, work, "start_mode") == "unshared"


@pytest.mark.parametrize(
    ("klass", "properties", "features", "icon"),
    [
        (QubeClass.ADMIN, {}, {}, "adminvm-black"),
        (QubeClass.APP, {}, {}, "appvm-red"),
        (QubeClass.APP, {"template_for_dispvms": True}, {"servicevm": "1"}, "templatevm-red"),
        (QubeClass.APP, {}, {"servicevm": "1"}, "servicevm-red"),
        (QubeClass.APP, {}, {"servicevm": ""}, "appvm-red"),
        (QubeClass.TEMPLATE, {}, {"servicevm": "1"}, "templatevm-red"),
        (QubeClass.DISPOSABLE, {}, {}, "dispvm-red"),
        (QubeClass.DISPOSABLE, {}, {"servicevm": "1"}, "servicevm-red"),
    ],
)
def test_icons(
    system: System,
    klass: QubeClass,
    properties: dict[str, Value],
    features: dict[str, str],
    icon: str,
) -> None:
    qube = _qube(system, "x", klass, **properties)
    qube.features = features
    assert value_of(system, qube, "icon") == icon


def test_what_uses_a_qube(system: System, template: Qube, work: Qube) -> None:
    system.properties |= {"default_template": template.uuid, "clockvm": work.uuid}
    template.properties["guivm"] = work.uuid
    work.properties["default_dispvm"] = work.uuid  # Its own does not count.
    assert users_of(system, template) == ["global property default_template", "template for work"]
    assert users_of(system, work) == ["global property clockvm", "guivm for tree"]


def test_an_edit_that_is_undone_leaves_nothing(system: System, work: Qube) -> None:
    before = json.dumps([qube.to_json() for qube in system.in_order()])
    settings = dict(system.properties)
    edit = Edit(system)
    new = replace(work, uuid=uuid4(), name="new", properties={}, features={}, tags=set())
    edit.add(new)
    set_property(edit, work, BY_CLASS[QubeClass.APP]["label"], "green")
    edit.touch(work).features["x"] = "1"
    edit.touch(new).tags.add("y")
    edit.touch_settings()["z"] = 1
    edit.remove(system.named("tree"))
    edit.undo()
    assert json.dumps([qube.to_json() for qube in system.in_order()]) == before
    assert system.properties == settings
    assert not system.has_name("new")


ALL = [
    (klass, prop)
    for klass, properties in BY_CLASS.items()
    for prop in properties.values()
    if prop.access is Access.SETTABLE
]


@given(
    which=st.sampled_from(ALL),
    text=st.one_of(
        st.text(alphabet=string.printable), st.integers().map(str), st.booleans().map(str)
    ),
)
def test_any_text_is_a_value_or_refused(which: tuple[QubeClass, object], text: str) -> None:
    klass, _ = which
    system = System()
    system.add(new_dom0())
    template = _qube(system, "tree", QubeClass.TEMPLATE)
    qube = _qube(system, "work", klass, template=template.uuid)
    prop = next(one for one in BY_CLASS[klass].values() if one is which[1])
    with suppress(ReportableError):
        check_kind(system, qube, prop.kind, text)
        try:
            value = prop.parse(system, qube, text)
        except Exception as error:
            if type(error).__name__ == "RefusedSilentlyError":
                return
            raise
        edit = Edit(system)
        set_property(edit, qube, prop, value)
        # What was taken is taken again as it is shown.
        assert value_of(system, qube, prop.name) == value


@given(name=st.sampled_from(sorted(GLOBAL)), text=st.text(alphabet=string.printable, max_size=20))
def test_any_text_is_a_setting_or_refused(name: str, text: str) -> None:
    system = System()
    system.add(new_dom0())
    prop = GLOBAL[name]
    with suppress(ReportableError):
        check_kind(system, system.dom0, prop.kind, text)
        value = prop.parse(system, system.dom0, text)
        assert prop.parse(system, system.dom0, text) == value


def test_a_template_that_is_gone_is_told(system: System, work: Qube) -> None:
    with pytest.raises(PropertyValueError, match="nobody"):
        BY_CLASS[QubeClass.APP]["template"].parse(system, work, "nobody")
    system.remove(system.named("tree"))
    with pytest.raises(ValueRefusedError, match="no template any more"):
        system.root_template(work)
