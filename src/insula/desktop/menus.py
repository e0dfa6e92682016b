"""Has the host's menu follow what happens to qubes, by a program that runs when something did."""

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from insula.client.errors import QubesException
from insula.protocol.admin import Event, parse_listed_qubes
from insula.protocol.errors import ProtocolError

_PROGRAM = "insula.menus.keeping"
_PAUSE = 0.5  # seconds in which more may happen
_TIMEOUT = 300.0
_END_TIMEOUT = 5.0
_TELLING = frozenset(("TemplateVM", "StandaloneVM"))
_DISPOSABLE = re.compile(r"disp[0-9]+")
_PROPERTIES = frozenset(
    (
        *("label", "template", "provides_network", "template_for_dispvms", "default_dispvm"),
        *("auto_cleanup", "guivm"),
    )
)
_FEATURES = frozenset(
    (
        *("menu-items", "default-menu-items", "netvm-menu-items", "internal"),
        "appmenus-dispvm",
    )
)

log = logging.getLogger("insula.session")


Ask = Callable[[str, str], Awaitable[str]]


class Menus:
    """Knows what happened since the menu was brought up to date. ask: calls the Admin API."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._happened = asyncio.Event()
        self._due = False
        self._started: set[str] = set()

    def take(self, event: Event) -> None:
        """Learn of an event."""
        if concerns_menus(event):
            self._due = True
            self._happened.set()
        elif event.name == "domain-start":
            self._started.add(event.subject)
            self._happened.set()

    async def serve(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._happened.wait()
            await asyncio.sleep(_PAUSE)
            self._happened.clear()
            due, self._due = self._due, False
            started, self._started = self._started, set()
            telling = [name for name in sorted(started) if await self._tells(name)]
            if due or telling:
                await _refresh(telling)

    async def _tells(self, qube: str) -> bool:
        """Whether a qube has applications of its own, and not those of its template."""
        with suppress(QubesException, ProtocolError):
            listed = parse_listed_qubes(await self._ask(qube, "admin.vm.List"))
            return any(one.klass in _TELLING for one in listed if one.name == qube)
        return False


def concerns_menus(event: Event) -> bool:
    """Whether the menu may have to be another after an event."""
    kind, _, detail = event.name.partition(":")
    match kind:
        case "property-set" | "property-reset":
            return detail in _PROPERTIES
        case "domain-feature-set" | "domain-feature-delete":
            return detail in _FEATURES
        case "domain-add" | "domain-delete":
            # Disposables come and go, each with its call, and have no menu.
            return _DISPOSABLE.fullmatch(event.fields.get("vm", "")) is None
    return kind == "connection-established"


async def _refresh(started: list[str]) -> None:
    words = ("-P", "-s", "-m", _PROGRAM, *started)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        code = await asyncio.wait_for(process.wait(), _TIMEOUT)
        if code:
            log.warning("the menu was not brought up to date: status %d", code)
    except TimeoutError:
        log.warning("the menu was not brought up to date in time")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_TIMEOUT)
