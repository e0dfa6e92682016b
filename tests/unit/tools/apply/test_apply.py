"""A system is brought to what a file describes: all of it, in the right order, or not at all."""

import json
import os
import signal
from pathlib import Path

import pytest

from insula.client import App, errors
from insula.tools import insula
from insula.tools.apply.exporting import export
from tests.live import Live
from tests.serving import TEMPLATE
from tests.unit.tools.apply.conftest import Apply

WHOLE = """
[labels]
mint = "0x00ff7f"

[system]
default_netvm = "sys-firewall"
default_dispvm = "mould"
default_template = "tree"

[qubes.work]
label = "mint"
notes = "of the office"
tags = ["office"]
firewall = ["action=accept dsthost=example.org proto=tcp dstports=443", "action=drop"]
properties = { memory = 512, debug = true, default_dispvm = "mould" }
features = { x-kind = "plain", gui = true }
services = { cups = true, crond = false }
volumes = { private = "3GiB" }

[qubes.vault]
label = "black"
template = "tree"
properties = { netvm = "" }

[qubes.mould]
label = "red"
template = "tree"
properties = { template_for_dispvms = true, default_dispvm = "mould" }

[qubes.sys-firewall]
label = "green"
template = "tree"
properties = { provides_network = true, netvm = "sys-net" }

[qubes.sys-net]
label = "red"
template = "tree"
properties = { provides_network = true, netvm = "" }

[qubes.surf]
class = "DispVM"
label = "red"
template = "mould"
"""


def test_a_system_is_made_from_nothing(apply: Apply, app: App) -> None:
    planned = apply(WHOLE, "--plan")
    assert (planned.code, planned.err) == (3, "")
    assert "label mint\n    create: 0x00ff7f\n" in planned.out
    assert "    create: AppVM, label mint, template tree\n" in planned.out
    assert "work" not in app.domains
    done = apply(WHOLE)
    assert done.code == 0, done.err
    assert done.out == planned.out
    work = app.domains["work"]
    assert (work.label, str(work.template), work.memory, work.debug) == ("mint", "tree", 512, True)
    assert (str(work.netvm), str(work.default_dispvm)) == ("sys-firewall", "mould")
    assert (work.notes, "office" in work.tags) == ("of the office", True)
    assert work.firewall.rules[0].host == ("dsthost", "example.org")
    assert (work.features["x-kind"], work.features["gui"]) == ("plain", "1")
    assert dict(work.services) == {"cups": True, "crond": False}
    assert work.volumes["private"].size == 3 << 30
    assert app.domains["sys-firewall"].netvm == "sys-net"
    assert (app.domains["surf"].klass, str(app.domains["surf"].template)) == ("DispVM", "mould")
    assert app.default_template == "tree"
    again = apply(WHOLE, "--plan")
    assert (again.code, again.out, again.err) == (0, "Nothing to do.\n", "")
    assert apply(WHOLE).code == 0


def test_what_an_export_says_is_so_already(apply: Apply, app: App) -> None:
    assert apply(WHOLE).code == 0
    text = export(app)
    assert (apply(text).code, apply(text, "--plan", "--remove").code) == (0, 0)
    assert export(app) == text


def test_an_export_makes_the_same_system_elsewhere(
    apply: Apply, app: App, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert apply(WHOLE).code == 0
    file = tmp_path / "exported.toml"
    assert insula.main(["export", str(file)]) == 0
    assert insula.main(["export"]) == 0
    text = file.read_text()
    assert capfd.readouterr().out == text
    assert apply('[system]\ndefault_netvm = ""\ndefault_dispvm = ""').code == 0
    assert apply(f"[qubes.{TEMPLATE}]\n", "--remove").code == 0
    assert [qube.name for qube in app.domains] == ["dom0", TEMPLATE]
    assert apply(text).code == 0
    assert export(app) == text
    assert insula.main(["export", str(tmp_path / "no" / "file")]) == 1


def test_what_is_not_mentioned_stays_unless_exact(apply: Apply, app: App) -> None:
    assert apply(WHOLE).code == 0
    assert apply("[qubes.work]\nlabel = 'blue'").code == 0
    work = app.domains["work"]
    assert (work.label, work.memory, work.notes) == ("blue", 512, "of the office")
    work.features["supported-rpc.a"] = "1"
    work.features["updates-available"] = "1"
    done = apply("[qubes.work]\nexact = true\nproperties = { memory = 600 }")
    assert done.code == 0, done.err
    assert (work.memory, work.debug, work.is_default("default_dispvm")) == (600, False, True)
    assert set(work.features) == {"supported-rpc.a", "updates-available"}
    assert work.notes == ""
    assert "updates-available" not in export(app)
    assert [str(rule) for rule in work.firewall.rules] == ["action=accept"]
    assert "office" not in work.tags
    text = "[qubes.work]\nproperties = { memory = { default = true } }\nfeatures = { a = true }"
    assert apply(text).code == 0
    assert work.is_default("memory")
    assert apply("[qubes.work.features]\na = { default = true }").code == 0
    assert "a" not in work.features


def test_a_qube_that_fails_is_as_it_was_and_others_go_on(
    apply: Apply, app: App, served: Live
) -> None:
    assert apply(WHOLE).code == 0
    before = export(app)
    served.do(served.instance.power.start(served.instance.system.named("work")))
    done = apply(
        """
        [qubes.work]
        label = "blue"
        tags = ["office", "more"]
        notes = "new"
        firewall = []
        features = { x-kind = "other", x-new = true }
        services = { cups = { default = true } }
        properties = { memory = 700, debug = { default = true }, virt_mode = "hvm", netvm = "" }
        volumes = { private = "99999999GiB" }
        [qubes.vault]
        label = "gray"
        [qubes.new]
        label = "red"
        template = "tree"
        properties = { kernel = "none-such" }
        [qubes.newer]
        label = "red"
        template = "tree"
        properties = { netvm = "newest" }
        [qubes.newest]
        label = "red"
        template = "tree"
        properties = { provides_network = true, mac = "x" }
        """
    )
    assert done.code == 1
    assert "work: failed at 'volume private: 99999999.0 GiB (was 3.0 GiB)'" in done.err
    assert "nothing of it was changed" in done.err
    assert "vault: done" in done.err
    assert "new: failed at 'kernel = none-such'" in done.err
    assert "newest: failed" in done.err
    assert "newer: not done: it needs newest" in done.err
    assert apply("[qubes.vault]\nlabel = 'black'").code == 0
    assert export(app) == before


def test_qubes_of_a_circle_are_made_together_or_not(apply: Apply, app: App) -> None:
    circle = """
    [qubes.a]
    label = "red"
    template = "tree"
    properties = {{ template_for_dispvms = true, default_dispvm = "b" }}
    [qubes.b]
    label = "red"
    template = "tree"
    properties = {{ template_for_dispvms = true, default_dispvm = "a", memory = 512 }}
    volumes = {{ private = "{size}" }}
    """
    failed = apply(circle.format(size="99999999GiB"))
    assert failed.code == 1
    assert "nothing of it was changed" in failed.err
    assert [qube.name for qube in app.domains] == ["dom0", TEMPLATE]
    done = apply(circle.format(size="3GiB"))
    assert done.code == 0, done.err
    assert [str(app.domains[name].default_dispvm) for name in "ab"] == ["b", "a"]
    gone = apply("[qubes.a]\nstate = 'absent'\n[qubes.b]\nstate = 'absent'")
    assert gone.code == 0, gone.err
    assert [qube.name for qube in app.domains] == ["dom0", TEMPLATE]


def test_a_circle_through_a_template_is_made(apply: Apply, app: App) -> None:
    done = apply(
        """
        [qubes.a]
        label = "red"
        template = "tree"
        properties = { template_for_dispvms = true, guivm = "d" }
        [qubes.d]
        class = "DispVM"
        label = "red"
        template = "a"
        """
    )
    assert done.code == 0, done.err
    assert done.out.startswith("a, d\n    a: create: AppVM, label red, template tree\n")
    assert app.domains["a"].guivm == "d"


def test_a_chain_of_networks_is_turned_round(apply: Apply, app: App) -> None:
    text = """
    [qubes.{}]
    label = "red"
    template = "tree"
    properties = {{ provides_network = true, netvm = "" }}
    [qubes.middle]
    label = "red"
    template = "tree"
    properties = {{ provides_network = true, netvm = "{}" }}
    [qubes.{}]
    label = "red"
    template = "tree"
    properties = {{ provides_network = true, netvm = "middle" }}
    """
    assert apply(text.format("one", "one", "other")).code == 0
    turned = apply(text.format("other", "other", "one"))
    assert turned.code == 0, turned.err
    assert [str(app.domains[name].netvm) for name in ("one", "middle")] == ["middle", "other"]


def test_a_qube_ends_to_provide_network_after_its_clients_left_it(apply: Apply, app: App) -> None:
    assert apply(WHOLE).code == 0
    done = apply(
        """
        [qubes.sys-net]
        properties = { provides_network = false }
        [qubes.sys-firewall]
        properties = { netvm = "" }
        """
    )
    assert done.code == 0, done.err
    assert not app.domains["sys-net"].provides_network


def test_a_clone_is_made_and_then_described(apply: Apply, app: App) -> None:
    text = """
    [qubes.own]
    class = "StandaloneVM"
    label = "orange"
    clone = "tree"
    properties = { memory = 700 }
    """
    done = apply(text)
    assert done.code == 0, done.err
    assert "create: clone of tree, StandaloneVM, label orange" in done.out
    assert (app.domains["own"].klass, app.domains["own"].memory) == ("StandaloneVM", 700)
    assert apply(text, "--plan").code == 0


def test_nothing_is_removed_unless_told_to(apply: Apply, app: App) -> None:
    assert apply(WHOLE).code == 0
    assert apply("").code == 0
    assert "work" in app.domains
    assert apply("[qubes.vault]\nstate = 'absent'").code == 0
    assert "vault" not in app.domains
    assert apply("[qubes.vault]\nstate = 'absent'", "--plan").code == 0
    app.domains["sys-net"].start()
    refused = apply("[qubes.tree]", "--remove")
    assert refused.code == 1
    assert "qubes.sys-net: it is Running, and only a halted qube is removed" in refused.err
    assert "Nothing was changed." in refused.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[qubes.tree]\nclass = 'AppVM'", "qubes.tree.class: tree is a TemplateVM"),
        ("[qubes.new]\ntemplate = 'tree'", "qubes.new: a new qube needs a label"),
        ("[qubes.new]\nlabel = 'red'\ntemplate = 'no'", "qubes.new.template: there is no qube no"),
        ("[qubes.new]\nlabel = 'mauve'\ntemplate = 'tree'", "qubes.new.label: there is no label"),
        ("[qubes.new]\nclone = 'no'", "qubes.new.clone: there is no qube no"),
        ("[qubes.tree.properties]\nno = 1", "qubes.tree.properties.no: there is no such property"),
        ("[qubes.tree.properties]\nmemory = 'x'", "qubes.tree.properties.memory: a number"),
        ("[qubes.tree.properties]\ndebug = 'x'", "qubes.tree.properties.debug: true or false"),
        ("[qubes.tree.properties]\nnetvm = 'no'", "qubes.tree.properties.netvm: there is no qube"),
        (
            "[qubes.tree]\ntemplate = 'tree'",
            "qubes.tree.template: qubes of class TemplateVM have none",
        ),
        ("[qubes.tree.volumes]\nroot = 1", "qubes.tree.volumes.root: it has"),
        ("[qubes.tree.volumes]\nno = 1", "qubes.tree.volumes.no: there is no such volume"),
        ("[qubes.dom0]\nstate = 'absent'", "qubes.dom0.state: dom0 cannot be removed"),
        ("[qubes.dom0]\nnotes = ''", "qubes.dom0.notes: dom0 has none"),
        ("[qubes.dom0]\nfirewall = []", "qubes.dom0.firewall: qubes of class AdminVM have none"),
        ("[qubes.a]\nclass = 'AdminVM'\nlabel = 'red'", "qubes.a: there is one AdminVM"),
        ("[labels]\nred = '0x000001'", "labels.red: label red is 0xcc0000"),
        ("[system]\nno = 1", "system.no: there is no such property"),
        ("[system]\nclockvm = 'no'", "system.clockvm: there is no qube no"),
        (
            "[qubes.tree]\nstate = 'absent'\n[system]\nclockvm = 'tree'",
            "system.clockvm: there is no qube tree",
        ),
        (
            "[qubes.a]\nlabel='red'\ntemplate='tree'\nproperties={netvm='b',provides_network=true}"
            "\n[qubes.b]\nlabel='red'\ntemplate='tree'\n"
            "properties={netvm='a',provides_network=true}",
            "qubes.a.properties.netvm: a loop: a -> b -> a",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(
    apply: Apply, app: App, text: str, told: str
) -> None:
    before = export(app)
    refused = apply(text)
    assert refused.code == 1
    assert f"insula: error: system.toml: {told}" in refused.err
    assert refused.out == ""
    assert export(app) == before


def test_every_class_can_be_exported(apply: Apply, app: App) -> None:
    text = """
    [qubes.dom0]
    features = { x-mine = true }
    tags = ["here"]
    properties = { keyboard_layout = "de++" }
    [qubes.far]
    class = "RemoteVM"
    label = "red"
    properties = { remote_name = "work", relayvm = "tree" }
    [qubes.alone]
    class = "StandaloneVM"
    label = "red"
    volumes = { root = "11GiB" }
    [qubes.other-template]
    class = "TemplateVM"
    label = "black"
    """
    done = apply(text)
    assert done.code == 0, done.err
    assert apply(text, "--plan").code == 0
    exported = export(app)
    assert 'keyboard_layout = "de++"' in exported
    assert 'remote_name = "work"' in exported
    assert apply(exported, "--plan", "--remove").code == 0


def test_disposables_that_pass_are_neither_exported_nor_removed(apply: Apply, app: App) -> None:
    assert apply(WHOLE).code == 0
    disposable = app.create_disposable("mould")
    disposable.start()
    assert disposable.name not in export(app)
    assert apply(export(app), "--remove", "--plan").code == 0
    disposable.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_takes_back_what_was_begun(
    apply: Apply, app: App, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = signal.getsignal(number)

    def fail(*_given: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr("insula.client.volumes.Volume.resize", fail)
    text = "[qubes.a]\nlabel = 'red'\ntemplate = 'tree'\nvolumes = { private = '9GiB' }"
    with pytest.raises(SystemExit) as caught:
        apply(text)
    assert caught.value.code == 128 + number
    assert "a" not in app.domains
    assert signal.getsignal(number) is before


def test_a_plan_for_programs(apply: Apply) -> None:
    done = apply("[qubes.tree]\nlabel = 'red'", "--plan", "--json")
    [unit] = json.loads(done.out)
    assert (done.code, unit["unit"], len(unit["steps"])) == (3, "tree", 1)
    assert json.loads(apply("", "--json").out) == []


def test_files_that_cannot_be_read(
    served: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert served
    (tmp_path / "latin").write_bytes(b"\xff")
    for name, told in (("none", "cannot be read: No such file"), ("latin", "is not UTF-8: byte 0")):
        assert insula.main(["apply", str(tmp_path / name)]) == 1
        assert told in capfd.readouterr().err


def test_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_RUN", str(tmp_path))
    (tmp_path / "f").write_text("")
    assert insula.main(["apply", str(tmp_path / "f")]) == 1
    with pytest.raises(errors.DaemonNotRunningError):
        export(App())
