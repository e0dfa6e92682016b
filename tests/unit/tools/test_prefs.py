"""qvm-prefs and qubes-prefs: flags, values, and what is sent to set one."""

import json

import pytest

from insula.tools import qvm_prefs
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, RefusedError, answer


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon) -> None:
    daemon.add(
        FakeQube(
            "orchid",
            properties={
                "netvm": answer("river-fw", "vm", default=True),
                "autostart": answer("False", "bool", default=True),
                "label": answer("green", "label"),
                "default_dispvm": NONE,
                "kernelopts": answer("quiet", default=True),
                "stubdom_mem": answer("", "int", default=True),
            },
        )
    )
    daemon.system["clockvm"] = NONE


def test_all_properties_are_listed_with_their_flags(run: Run) -> None:
    assert run(qvm_prefs.main, "orchid").out == (
        "autostart       D  False\n"
        "default_dispvm  D  None\n"
        "kernelopts      D  quiet\n"
        "label           -  green\n"
        "netvm           D  river-fw\n"
        "stubdom_mem     U\n"
    )


def test_defaults_can_be_hidden(run: Run) -> None:
    assert run(qvm_prefs.main, "--hide-default", "orchid").out == "label           -  green\n"
    done = run(qvm_prefs.main, "--hide-default", "orchid", "netvm")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(
    ("name", "out"),
    [("label", "green\n"), ("netvm", "river-fw\n"), ("default-dispvm", ""), ("stubdom_mem", "")],
)
def test_one_property_is_its_value(run: Run, name: str, out: str) -> None:
    done = run(qvm_prefs.main, "orchid", name)
    assert (done.code, done.out) == (0, out)


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("netvm", "none", b""), ("netvm", "None", b""), ("netvm", "", b""), ("netvm", "a", b"a"),
        ("default-dispvm", "NONE", b""), ("kernelopts", "none", b"none"),
        ("kernelopts", "-1", b"-1"),
    ],
)  # fmt: skip
def test_values_are_sent_as_the_daemon_takes_them(
    daemon: FakeDaemon, run: Run, name: str, value: str, sent: bytes
) -> None:
    assert run(qvm_prefs.main, "orchid", name, value).code == 0
    name = name.replace("-", "_")
    assert daemon.asked("admin.vm.property.Set") == [("orchid", name, sent)]


def test_a_value_wins_over_default(daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_prefs.main, "-D", "orchid", "label", "red").code == 0
    assert run(qvm_prefs.main, "--default", "orchid", "label").code == 0
    assert daemon.asked("admin.vm.property.Set") == [("orchid", "label", b"red")]
    assert daemon.asked("admin.vm.property.Reset") == [("orchid", "label", b"")]


@pytest.mark.parametrize(
    "words", [["no-such"], ["no-such", "x"], ["-D", "no-such"], ["no such"], [""]]
)
def test_an_unknown_property_is_a_usage_error(run: Run, words: list[str]) -> None:
    done = run(qvm_prefs.main, "orchid", *words)
    assert done.code == 2
    assert f"no such property: {words[words[0] == '-D']!r}\n" in done.err


def test_a_refused_value_is_no_usage_error(daemon: FakeDaemon, run: Run) -> None:
    refusal = RefusedError("QubesPropertyValueError", "no such label")
    daemon.refusals["admin.vm.property.Set", "orchid"] = refusal
    done = run(qvm_prefs.main, "orchid", "label", "mauve")
    assert (done.code, done.err) == (1, "qvm-prefs: error: no such label\n")


def test_where_all_at_once_is_forbidden_each_is_asked_for(daemon: FakeDaemon, run: Run) -> None:
    daemon.silent.add(("admin.vm.property.GetAll", "orchid"))
    assert "label           -  green\n" in run(qvm_prefs.main, "orchid").out


def test_a_property_that_may_not_be_read_is_named(daemon: FakeDaemon, run: Run) -> None:
    daemon.silent.add(("admin.vm.property.Get", "orchid"))
    done = run(qvm_prefs.main, "orchid", "label")
    assert (done.code, done.out) == (1, "")
    assert "'label' of orchid" in done.err


def test_properties_are_explained(run: Run) -> None:
    done = run(qvm_prefs.main, "--help-properties")
    assert done.out.splitlines()[0] == "  autostart: What autostart is for."
    assert run(qvm_prefs.main, "--help-properties", "orchid").out == done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_the_system_has_properties_too(daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_prefs.system).out == "clockvm         D  None\ndefault_dispvm  D  None\n"
    assert run(qvm_prefs.system, "default_dispvm", "orchid").code == 0
    assert daemon.asked("admin.property.Set") == [("dom0", "default_dispvm", b"orchid")]


def test_a_qube_has_to_be_named(run: Run) -> None:
    assert run(qvm_prefs.main).code == 2
    assert run(qvm_prefs.main, "-D", "orchid").code == 2


def test_properties_can_be_read_by_programs(run: Run) -> None:
    found = json.loads(run(qvm_prefs.main, "--json", "orchid").out)
    assert found["autostart"] == {"value": False, "type": "bool", "is_default": True}
    assert found["default_dispvm"] == {"value": None, "type": "vm", "is_default": True}
    assert found["stubdom_mem"]["value"] is None
    assert json.loads(run(qvm_prefs.main, "--json", "--hide-default", "orchid").out) == {
        "label": {"value": "green", "type": "label", "is_default": False}
    }
    assert json.loads(run(qvm_prefs.main, "--json", "orchid", "netvm").out)["value"] == "river-fw"
