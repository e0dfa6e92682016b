"""A card that is left to NetworkManager: the file by which it knows it (network-firewall.md 3)."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from insula.guest.network.addresses import Outward
from insula.guest.network.places import Places
from insula.guest.network.programs import ProgramError

_UUID = "de85f79b-8c3d-405f-a652-"  # and the MAC
_TIMEOUT = 30.0  # seconds


def is_in_charge(places: Places) -> bool:
    """Whether there is one, and it is to run."""
    return places.service("network-manager") and os.access(places.nmcli, os.X_OK)


def connection(name: str, mac: str, card: Outward, *, default_route: bool) -> str:
    """The file's content; DNS as card says."""
    lines = [
        "[connection]",
        f"id=VM uplink {name}",
        f"uuid={_UUID}{mac.replace(':', '')}",
        "type=ethernet",
        "",
        "[ethernet]",
        f"mac-address={mac}",
    ]
    for version in (4, 6):
        lines += ["", f"[ipv{version}]", *_family(card, version, default_route=default_route)]
    return "\n".join((*lines, ""))


def _family(card: Outward, version: int, *, default_route: bool) -> Iterator[str]:
    address = next((each for each in card.addresses if each.version == version), None)
    if address is None:
        yield "method=disabled"
        return
    gateway = next((each for each in card.gateways if each.version == version), None)
    yield "method=manual"
    yield f"address1={address}" + (f",{gateway}" if gateway else "")
    if servers := [str(each) for each in card.dns if each.version == version]:
        yield f"dns={';'.join(servers)};"
    if not default_route:
        yield "never-default=true"


def hand_over(name: str, text: str, places: Places) -> None:
    """Have NetworkManager configure a card.

    Raises:
        OSError, ProgramError: it does not know of the card.
    """
    path = _path(name, places)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    try:
        subprocess.run(
            [places.nmcli, "connection", "load", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise ProgramError(str(error)) from None


def take_back(name: str, places: Places) -> None:
    """Have NetworkManager forget a card at its next look."""
    with suppress(OSError):
        _path(name, places).unlink()


def _path(name: str, places: Places) -> Path:
    return places.connections / f"qubes-uplink-{name}"
