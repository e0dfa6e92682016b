"""Network cards of a running QEMU, each on a cable of its own, plugged in and taken away.

The first card is part of every machine, so that a clone has it at once: it is at a hub, to which
its cable is joined and from which it is taken.
"""

import re

from insula.daemon.engine.interface import FIRST_CARD, CableKind, Card, EngineError
from insula.daemon.engine.qemu.plugging import UNPLUG_TIMEOUT, attempt, free_bus
from insula.daemon.engine.qemu.qmp import Monitor

HUB = 0
FIRST_DEVICE = "nic0"
_JOINT = "joint"  # between the hub and the first card's cable
_CABLE = re.compile(r"\bcable-([0-9]+):", re.ASCII)


async def plug(monitor: Monitor, name: str, card: Card) -> None:
    """Give a machine one more card, or the first one its cable.

    Raises:
        EngineError: it was refused; nothing of it is left.
    """
    if card.number in await numbers(monitor):
        raise EngineError(f"{name} has a network card {card.number} already")
    cable = _cable(card.number)
    await monitor.with_descriptor(
        card.end, "netdev_add", lambda fdname: {"id": cable, **_backend(card.kind, fdname)}
    )
    try:
        if card.number == FIRST_CARD:
            joint = {"type": "hubport", "id": _JOINT, "hubid": HUB, "netdev": cable}
            await monitor.execute("netdev_add", joint)
            await monitor.execute("set_link", {"name": FIRST_DEVICE, "up": True})
        else:
            await _add(monitor, name, card, cable)
    except EngineError:
        if card.number == FIRST_CARD:
            await attempt(monitor, "netdev_del", {"id": _JOINT})
        await attempt(monitor, "netdev_del", {"id": cable})
        raise


async def _add(monitor: Monitor, name: str, card: Card, cable: str) -> None:
    bus = await free_bus(monitor, name)
    device = {"driver": "virtio-net-pci", "id": _device(card.number), "netdev": cable}
    await monitor.execute("device_add", {**device, "mac": card.mac, "romfile": "", "bus": bus})


async def unplug(monitor: Monitor, name: str, number: int) -> None:
    """Take a card away, once the guest has let go of it, or the first one's cable.

    Raises:
        EngineError: there is no such card, or the guest does not let go of it.
    """
    if number not in await numbers(monitor):
        raise EngineError(f"{name} has no network card {number}")
    if number == FIRST_CARD:
        await monitor.execute("set_link", {"name": FIRST_DEVICE, "up": False})
        await monitor.execute("netdev_del", {"id": _JOINT})
    else:
        device = _device(number)
        await monitor.until(
            "DEVICE_DELETED",
            lambda data: data.get("device") == device,
            UNPLUG_TIMEOUT,
            "device_del",
            {"id": device},
        )
    await monitor.execute("netdev_del", {"id": _cable(number)})


async def numbers(monitor: Monitor) -> frozenset[int]:
    """Numbers of a machine's cards that have a cable."""
    said = await monitor.execute("human-monitor-command", {"command-line": "info network"})
    return frozenset(map(int, _CABLE.findall(str(said))))


def _device(number: int) -> str:
    return f"card-{number}"


def _cable(number: int) -> str:
    return f"cable-{number}"


def _backend(kind: CableKind, fdname: str) -> dict[str, object]:
    if kind is CableKind.STREAM:
        return {"type": "socket", "fd": fdname}
    return {"type": "dgram", "local": {"type": "fd", "str": fdname}}
