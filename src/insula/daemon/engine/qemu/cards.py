"""Network cards of a running QEMU, plugged in and taken away, each on a cable of its own."""

import re

from insula.daemon.engine.interface import CableKind, Card, EngineError
from insula.daemon.engine.qemu.plugging import UNPLUG_TIMEOUT, attempt, free_bus, peripherals
from insula.daemon.engine.qemu.qmp import Monitor

_CARD = re.compile(r"card-([0-9]+)", re.ASCII)


async def plug(monitor: Monitor, name: str, card: Card) -> None:
    """Give a machine one more card.

    Raises:
        EngineError: it was refused; nothing of it is left.
    """
    if card.number in await numbers(monitor):
        raise EngineError(f"{name} has a network card {card.number} already")
    bus = await free_bus(monitor, name)
    cable = _cable(card.number)
    await monitor.with_descriptor(
        card.end, "netdev_add", lambda fdname: {"id": cable, **_backend(card.kind, fdname)}
    )
    device = {"driver": "virtio-net-pci", "id": f"card-{card.number}", "netdev": cable}
    try:
        await monitor.execute("device_add", {**device, "mac": card.mac, "romfile": "", "bus": bus})
    except EngineError:
        await attempt(monitor, "netdev_del", {"id": cable})
        raise


async def unplug(monitor: Monitor, name: str, number: int) -> None:
    """Take a card away, once the guest has let go of it.

    Raises:
        EngineError: there is no such card, or the guest does not let go of it.
    """
    device = f"card-{number}"
    if number not in await numbers(monitor):
        raise EngineError(f"{name} has no network card {number}")
    await monitor.until(
        "DEVICE_DELETED",
        lambda data: data.get("device") == device,
        UNPLUG_TIMEOUT,
        "device_del",
        {"id": device},
    )
    await monitor.execute("netdev_del", {"id": _cable(number)})


async def numbers(monitor: Monitor) -> frozenset[int]:
    """Numbers of a machine's cards."""
    found = (_CARD.fullmatch(one) for one in await peripherals(monitor))
    return frozenset(int(one[1]) for one in found if one is not None)


def _cable(number: int) -> str:
    return f"cable-{number}"


def _backend(kind: CableKind, fdname: str) -> dict[str, object]:
    if kind is CableKind.STREAM:
        return {"type": "socket", "fd": fdname}
    return {"type": "dgram", "local": {"type": "fd", "str": fdname}}
