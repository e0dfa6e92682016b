"""Qubes that start with the instance."""

import logging

from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.world import World
from insula.protocol.errors import ReportableError

MARK = "autostarted"

log = logging.getLogger(__name__)


async def start_all(world: World, power: Power, session: str) -> None:
    """Start qubes whose property autostart is set, one after another, once in a session.

    session: what tells one life of the instance from another; a daemon may come after another.
    """
    mark = world.run / MARK
    if mark.exists() and mark.read_text() == session:
        return
    mark.write_text(session)
    for qube in world.system.in_order():
        if not qube.klass.is_machine or not qube.properties.get("autostart"):
            continue
        try:
            await power.start(qube)
        except ReportableError as error:
            log.warning("qube not started", extra={"qube": qube.name, "why": str(error)})
