"""The uplink of a qube: what else is set up with it (network-firewall.md sections 3 and 5)."""

import socket
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from insula.guest.commands import redirecting
from insula.guest.qubesdb import Server, Store
from insula.qrexec.loop import Loop
from tests.net.chain import (
    CLIENT_MAC,
    FILES,
    OTHER_DNS,
    PROVIDER_MAC,
    REAL_DNS,
    VIRTUAL_DNS,
    Chain,
    asked,
    client_keys,
    connect,
    downlink,
    is_answered,
    outside_link,
    plug,
    reaches,
    uplink,
)
from tests.net.world import IPV4, TIMEOUT, Family

LOGGED = '#!/bin/sh\necho "$0 $*" >> {log}\n'


def test_questions_for_names_reach_the_last_ones_server(joined: Chain) -> None:
    for virtual in VIRTUAL_DNS:
        assert asked(joined, IPV4, (virtual, 53), (REAL_DNS, 53)) == IPV4.uplink
    assert joined.client.places.resolv_conf.read_text() == (
        "nameserver 10.139.1.1\nnameserver 10.139.1.2\n"
    )
    assert joined.net.places.resolv_conf.read_text() == f"nameserver {REAL_DNS}\n"


def test_a_client_moves_to_another_provider(joined: Chain, family: Family) -> None:
    assert joined.client.unlink(0).code == 0
    assert not is_answered(joined.client, family)
    # The old card, which has the same MAC, takes its time to go.
    connect(joined.net, joined.client)
    assert "eth0" in joined.client.ip_shows("route", "get", family.served[0])
    assert reaches(joined.client, family)
    gateways = joined.client.ip_shows(f"-{family.version}", "route", "show", "default")
    assert gateways.split()[2] in (joined.net.ip, joined.net.ip6)
    assert len(gateways.splitlines()) == 1


def test_questions_for_names_follow_the_uplink(joined: Chain) -> None:
    def shown() -> str:
        return joined.net.namespace.run("nft", "-a", "list", "chain", "ip", "qubes", "dnat-dns")

    before = shown()
    assert joined.net.link(outside_link()).code == 0
    assert shown() == before  # by the handles, too: nothing was made anew
    assert joined.net.link(outside_link(OTHER_DNS)).code == 0
    assert asked(joined, IPV4, (VIRTUAL_DNS[0], 53), (OTHER_DNS, 53)) == IPV4.uplink
    assert joined.net.places.resolv_conf.read_text() == f"nameserver {OTHER_DNS}\n"


def test_services_and_protected_files_are_heeded(row: Chain) -> None:
    connect(row.firewall, row.client)
    for service in ("disable-default-route", "disable-dns-server"):
        (row.client.places.services / service).touch()
    row.client.places.resolv_conf.write_text("# mine\n")
    assert row.client.link(uplink()).code == 0
    assert row.client.places.resolv_conf.read_text() == "# mine\n"
    assert row.client.ip_shows("route", "show", "default") == ""
    (row.client.places.services / "disable-dns-server").unlink()
    protected = row.client.places.config / "protected-files.d"
    protected.mkdir()
    (protected / "mine").write_text(f"{row.client.places.resolv_conf}\n")
    assert row.client.link(uplink()).code == 0
    assert row.client.places.resolv_conf.read_text() == "# mine\n"
    (protected / "mine").unlink()
    assert row.client.link(uplink()).code == 0
    assert "10.139.1.1" in row.client.places.resolv_conf.read_text()


def test_a_cards_own_keys_go_first(row: Chain) -> None:
    row.client.keys |= {
        f"/net-config/{CLIENT_MAC}/ip": "10.9.9.9",
        f"/net-config/{CLIENT_MAC}/netmask": "255.255.255.0",
        f"/net-config/{CLIENT_MAC}/custom": "",
    }
    connect(row.firewall, row.client, ips=("10.9.9.9",))
    assert "inet 10.9.9.9/24" in row.client.ip_shows("address", "show", "eth0")
    assert "PERMANENT" not in row.client.ip_shows("neigh")
    assert reaches(row.client)


def test_hardening_is_by_the_key_whatever_it_says(row: Chain) -> None:
    row.client.keys["/qubes-service/harden-network-interfaces"] = "0"
    connect(row.firewall, row.client)
    read = ("sysctl", "--values", "net.ipv4.conf.eth0.drop_gratuitous_arp")
    assert row.client.namespace.run(*read) == "1\n"
    assert row.firewall.namespace.run(*read) == "0\n"


def test_a_qube_says_nothing_of_its_own_accord(row: Chain) -> None:
    link = downlink(row.client)
    plug(row.firewall, link.mac, row.client, CLIENT_MAC)
    assert row.firewall.link(link).code == 0
    listener = row.firewall.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
    with listener:
        listener.bind(("vif5.0", 3))
        row.client.keys |= client_keys(row.firewall, row.client)
        assert row.client.link(uplink()).code == 0
        listener.settimeout(2.5)
        heard = []
        with suppress(TimeoutError):
            while True:
                heard.append(listener.recv(2000))
        assert [frame for frame in heard if frame[12:14] != b"\x86\xdd"] == []
        # Membership of multicast groups is all there is; those reports are IPv6's own.
        assert all(frame[14 + 40 + 8] == 143 for frame in heard)


def test_a_program_that_changes_name_servers_has_questions_follow(joined: Chain) -> None:
    store, loop = Store(), Loop()
    path = joined.directory / "qubesdb.sock"
    server = Server(loop, path, store, lambda _path, _value: None)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    store.replace(joined.net.keys)

    def run() -> int:
        return redirecting.main(joined.net.places)

    with pytest.MonkeyPatch.context() as patch, joined.net.namespace.entered():
        patch.setenv("INSULA_QUBESDB_SOCKET", str(path))
        assert run() == 100
        joined.net.places.resolv_conf.write_text(f"nameserver {OTHER_DNS}\n")
        assert run() == 0
        assert run() == 100
        store.replace({})
        assert run() == 100  # It is no provider any more.
        loop.running = False
        with socket.socket(socket.AF_UNIX) as wake:
            wake.connect(str(path))
            thread.join(TIMEOUT)
        server.close()
    assert asked(joined, IPV4, (VIRTUAL_DNS[0], 53), (OTHER_DNS, 53)) == IPV4.uplink


def test_the_service_that_waits_for_the_uplink(row: Chain) -> None:
    service = str(FILES / "qubes-rpc" / "qubes.WaitForNetworkUplink")
    waiting = row.client.namespace.popen([service])
    connect(row.firewall, row.client)
    assert waiting.wait(TIMEOUT) == 0
    row.client.unlink(0)
    assert row.client.namespace.popen([service]).wait(TIMEOUT) == 3


def test_a_card_is_taken_again_for_a_link_that_went(joined: Chain) -> None:
    assert joined.client.unlink(0).code == 0
    joined.client.keys["/qubes-ip6"] = joined.client.keys["/qubes-gateway6"] = ""
    assert joined.client.link(uplink()).code == 0
    assert reaches(joined.client)
    assert joined.client.ip6 not in joined.client.ip_shows("address")


def program(directory: Path, name: str) -> tuple[Path, Path]:
    """A program that writes down how it was called, and where it does."""
    path, log = directory / name, directory / f"{name}.log"
    path.write_text(LOGGED.format(log=log))
    path.chmod(0o755)
    return path, log


def test_a_network_manager_gets_a_file_of_the_uplink(row: Chain) -> None:
    client = row.client
    nmcli, log = program(row.directory, "nmcli")
    connections = row.directory / "connections"
    client.places = replace(client.places, nmcli=nmcli, connections=connections)
    client.start_agent()
    (client.places.services / "network-manager").touch()
    plug(row.firewall, "00:16:3e:5e:80:05", client, CLIENT_MAC)
    client.keys |= client_keys(row.firewall, client)
    assert client.link(uplink()).code == 0
    (path,) = connections.iterdir()
    assert path.name == "qubes-uplink-eth0"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (
        path.read_text()
        == f"""\
[connection]
id=VM uplink eth0
uuid=de85f79b-8c3d-405f-a652-00163e5e6c00
type=ethernet

[ethernet]
mac-address=00:16:3e:5e:6c:00

[ipv4]
method=manual
address1={client.ip}/32,{row.firewall.ip}
dns=10.139.1.1;10.139.1.2;

[ipv6]
method=manual
address1={client.ip6}/128,{row.firewall.ip6}
"""
    )
    assert log.read_text() == f"{nmcli} connection load {path}\n"
    assert "eth0" in client.ip_shows("link", "show", "group", "1")
    assert client.ip not in client.ip_shows("address")
    known = client.ip_shows("neigh", "show", "nud", "permanent")
    assert f"{row.firewall.ip} dev eth0 lladdr {PROVIDER_MAC}" in known
    for service in ("disable-default-route", "disable-dns-server"):
        (client.places.services / service).touch()
    assert client.link(uplink()).code == 0
    assert path.read_text().count("never-default=true\n") == 2
    assert "dns" not in path.read_text()
    client.unlink(0)
    assert not path.exists()


def test_systemd_resolved_is_told_the_servers(row: Chain) -> None:
    resolvectl, log = program(row.directory, "resolvectl")
    row.client.places = replace(row.client.places, resolvectl=resolvectl)
    row.client.start_agent()
    row.client.places.resolved.touch()
    connect(row.firewall, row.client)
    assert log.read_text() == f"{resolvectl} dns eth0 10.139.1.1 10.139.1.2\n"
