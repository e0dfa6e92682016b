"""Notes on qubes (admin-api.md section 4.10)."""

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import QubeNotFoundError, RefusedSilentlyError
from insula.daemon.model.notes import MAXIMUM, displayable


async def get(call: Call) -> str:
    return call.destination.notes


async def set_notes(call: Call) -> str:
    if len(call.untrusted_payload) > MAXIMUM:
        raise RefusedSilentlyError(f"notes of more than {MAXIMUM} bytes")
    try:
        text = call.untrusted_payload.decode()
    except UnicodeDecodeError:
        raise RefusedSilentlyError("the notes are not UTF-8") from None
    async with call.api.world.editing() as edit:
        if call.destination.uuid not in edit.system.qubes:
            raise QubeNotFoundError(call.destination.name)
        edit.touch(call.destination).notes = displayable(text)
    return ""


# Their arguments are ignored.
METHODS = {
    "admin.vm.notes.Get": Method(run=get, destination="not dom0", argument=True),
    "admin.vm.notes.Set": Method(
        run=set_notes, destination="not dom0", argument=True, payload=True
    ),
}
