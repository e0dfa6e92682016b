"""How much clients sent and received, as their providers say: untrusted, and within a time."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from insula.client import errors
from insula.client.services import run_service

SERVICE = "insula.NetCounters"
TIMEOUT = 5.0  # seconds for all providers together
_MOST = 65_536  # bytes of an answer
_LINE = re.compile(r"vif([0-9]{1,10})\.0 ([0-9]{1,20}) ([0-9]{1,20})", re.ASCII)


class Counted(NamedTuple):
    """Bytes, as the client sees them."""

    sent: int
    received: int


Ask = Callable[[str], bytes]


def ask(provider: str) -> bytes:
    """What a provider says.

    Raises:
        QubesException: it cannot be asked.
    """
    return run_service(provider, SERVICE, autostart=False, limit=_MOST).output


def read(providers: Iterable[str], asking: Ask = ask) -> dict[str, dict[int, Counted]]:
    """By provider, and by number of a client's domain; who does not answer in time is left out."""
    found: dict[str, dict[int, Counted]] = {}

    def one(provider: str) -> None:
        try:
            found[provider] = parse(asking(provider).decode("ascii", "replace"))
        except errors.QubesException:
            return  # It has no such service, or has ended.

    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in providers]
    deadline = time.monotonic() + TIMEOUT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def parse(untrusted: str) -> dict[int, Counted]:
    """Lines of card, bytes received and bytes sent, as the provider sees them; others are none."""
    matches = map(_LINE.fullmatch, untrusted.splitlines())
    return {int(one[1]): Counted(int(one[2]), int(one[3])) for one in matches if one is not None}
