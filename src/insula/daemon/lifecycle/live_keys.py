"""QubesDB while a qube runs: what changes for it reaches it, what it writes is kept (in-qube.md 1).

What a qube writes is untrusted, whatever the key is called: it is kept apart, within a limit, and
read by those who ask for just that.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

from insula.daemon.lifecycle import network_keys, qubesdb
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import QubeNotFoundError
from insula.daemon.model.qube import Qube
from insula.protocol.admin import Event
from insula.protocol.control import Key
from insula.protocol.errors import ReportableError

MOST_KEYS = 1024  # that one qube may have written
MOST_BYTES = 262_144  # of them and their values
_LIVE = (
    "/qubes-service/",
    "/vm-config/",
    "/persist/",
    "/hash-app-dispvm/",
    "/keyboard-layout",
    "/qubes-gui-domain-xid",
    "/qubes-audio-domain-xid",
    "/remote/",
    "/audio-input-config/",
    *network_keys.LIVE_BELOW,
)

log = logging.getLogger(__name__)


class LiveKeys:
    """Keeps running qubes' stores and ours alike. changed: told of a qube that wrote something."""

    def __init__(self, world: World, changed: Callable[[Qube], None]) -> None:
        self._world, self._changed = world, changed
        self._told: dict[UUID, dict[str, str]] = {}

    def start(self) -> None:
        """Follow what happens from now on."""
        self._world.events.add(self._happened)

    def close(self) -> None:
        """Follow no more."""
        self._world.events.remove(self._happened)

    def watch(self, qube: Qube, running: RunningQube) -> None:
        """Look after a qube that runs; what it was told before is said anew."""
        self._told.pop(qube.uuid, None)
        running.link.on_key(partial(self._written, qube))
        self._tell(qube, running)

    def _happened(self, event: Event) -> None:
        with suppress(QubeNotFoundError):
            self.refresh(self._world.system.named(event.subject))

    def refresh(self, qube: Qube) -> None:
        """Tell a qube what has changed for it, which events of its own do not always say."""
        running = self._world.running.get(qube.uuid)
        if running is None:
            self._told.pop(qube.uuid, None)
        else:
            self._tell(qube, running)

    def _tell(self, qube: Qube, running: RunningQube) -> None:
        before, now = self._told.get(qube.uuid, {}), self._live(qube)
        changes = [
            *(Key(key.encode(), None) for key in before.keys() - now.keys()),
            *(Key(key.encode(), now[key].encode()) for key in now if before.get(key) != now[key]),
        ]
        self._told[qube.uuid] = now
        try:
            for change in changes:
                running.link.send(change.encode())
        except ReportableError as error:
            log.info("a qube is not told", extra={"qube": qube.name, "why": str(error)})

    def _live(self, qube: Qube) -> dict[str, str]:
        found = qubesdb.entries(self._world.system, qube)
        return {
            key: value
            for key, value in found.items()
            if key.startswith(_LIVE) or key in network_keys.LIVE
        }

    def _written(self, qube: Qube, untrusted: Key) -> None:
        kept = self._world.untrusted_written.setdefault(qube.uuid, {})
        path = untrusted.path.decode("ascii")
        if untrusted.value is None:
            for key in [one for one in kept if one == path or _is_below(one, path)]:
                del kept[key]
        else:
            value = untrusted.value.decode("utf-8", "replace")
            size = sum(len(key) + len(one) for key, one in kept.items())
            if len(kept) >= MOST_KEYS or size + len(path) + len(value) > MOST_BYTES:
                log.warning("a qube writes too much", extra={"qube": qube.name})
                return
            kept[path] = value
        self._changed(qube)


def _is_below(key: str, path: str) -> bool:
    return path.endswith("/") and key.startswith(path)
