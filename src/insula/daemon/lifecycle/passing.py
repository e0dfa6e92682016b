"""Disposables that serve one caller and vanish with its call."""

from contextlib import suppress

from insula.daemon.lifecycle.administration import Administration
from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.preloading import Preloading
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import NotStartedError
from insula.daemon.model.qube import Qube


class Passing:
    """Makes them, or takes one that waits, and ends them."""

    def __init__(
        self, world: World, power: Power, administration: Administration, preloading: Preloading
    ) -> None:
        self._world, self._power = world, power
        self._administration, self._preloading = administration, preloading

    async def take(self, template: Qube, creator: Qube) -> Qube:
        """A disposable of a template, which runs already or can be started.

        Raises:
            ReportableError: there can be none.
        """
        qube = await self._preloading.take(template, creator, fleeting=True)
        if qube is not None:
            return qube
        return await self._administration.create_disposable(template, creator, fleeting=True)

    async def end(self, qube: Qube) -> None:
        """End one, however far it came."""
        if not qube.halted:
            with suppress(NotStartedError):
                await self._power.kill(qube)
        elif qube.uuid in self._world.system.qubes:
            await self._administration.remove(qube)
