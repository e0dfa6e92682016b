"""The usual qubes are made once, as they are described, and are the person's from then on."""

import os
from pathlib import Path

import pytest

from insula.client import App, errors
from insula.client.qube import Qube
from insula.tools.init import gateway, record, roles
from tests.serving import TEMPLATE
from tests.unit.tools.init.conftest import Init

USUAL = [role.name for role in roles.USUAL]


def value(app: App, qube: str, name: str) -> str:
    return app.domains[qube].get(name).value


def test_a_new_system_gets_the_usual_qubes(app: App, init: Init) -> None:
    done = init()
    assert (done.code, done.err) == (0, "")
    assert sorted([*USUAL, "dom0", TEMPLATE]) == sorted(app.domains.names())
    assert value(app, "sys-net", "netvm") == ""
    assert value(app, "sys-firewall", "netvm") == "sys-net"
    for name in ("sys-net", "sys-firewall"):
        assert app.domains[name].provides_network
        assert app.domains[name].features["servicevm"] == "1"
    assert app.domains["sys-net"].services["clocksync"] is True
    assert app.domains["default-dvm"].template_for_dispvms
    for name in ("personal", "work", "untrusted", "default-dvm"):
        assert value(app, name, "netvm") == "sys-firewall"
        assert app.domains[name].is_default("netvm")
    assert (value(app, "vault", "netvm"), value(app, "vault", "start_mode")) == ("", "unshared")
    system = {name: app.get(name).value for name in roles.SYSTEM}
    assert system == roles.SYSTEM


def test_it_tells_what_it_does(init: Init) -> None:
    said = init().out.splitlines()
    assert said[0] == (
        f"sys-net: made: label red, template {TEMPLATE}, netvm none, provides_network True,"
        " autostart True, feature servicevm 1, service clocksync on"
    )
    assert said[-1] == "clockvm: set to sys-net"
    again = init().out.splitlines()
    assert again == [f"{name}: is there, and left as it is" for name in USUAL] + [
        f"{name}: is {value}" for name, value in roles.SYSTEM.items()
    ]


def test_what_a_person_changed_stays(app: App, init: Init) -> None:
    assert init().code == 0
    app.domains["work"].netvm = None
    app.domains["sys-firewall"].label = "blue"
    app.domains["untrusted"].remove()
    app.clockvm = "sys-firewall"
    app.reset("updatevm")
    done = init()
    assert done.code == 0
    assert "untrusted: was removed, and stays so; to have it: insula init untrusted\n" in done.out
    assert "clockvm: is sys-firewall, and stays so\n" in done.out
    assert "updatevm: is none, and stays so\n" in done.out
    assert value(app, "work", "netvm") == ""
    assert value(app, "sys-firewall", "label") == "blue"
    assert "untrusted" not in app.domains
    assert app.get("clockvm").value == "sys-firewall"


def test_one_that_was_removed_comes_back_when_it_is_named(app: App, init: Init) -> None:
    assert init().code == 0
    app.domains["untrusted"].remove()
    app.domains["personal"].remove()
    done = init("untrusted")
    assert done.out == f"untrusted: made: label red, template {TEMPLATE}\n"
    assert "untrusted" in app.domains
    assert "personal" not in app.domains


def test_a_qube_from_before_is_nobody_elses(app: App, init: Init) -> None:
    app.add_new_qube("AppVM", "sys-net", "gray")
    app.default_netvm = None
    done = init()
    assert done.code == 1
    assert done.out.startswith("sys-net: is there, and left as it is\nsys-firewall: could not be")
    assert "default_netvm: is none, and stays so\n" in done.out
    assert "updatevm: stays none, as there is no sys-firewall\n" in done.out
    assert done.err == "insula: failed: sys-firewall\n"
    assert value(app, "sys-net", "label") == "gray"
    assert "sys-firewall" not in app.domains


def test_what_cannot_be_made_whole_is_not_made(
    app: App, init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Qube.set

    def fail(self: Qube, name: str, value: object) -> None:
        if (self.name, name) == ("vault", "start_mode"):
            raise errors.QubesValueError("not today")
        real(self, name, value)

    with monkeypatch.context() as patched:
        patched.setattr(Qube, "set", fail)
        done = init()
    assert (done.code, done.err) == (1, "insula: failed: vault\n")
    assert "vault: could not be made: not today\n" in done.out
    assert "vault" not in app.domains
    assert "vault: made: " in init().out
    assert value(app, "vault", "start_mode") == "unshared"


def test_what_was_half_made_when_its_maker_died_is_made_whole(app: App, init: Init) -> None:
    app.domains["dom0"].features[record.FEATURE] = "sys-net:making"
    app.add_new_qube("AppVM", "sys-net", "red")
    assert init().code == 0
    assert app.domains["sys-net"].provides_network
    assert app.domains["dom0"].features[record.FEATURE].split() == [*USUAL, *roles.SYSTEM]


def test_the_anonymising_ones_come_when_they_are_asked_for(app: App, init: Init) -> None:
    assert init().code == 0
    done = init("--whonix", "--whonix-updates")
    assert (done.code, done.err) == (0, "")
    gateway = app.domains["sys-whonix"]
    assert gateway.provides_network
    assert value(app, "sys-whonix", "netvm") == "sys-firewall"
    assert "anon-gateway" in gateway.tags
    assert "anon-vm" not in gateway.tags
    for name in ("anon-whonix", "anon-dvm"):
        assert value(app, name, "netvm") == "sys-whonix"
        assert value(app, name, "default_dispvm") == "anon-dvm"
        assert "anon-vm" in app.domains[name].tags
        assert app.domains[name].features["anon-timezone"] == "1"
        assert [str(rule) for rule in app.domains[name].firewall.rules] == ["action=drop"]
    assert app.domains["anon-dvm"].template_for_dispvms
    assert "whonix-updatevm" in app.domains[TEMPLATE].tags


def test_the_gateway_gets_its_files_before_anybody_is_behind_it(
    app: App, init: Init, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(gateway, "_UNPACK", "echo no room >&2; exit 1 # {0}")
        done = init("--whonix")
    assert done.code == 1
    assert done.err == "insula: failed: anon-dvm, anon-whonix\n"
    assert "anon-whonix" not in app.domains
    assert app.domains["sys-whonix"].services["tor-gateway"] is True
    done = init("--whonix")
    assert (done.code, done.err) == (0, "")
    assert f"sys-whonix: has its rules and Tor's configuration in {config}\n" in done.out
    found = {str(path.relative_to(config)): path for path in config.rglob("*") if path.is_file()}
    assert sorted(found) == [
        "qubes-bind-dirs.d/50-tor-gateway.conf",
        "rc.local-early.d/50-tor-gateway.rc",
        "rc.local.d/50-tor-gateway.rc",
        "tor-gateway/closed.nft",
        "tor-gateway/rules.nft",
        "tor-gateway/torrc",
    ]
    runnable = [name for name, path in found.items() if os.access(path, os.X_OK)]
    assert sorted(runnable) == [name for name in sorted(found) if name.endswith(".rc")]
    assert app.domains["sys-whonix"].is_halted()
    assert "anon-whonix" in app.domains


def test_the_gateways_files_are_its_owners_from_then_on(app: App, init: Init, config: Path) -> None:
    assert init("--whonix").code == 0
    changed, removed = config / "tor-gateway" / "torrc", config / "tor-gateway" / "rules.nft"
    changed.write_text("UseBridges 1\n")
    removed.unlink()
    assert init("--whonix").code == 0
    assert changed.read_text() == "UseBridges 1\n"
    assert not removed.exists()
    for name in ("anon-whonix", "anon-dvm", "sys-whonix"):
        app.domains[name].default_dispvm = None
    for name in ("anon-whonix", "anon-dvm", "sys-whonix"):
        app.domains[name].remove()
    assert init("sys-whonix").code == 0
    assert removed.exists()
    assert changed.read_text() == "UseBridges 1\n"


def test_templates_updates_are_left_alone_unless_asked(app: App, init: Init) -> None:
    assert init("--whonix").code == 0
    assert "whonix-updatevm" not in app.domains[TEMPLATE].tags


def test_names_and_templates_that_cannot_be_are_refused(app: App, init: Init) -> None:
    assert init("office").code == 2
    assert app.domains.names() == ["dom0", TEMPLATE]
    assert init("--template", "dom0").code == 1
    app.default_template = None
    done = init()
    assert done.code == 1
    assert done.err.endswith("Build one with: insula template build debian-12\n")
    assert app.domains.names() == ["dom0", TEMPLATE]
