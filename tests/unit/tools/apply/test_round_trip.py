"""Any system that a description can say: applying it twice, or its export, changes nothing."""

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insula.client import App
from insula.tools.apply.description import parse
from insula.tools.apply.doing import carry_out
from insula.tools.apply.exporting import export
from insula.tools.apply.found import Found
from insula.tools.apply.plan import Plan, make_plan
from tests.live import live

NAMES = ("a", "b.c", "disp-1", "Z_9")
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
SIZES = st.integers(2 << 30, 3 << 30).map(lambda size: size // 512 * 512)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(1, 5000),
        "maxmem": st.integers(0, 5000),
        "vcpus": st.integers(1, 9),
        "debug": st.booleans(),
        "autostart": st.booleans(),
        "template_for_dispvms": st.just(True),
        "kernelopts": st.text(st.sampled_from(string.printable), max_size=9) | st.just("a\r\nb"),
        "keyboard_layout": st.sampled_from(["de++", "us+dvorak+"]),
        "qrexec_timeout": st.integers(1, 2**40),
        "default_user": st.from_regex(r"[A-Za-z0-9_+,.-]{0,9}", fullmatch=True),
        "virt_mode": st.sampled_from(["hvm", "PVH", "pv"]),
        "mac": st.sampled_from(["00:16:3E:00:00:01", "00:16:3e:5e:6c:00"]),
        "ip6": st.sampled_from(["fd00::1", "FD00:0::2"]),
        "netvm": st.sampled_from(["", "net"]),
        "default_dispvm": st.sampled_from(["", "net", *NAMES[:2]]),
        "devices_denied": st.sampled_from(["", "u03****b******", "p02****"]),
    },
)
RULES = st.lists(
    st.sampled_from(
        [
            "action=accept", "action=drop comment=a b", "proto=tcp action=accept dstports=80",
            "action=accept dst4=10.0.0.1 proto=icmp icmptype=8", "action=drop dsthost=fd00::/8",
            "action=accept specialtarget=dns expire=1", "action=drop expire=99999999999",
        ]
    ),
    max_size=4,
)  # fmt: skip
QUBES = st.fixed_dictionaries(
    {"label": st.sampled_from(["red", "mint", "black"]), "template": st.just("tree")},
    optional={
        "notes": st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=9).map(
            lambda text: f"{text}\n\t"
        ),
        "tags": st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True), max_size=3),
        "firewall": RULES,
        "properties": PROPERTIES,
        "features": st.dictionaries(
            st.from_regex(r"x-[A-Za-z0-9_.-]{0,9}", fullmatch=True), PRINTABLE | st.booleans()
        ),
        "services": st.dictionaries(
            st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True).filter(
                lambda name: name != "meminfo-writer"
            ),
            st.booleans(),
            max_size=3,
        ),
        "volumes": st.fixed_dictionaries({}, optional={"private": SIZES}),
        "exact": st.just(False),
    },
)
SYSTEMS = st.fixed_dictionaries(
    {},
    optional={
        "stats_interval": st.integers(1, 9),
        "default_netvm": st.sampled_from(["", "net"]),
        "default_shutdown_timeout": st.integers(1, 99),
        "default_dispvm": st.sampled_from(["", "net"]),
    },
)
NET = {
    "label": "red",
    "template": "tree",
    "properties": {"provides_network": True, "netvm": "", "template_for_dispvms": True},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with (
        live(tmp_path_factory.mktemp("round") / "home") as served,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setenv("INSULA_RUN", str(served.instance.run))
        yield served.instance.run


def planned(text: str, *, remove: bool = False) -> Plan:
    plan = make_plan(App(), parse(text, "f"), Found(App(cache=True)), remove=remove)
    assert plan.problems == []
    return plan


def texts(plan: Plan) -> list[str]:
    return [f"{unit.name}: {step.text}" for unit in plan.units for step in unit.steps]


def done(plan: Plan) -> list[str]:
    told: list[str] = []
    carry_out(plan, told.append)
    return [text for text in told if not text.endswith(": done")]


@given(
    qubes=st.dictionaries(st.sampled_from(NAMES), QUBES, max_size=3),
    system=SYSTEMS,
)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_round_trip_changes_nothing(
    home: Path, qubes: dict[str, dict[str, Any]], system: dict[str, Any]
) -> None:
    assert home
    for one in qubes.values():
        wanted = one.get("properties", {}).get("default_dispvm")
        if wanted and wanted != "net" and wanted not in qubes:
            one["properties"]["default_dispvm"] = "net"
    bare = tomli_w.dumps({"system": {"default_netvm": "", "default_dispvm": ""}, "qubes": {
        "tree": {}, "net": NET,
    }})  # fmt: skip
    assert done(planned(bare)) == []
    assert done(planned("[qubes.tree]\n[qubes.net]\n", remove=True)) == []
    described = {
        "labels": {"mint": "0x00ff7f"},
        "system": system,
        "qubes": {"tree": {}, "net": NET, **qubes},
    }
    text = tomli_w.dumps(described)
    assert done(planned(text)) == []
    assert texts(planned(text, remove=True)) == []
    exported = export(App())
    assert texts(planned(exported, remove=True)) == []
    assert export(App()) == exported
    # What was removed comes back from its export as it was.
    assert done(planned(bare)) == []
    assert done(planned("[qubes.tree]\n[qubes.net]\n", remove=True)) == []
    assert done(planned(exported)) == []
    assert export(App()) == exported
