"""What qubes tell of themselves (admin-api.md section 4.14); the source is the qube."""

import re
import time

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model import announcing
from insula.daemon.model.errors import QubeNotFoundError, RefusedSilentlyError
from insula.daemon.model.qube import Qube

_REQUESTED, _TOOLS = "/features-request/", "/qubes-tools/"
_TOOL_KEYS = ("qrexec", "gui", "gui-emulated", "default-user", "os")
_COUNT = re.compile(rb"[0-9]+")


async def features_request(call: Call) -> str:
    asked = announcing.checked_request(_written(call, _REQUESTED))
    await _take(call, asked)
    return ""


async def notify_tools(call: Call) -> str:
    written = _written(call, _TOOLS)
    asked = {key: value for key, value in written.items() if key in _TOOL_KEYS}
    await _take(call, announcing.checked_request(asked, tools=True))
    return ""


async def notify_updates(call: Call) -> str:
    untrusted = call.untrusted_payload.strip()
    if _COUNT.fullmatch(untrusted) is None:
        raise RefusedSilentlyError("not a number of updates")
    available = bool(untrusted.strip(b"0"))
    noted = _where_updates_are(call, available=available)
    if noted is not None:
        async with call.api.world.editing() as edit:
            if noted.uuid not in edit.system.qubes:
                raise QubeNotFoundError(noted.name)
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            announcing.note_updates(edit, noted, now, available=available)
    return ""


def _where_updates_are(call: Call, *, available: bool) -> Qube | None:
    """The qube that a count of updates is about, if its teller can know it."""
    source = call.source
    found = announcing.updateable(call.api.world.system, source)
    if found is source:
        return found
    if found is None or not found.halted or not available:
        return None
    root = source.volumes.get("root")
    if root is None or call.api.volumes.is_outdated(source, root):
        return None
    return found


def _written(call: Call, prefix: str) -> dict[str, str]:
    """What the source wrote to its QubesDB below a path."""
    written = call.api.world.untrusted_written.get(call.source.uuid, {})
    return {
        key.removeprefix(prefix): value for key, value in written.items() if key.startswith(prefix)
    }


async def _take(call: Call, asked: dict[str, str]) -> None:
    async with call.api.world.editing() as edit:
        if call.source.uuid not in edit.system.qubes:
            raise QubeNotFoundError(call.source.name)
        announcing.take_request(edit, call.source, asked)


METHODS: dict[str, Method] = {
    "qubes.FeaturesRequest": Method(run=features_request, destination="dom0"),
    "qubes.NotifyTools": Method(run=notify_tools, destination="dom0"),
    "qubes.NotifyUpdates": Method(run=notify_updates, destination="dom0", payload=True),
}
