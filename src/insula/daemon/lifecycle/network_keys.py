"""What qubes are told of their network: keys of QubesDB (network-firewall.md section 2)."""

from insula.daemon.model import addresses
from insula.daemon.model.properties.network import clients, own_ip
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System

LIVE = (
    *("/qubes-mac", "/qubes-ip", "/qubes-ip6", "/qubes-netmask", "/qubes-gateway"),
    *("/qubes-gateway6", "/qubes-primary-dns", "/qubes-secondary-dns"),
    *("/connected-ips", "/connected-ips6"),
)
LIVE_BELOW = ("/qubes-netvm-", "/mapped-ip/")


def entries(system: System, qube: Qube) -> dict[str, str]:
    """Keys of a client, of a provider, or of both."""
    return {**_client(system, qube), **_provider(system, qube)}


def _client(system: System, qube: Qube) -> dict[str, str]:
    if value_of(system, qube, "netvm") is None:
        return {}
    found = {
        "/qubes-mac": value_of(system, qube, "mac"),
        "/qubes-ip": value_of(system, qube, "visible_ip"),
        "/qubes-netmask": value_of(system, qube, "visible_netmask"),
        "/qubes-gateway": value_of(system, qube, "visible_gateway"),
        "/qubes-primary-dns": addresses.DNS[0],
        "/qubes-secondary-dns": addresses.DNS[1],
        "/qubes-ip6": value_of(system, qube, "visible_ip6"),
        "/qubes-gateway6": value_of(system, qube, "visible_gateway6"),
    }
    return {key: str(value) for key, value in found.items() if value}


def _provider(system: System, qube: Qube) -> dict[str, str]:
    if not qube.properties.get("provides_network"):
        return {}
    own = str(value_of(system, qube, "gateway"))
    found = {
        "/qubes-netvm-network": own,
        "/qubes-netvm-gateway": own,
        "/qubes-netvm-netmask": addresses.NETMASK,
        "/qubes-netvm-primary-dns": addresses.DNS[0],
        "/qubes-netvm-secondary-dns": addresses.DNS[1],
    }
    if own6 := value_of(system, qube, "gateway6"):
        found["/qubes-netvm-gateway6"] = str(own6)
    mine = clients(system, qube)
    for key, name in (("/connected-ips", "visible_ip"), ("/connected-ips6", "visible_ip6")):
        visible = (value_of(system, one, name) for one in mine)
        found[key] = " ".join(str(address) for address in visible if address)
    for one in mine:
        found |= _mapped(system, one)
    return found


def _mapped(system: System, client: Qube) -> dict[str, str]:
    """What a client is told of addresses, where that is not how it is."""
    real, visible = own_ip(system, client), value_of(system, client, "visible_ip")
    if not real or visible == real:
        return {}
    below = f"/mapped-ip/{real}"
    gateway = value_of(system, client, "visible_gateway")
    return {f"{below}/visible-ip": str(visible), f"{below}/visible-gateway": str(gateway)}
