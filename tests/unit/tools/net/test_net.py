"""`insula net` on a whole instance."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.client import App
from insula.tools import insula
from tests.live import live
from tests.serving import TEMPLATE
from tests.unit.tools.conftest import Done

Net = Callable[..., Done]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    with live(tmp_path / "home") as served:
        monkeypatch.setenv("INSULA_RUN", str(served.instance.run))
        yield App()


@pytest.fixture
def net(app: App, capfd: pytest.CaptureFixture[str]) -> Net:
    assert app

    def run(*words: str) -> Done:
        code = insula.main(["net", *words])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def provider(app: App, name: str, netvm: str | None) -> None:
    qube = app.add_new_qube("AppVM", name, "green")
    qube.netvm = netvm
    qube.provides_network = True


@pytest.fixture
def usual(app: App) -> App:
    provider(app, "sys-net", None)
    provider(app, "sys-firewall", "sys-net")
    app.default_netvm = "sys-firewall"
    for name in ("untrusted", "vault", "work"):
        app.add_new_qube("AppVM", name, "blue")
    app.domains["vault"].netvm = None
    rules = ["action=accept dsthost=example.org proto=tcp dstports=443", "action=drop"]
    app.domains["work"].firewall.rules = rules
    return app


@pytest.mark.usefixtures("usual")
def test_the_tree_is_drawn_with_what_each_reaches(net: Net) -> None:
    done = net()
    assert (done.code, done.err) == (0, "")
    rows = [line.split("  ") for line in done.out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows if any(row)]
    heads = ["QUBE", "LABEL", "STATE", "ADDRESS", "SENT", "RECEIVED", "REACHES"]
    assert cells[0] == heads
    assert [[row[0], row[-1]] for row in cells[1:-1]] == [
        ["sys-net", "what is outside"],
        ["└─ sys-firewall", "anything"],
        ["├─ untrusted", "anything"],
        ["└─ work", "example.org tcp 443"],
    ]
    assert done.out.endswith(f"\nWithout a network: {TEMPLATE}, vault\n")


def test_programs_get_the_tree_nested(usual: App, net: Net) -> None:
    usual.domains["sys-net"].features["ipv6"] = "1"
    found = json.loads(net("--json").out)
    assert found["without_network"] == [TEMPLATE, "vault"]
    (root,) = found["roots"]
    assert (root["name"], root["netvm"], root["reaches"]) == ("sys-net", None, "what is outside")
    (firewall,) = root["clients"]
    assert [client["name"] for client in firewall["clients"]] == ["untrusted", "work"]
    work = firewall["clients"][1]
    assert work["clients"] == []
    assert work["ip"] == usual.domains["work"].ip
    assert work["ip6"] == usual.domains["work"].ip6
    assert work["firewall"] == [
        "action=accept dsthost=example.org proto=tcp dstports=443-443",
        "action=drop",
    ]


def reaches(net: Net, name: str) -> str:
    line = next(one for one in net().out.splitlines() if one.split("─ ")[-1].startswith(name))
    return line.rsplit("  ", 1)[1]


def test_what_lies_behind_a_gateway_goes_through_tor(usual: App, net: Net) -> None:
    provider(usual, "sys-whonix", "sys-firewall")
    usual.domains["sys-whonix"].tags.add("anon-gateway")
    usual.domains["untrusted"].netvm = "sys-whonix"
    usual.domains["untrusted"].firewall.rules = ["action=drop"]
    assert reaches(net, "untrusted") == "through Tor alone"
    assert reaches(net, "sys-whonix") == "anything"


def test_rules_that_nobody_enforces_are_told(usual: App, net: Net) -> None:
    usual.domains["sys-firewall"].services["qubes-firewall"] = False
    assert reaches(net, "work") == "example.org tcp 443; sys-firewall enforces no rules"
    assert reaches(net, "sys-firewall") == "anything"


def test_a_change_that_waits_is_told(usual: App, net: Net) -> None:
    work = usual.domains["work"]
    work.start()
    provider(usual, "sys-vpn", "sys-net")
    usual.domains["sys-vpn"].start()
    work.pause()
    work.netvm = "sys-vpn"
    assert reaches(net, "work") == "example.org tcp 443; until it goes on: sys-firewall"
    work.unpause()
    assert reaches(net, "work") == "example.org tcp 443"


def test_without_any_network_it_says_how_to_get_one(app: App, net: Net) -> None:
    app.add_new_qube("AppVM", "work", "blue")
    assert net().out == (
        "No qube provides a network. The usual ones are made by: insula init\n"
        f"\nWithout a network: {TEMPLATE}, work\n"
    )
