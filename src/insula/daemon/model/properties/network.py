"""Computed properties that follow from a qube's place in the network."""

from collections.abc import Iterator
from uuid import UUID

from insula.daemon.model import addresses
from insula.daemon.model.errors import NotStartedError, PropertyValueError, ValueRefusedError
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System

_LONGEST_CHAIN = 64


def default_netvm(system: System, qube: Qube) -> Value:
    if qube.klass is QubeClass.TEMPLATE:
        return None
    return system.properties.get("default_netvm")


def netvm(system: System, qube: Qube) -> Qube | None:
    """The qube that provides network to another; None without one."""
    value = qube.properties["netvm"] if "netvm" in qube.properties else default_netvm(system, qube)
    return system.find(value) if isinstance(value, UUID) else None


def netvms_of(system: System, qube: Qube) -> Iterator[Qube]:
    """The chain of providers above a qube."""
    found = netvm(system, qube)
    for _ in range(_LONGEST_CHAIN):
        if found is None:
            return
        yield found
        found = netvm(system, found)


def clients(system: System, provider: Qube) -> list[Qube]:
    """Qubes that get their network from this one."""
    return [
        qube
        for qube in system.qubes.values()
        if qube.klass.is_machine and netvm(system, qube) is provider
    ]


def check_netvm(system: System, qube: Qube, value: Value) -> None:
    """Refuse a provider that gets its network through the qube, or could give it none now."""
    provider = system.find(value) if isinstance(value, UUID) else None
    above = provider
    for _ in range(_LONGEST_CHAIN):
        if above is None:
            break
        if above is qube:
            raise ValueRefusedError(f"Loops in network are not allowed: {qube.name} is in its own")
        above = netvm(system, above)
    if provider is not None and provider.halted and not qube.halted:
        raise NotStartedError(provider.name)


def check_default_netvm(system: System, _dom0: Qube, value: Value) -> None:
    """Refuse a default that is behind a qube which would then use it."""
    provider = system.find(value) if isinstance(value, UUID) else None
    if provider is None:
        return
    for one in (provider, *netvms_of(system, provider)):
        if "netvm" not in one.properties and one.klass is not QubeClass.TEMPLATE:
            raise PropertyValueError(
                f"Loops in network are not allowed: {one.name} itself uses the default netvm"
            )


def check_provides_network(system: System, qube: Qube, value: Value) -> None:
    if value or not qube.properties.get("provides_network"):
        return
    if connected := clients(system, qube):
        names = ", ".join(one.name for one in connected)
        error = ValueRefusedError(f"Qube {qube.name} provides network to {names}")
        error.hint = f"Give them another first: qvm-prefs {connected[0].name} netvm OTHER"
        raise error


def provides_network(qube: Qube) -> str | None:
    """Why a qube cannot be a netvm."""
    return None if qube.properties.get("provides_network") else "does not provide network"


def _networked(system: System, qube: Qube) -> bool:
    provides = bool(qube.properties.get("provides_network"))
    return provides or netvm(system, qube) is not None


def _number(qube: Qube) -> tuple[int, bool]:
    dispid = qube.properties.get("dispid")
    if qube.klass is QubeClass.DISPOSABLE and isinstance(dispid, int):
        return dispid, True
    return qube.qid, False


def ip(system: System, qube: Qube) -> Value:
    if not _networked(system, qube):
        return None
    number, disposable = _number(qube)
    return addresses.ip(number, disposable=disposable)


def ip6(system: System, qube: Qube) -> Value:
    if not _has_ipv6(system, qube):
        return None
    number, disposable = _number(qube)
    return addresses.ip6(number, disposable=disposable)


def _has_ipv6(system: System, qube: Qube) -> bool:
    for one in (qube, *netvms_of(system, qube)):
        if "ipv6" in one.features:
            return bool(one.features["ipv6"])
    return False


def own_ip(system: System, qube: Qube, version: int = 4) -> Value:
    """An address as it was set, or else as it follows."""
    name, compute = ("ip", ip) if version == 4 else ("ip6", ip6)
    return qube.properties[name] if name in qube.properties else compute(system, qube)


def visible_ip(system: System, qube: Qube) -> Value:
    return system.feature(qube, "net.fake-ip") or own_ip(system, qube)


def visible_ip6(system: System, qube: Qube) -> Value:
    return own_ip(system, qube, 6)


def gateway(system: System, qube: Qube) -> Value:
    return visible_ip(system, qube) if qube.properties.get("provides_network") else None


def gateway6(system: System, qube: Qube) -> Value:
    provides = qube.properties.get("provides_network") and _has_ipv6(system, qube)
    return visible_ip6(system, qube) if provides else None


def visible_gateway(system: System, qube: Qube) -> Value:
    provider = netvm(system, qube)
    given = system.feature(qube, "net.fake-gateway")
    return given or (gateway(system, provider) if provider else None)


def visible_gateway6(system: System, qube: Qube) -> Value:
    provider = netvm(system, qube)
    return gateway6(system, provider) if provider else None


def visible_netmask(system: System, qube: Qube) -> Value:
    given = system.feature(qube, "net.fake-netmask")
    return given or (addresses.NETMASK if netvm(system, qube) else None)


def dns(system: System, qube: Qube) -> Value:
    return " ".join(addresses.DNS) if _networked(system, qube) else None
