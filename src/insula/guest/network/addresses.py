"""What a card is to be given, from QubesDB keys or from the daemon's message; nothing is done here.

Source: network-firewall.md sections 2 to 4. A value that is accepted here has the form of an
address, so that it can stand in a command.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)

from insula.protocol.links import Link

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Read = Callable[[str], str | None]

PROVIDER_MAC = "fe:ff:ff:ff:ff:ff"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_VIF = re.compile(r"vif(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_LAST_DOMAIN = 32_752


class UnusableLinkError(ValueError):
    """A card cannot be configured with what is known of it."""


@dataclass(frozen=True, slots=True)
class Outward:
    """A card that leads out of this qube: to its provider, or of a net qube to the outside.

    neighbours: whether the gateways' are entered, as nobody answers for them. dns: in its order.
    """

    group: int
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    neighbours: bool
    dns: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Provider:
    """What a qube that provides network knows of itself. virtual_dns: that its clients ask."""

    gateway: IPv4Address
    gateway6: IPv6Address | None
    virtual_dns: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class Downlink:
    """A client's card in its provider. addresses: the client's real ones.

    visible, visible_gateway: what the client is told; None where that is the truth.
    """

    name: str
    domain: int
    client_mac: str
    addresses: tuple[Address, ...]
    gateways: tuple[Address, ...]
    visible: IPv4Address | None
    visible_gateway: IPv4Address | None


def mac_address(value: str | None) -> str:
    """Accept a MAC in its one form.

    Raises:
        UnusableLinkError: it is not in it.
    """
    if value is None or _MAC.fullmatch(value) is None:
        raise UnusableLinkError(f"not a MAC: {value!r}")
    return value


def card_name(value: str) -> str:
    """Accept a name that a card can have.

    Raises:
        UnusableLinkError: it cannot.
    """
    if _NAME.fullmatch(value) is None:
        raise UnusableLinkError(f"not a name of a card: {value!r}")
    return value


def from_keys(read: Read, mac: str) -> Outward:
    """The uplink, as this card's own keys say, else as those of the qube do.

    Raises:
        UnusableLinkError: there is no address, or something is none.
    """

    def value(name: str, fallback: str | None = None) -> str | None:
        own = read(f"/net-config/{mac}/{name}")
        return own or (read(fallback) if fallback else None) or None

    ip = value("ip", "/qubes-ip")
    if ip is None:
        raise UnusableLinkError("no address is known of the uplink")
    netmask = value("netmask", "/qubes-netmask") or "255.255.255.255"
    addresses = [_interface(f"{ip}/{netmask}")]
    if (ip6 := value("ip6", "/qubes-ip6")) is not None:
        addresses.append(_interface(f"{ip6}/{value('netmask6') or 128}"))
    gateway, gateway6 = value("gateway", "/qubes-gateway"), value("gateway6", "/qubes-gateway6")
    gateways = [_address(one) for one in (gateway, gateway6 if ip6 else None) if one]
    servers = [read("/qubes-primary-dns") or gateway, read("/qubes-secondary-dns")]
    return Outward(
        group=1,
        addresses=tuple(addresses),
        gateways=tuple(gateways),
        neighbours=read(f"/net-config/{mac}/custom") is None,
        dns=tuple(_address(one) for one in servers if one),
    )


def from_message(link: Link) -> Outward:
    """A net qube's card, as the daemon says.

    Raises:
        UnusableLinkError: something is no address.
    """
    return Outward(
        group=0,
        addresses=tuple(map(_interface, link.ips)),
        gateways=tuple(map(_address, link.gateways)),
        neighbours=False,
        dns=tuple(map(_address, link.dns)),
    )


def provider(read: Read) -> Provider | None:
    """This qube as a provider; None when it is none.

    Raises:
        UnusableLinkError: something is no address.
    """
    own = read("/qubes-netvm-network")
    if not own:
        return None
    gateway6 = read("/qubes-netvm-gateway6")
    virtual = (read("/qubes-netvm-primary-dns"), read("/qubes-netvm-secondary-dns"))
    return Provider(
        gateway=_ipv4(read("/qubes-netvm-gateway") or own),
        gateway6=_ipv6(gateway6) if gateway6 else None,
        virtual_dns=tuple(_ipv4(one) for one in virtual if one),
    )


def downlink(link: Link, own: Provider) -> Downlink:
    """A client's card.

    Raises:
        UnusableLinkError: its name is none of a vif, or something is no address.
    """
    found = _VIF.fullmatch(link.name)
    if found is None or int(found.group(1)) > _LAST_DOMAIN:
        raise UnusableLinkError(f"not a name of a client's card: {link.name!r}")
    addresses = tuple(map(_address, link.ips))
    if not addresses:
        raise UnusableLinkError("a client without addresses")
    visible = visible_gateway = None
    if link.visible_ip and _ipv4(link.visible_ip) != addresses[0]:
        visible = _ipv4(link.visible_ip)
    if link.visible_gateway and _ipv4(link.visible_gateway) != own.gateway:
        visible_gateway = _ipv4(link.visible_gateway)
    if visible or visible_gateway:
        addresses = (_ipv4(link.ips[0]),)  # IPv6 is off on such a link.
    ipv6 = any(address.version == 6 for address in addresses)
    return Downlink(
        name=card_name(link.name),
        domain=int(found.group(1)),
        client_mac=mac_address(link.client_mac),
        addresses=addresses,
        gateways=(own.gateway, own.gateway6) if ipv6 and own.gateway6 else (own.gateway,),
        visible=visible,
        visible_gateway=visible_gateway,
    )


def _interface(text: str) -> Interface:
    try:
        return ip_interface(text)
    except ValueError as error:
        raise UnusableLinkError(str(error)) from None


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise UnusableLinkError(str(error)) from None


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise UnusableLinkError(str(error)) from None


def _ipv6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError as error:
        raise UnusableLinkError(str(error)) from None
