"""Doing to cards what the other modules of this room say.

Nothing passes a card before all that guards it is in force, and it is down again if that fails.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from insula.guest import conntrack
from insula.guest.network import (
    acceleration,
    addresses,
    cards,
    downlink,
    hidden,
    hooks,
    manager,
    outward,
    programs,
    redirecting,
    resolver,
    sysctls,
)
from insula.guest.network.addresses import Downlink, Outward, Provider, Read, UnusableLinkError
from insula.guest.network.places import Places
from insula.guest.network.records import Record, Records
from insula.guest.protected import protected_files
from insula.protocol.links import Link, LinkRole

_NAMESPACES = Path("/run/netns")


class Configuring:
    """Configures cards. read: a value of QubesDB as it is now."""

    def __init__(self, read: Read, places: Places) -> None:
        """Raises: OSError: the directory for what is remembered cannot be used."""
        self._read = read
        self._places = places
        self._records = Records(places.state)
        self._later: dict[Callable[[], None], None] = {}  # in their order, each once
        self._can_accelerate = True

    def is_there(self, link: Link) -> bool:
        """Whether a link's card has appeared."""
        record = self._records.get(link.number)
        return (record is not None and self._holds(record, link)) or self._find(link) != 0

    def set_up(self, link: Link) -> None:
        """Configure a card anew; one that is as it should be goes on undisturbed.

        Raises:
            OSError, ProgramError, UnusableLinkError: it is down.
        """
        try:
            if not self._places.base_rules.exists():
                raise UnusableLinkError("the base rules are not in force")
            own = addresses.provider(self._read)
            if link.role is not LinkRole.DOWNLINK:
                self._set_up_outward(link, own)
            elif own is None:
                raise UnusableLinkError("this qube does not provide network")
            else:
                self._set_up_downlink(link, addresses.downlink(link, own), own)
        except BaseException:
            self.take_down(link.number)
            raise

    def take_down(self, number: int) -> None:
        """Have a card be as if it had never been configured; one that is gone is no failure."""
        record = self._records.get(number)
        if record is None:
            return
        link = record.link
        if (name := cards.name_of(record.index)) is not None:
            with suppress(OSError):
                cards.take_down(name)
        if link.role is LinkRole.DOWNLINK:
            self._withdraw(link)
        else:
            manager.take_back(link.name, self._places)
        index = _brought_home(record)
        if (name := cards.name_of(index)) is not None:
            with suppress(OSError):
                cards.set_mac(name, link.mac)
                _step_aside(index, name)
        self._records.drop(number)

    def settle(self) -> None:
        """Do what need not be done before a link is said to be up."""
        later, self._later = self._later, {}
        for task in later:
            task()

    def _set_up_outward(self, link: Link, own: Provider | None) -> None:
        name = addresses.card_name(link.name)
        uplink = link.role is LinkRole.UPLINK
        mac = addresses.mac_address(link.own_mac or link.mac)
        card = addresses.from_keys(self._read, mac) if uplink else addresses.from_message(link)
        if self._places.service("disable-dns-server"):
            card = replace(card, dns=())
        default_route = not self._places.service("disable-default-route")
        managed = uplink and manager.is_in_charge(self._places)
        text = manager.connection(name, mac, card, default_route=default_route) if managed else ""
        commands = outward.commands(name, card, default_route=default_route)
        fresh = not self._is_set_up(link, commands)
        if fresh:
            self._claim(link, commands)
        sysctls.write(sysctls.of_card(name, silent=uplink, hardened=self._hardened()))
        self._ask(card)
        if own is not None:
            self._pass_on(own)
            self._do_later(self._accelerate)
        if text:
            programs.ip([f"link set dev {name} group {card.group}"])
            manager.hand_over(name, text, self._places)
            programs.ip(outward.neighbours(name, card))
        else:
            programs.ip([f"addr flush dev {name}", *commands] if fresh else commands)
            if card.dns:
                resolver.tell_resolved(name, card.dns, self._places)
        self._do_later(self._tell_of_change)

    def _ask(self, card: Outward) -> None:
        """Have programs ask the name servers of a card."""
        path = self._places.resolv_conf
        if card.dns and str(path) not in protected_files(str(self._places.config)):
            resolver.write(path, resolver.text(card.dns))

    def _set_up_downlink(self, link: Link, card: Downlink, own: Provider) -> None:
        commands = downlink.commands(card)
        told = [*hidden.making(card), *hidden.inside(card)] if hidden.is_hidden(card) else []
        if self._is_set_up(link, [*told, *commands]):
            self._pass_on(own, downlink.allow(card))
            programs.ip(commands)
            return
        self._claim(link, [*told, *commands])
        if told:
            self._hide(link, card, [*told, *commands])
        for address in card.addresses:
            conntrack.forget(str(address))
        ipv6 = any(address.version == 6 for address in card.addresses)
        sysctls.write(
            sysctls.of_card(card.name, silent=True, hardened=self._hardened())
            | sysctls.of_downlink(card.name, ipv6=ipv6)
        )
        self._pass_on(own, downlink.allow(card))
        programs.ip([f"addr flush dev {card.name}", *commands])
        hooks.client_link(self._places.config, "online", card.name, str(card.addresses[0]))
        self._do_later(self._accelerate)

    def _hide(self, link: Link, card: Downlink, commands: Sequence[str]) -> None:
        namespace = hidden.Names(card.name).namespace
        programs.ip(hidden.making(card))
        self._records.keep(Record(link, cards.index_of(card.name), tuple(commands)))
        programs.nft(hidden.rules(card), namespace=namespace)
        programs.ip(hidden.inside(card), namespace=namespace)

    def _pass_on(self, own: Provider, rules: str = "") -> None:
        """Be a provider, with these rules and those that questions for names need."""
        redirection = redirecting.pending(own, self._places)
        if redirection:
            redirecting.put_in_force(redirection, self._places, rules)
            self._do_later(self._tell_firewall)
        elif rules:
            programs.nft(rules)
        sysctls.write(sysctls.of_provider(ipv6=own.gateway6 is not None))

    def _withdraw(self, link: Link) -> None:
        """Undo what besides its card makes a client's link."""
        real = [ip_address(ip) for ip in link.ips]
        others = [each.link for each in self._records if each.link.number != link.number]
        kept = [ip_address(ip) for other in others for ip in other.ips if _is_client(other)]
        try:
            programs.nft(downlink.forbid(link.name, real, kept))
        except programs.ProgramError as error:
            print(f"network: {error}", flush=True)
        for address in real:
            with suppress(OSError):
                conntrack.forget(str(address))
        hooks.client_link(self._places.config, "offline", link.name, link.ips[0])

    def _is_set_up(self, link: Link, commands: Sequence[str]) -> bool:
        """Whether a card is what it would be made to be."""
        record = self._records.get(link.number)
        if record is None or record != Record(link, record.index, tuple(commands)):
            return False
        return self._holds(record, link) and cards.is_up(link.name)

    def _holds(self, record: Record, link: Link) -> bool:
        """Whether a record's card is there, and a link's."""
        return record.link.mac == link.mac and cards.name_of(record.index) == record.link.name

    def _find(self, link: Link) -> int:
        return cards.find(link.mac, {record.index for record in self._records})

    def _claim(self, link: Link, commands: Sequence[str]) -> None:
        """Have a link's card be down, and have its name.

        Raises:
            OSError: it is gone.
        """
        self.take_down(link.number)
        index = self._find(link)
        name = cards.name_of(index)
        if name is None:
            raise OSError(errno.ENODEV, f"there is no card {link.mac}")
        occupant = cards.index_of(link.name)
        if occupant not in (0, index):
            _step_aside(occupant, link.name)
        cards.take_down(name)
        if name != link.name:
            cards.rename(name, link.name)
        if link.own_mac:
            cards.set_mac(link.name, addresses.mac_address(link.own_mac))
        self._records.keep(Record(link, index, tuple(commands)))

    def _hardened(self) -> bool:
        return bool(self._read("/qubes-service/harden-network-interfaces"))

    def _do_later(self, task: Callable[[], None]) -> None:
        self._later[task] = None

    def _tell_of_change(self) -> None:
        hooks.uplink_changed(self._places.config)

    def _tell_firewall(self) -> None:
        redirecting.tell_firewall(self._places)

    def _accelerate(self) -> None:
        """A kernel that cannot is asked once."""
        if self._can_accelerate:
            try:
                programs.nft(acceleration.rules(cards.all_names()))
            except programs.ProgramError as error:
                self._can_accelerate = False
                print(f"network: connections are not accelerated: {error}", flush=True)


def _is_client(link: Link) -> bool:
    return link.role is LinkRole.DOWNLINK


def _step_aside(index: int, name: str) -> None:
    """Take a card down and give its name free."""
    cards.take_down(name)
    if name != _spare(index):
        cards.rename(name, _spare(index))


def _spare(index: int) -> str:
    return f"off{index}"


def _brought_home(record: Record) -> int:
    """The number of a record's card, back from the namespace that it may have been hidden in."""
    name = record.link.name
    namespace = hidden.Names(name).namespace
    if record.link.role is not LinkRole.DOWNLINK or not (_NAMESPACES / namespace).exists():
        return record.index
    spare = _spare(record.index)
    home = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    programs.ip(hidden.leaving(name, spare, home), namespace=namespace, force=True)
    programs.ip(hidden.unmaking(name), force=True)
    return cards.index_of(spare)
