"""Firewall rules of qubes (admin-api.md section 4.9)."""

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import RefusedSilentlyError
from insula.protocol.errors import ProtocolError
from insula.protocol.firewall import parse_rules


async def get(call: Call) -> str:
    return "".join(f"{rule}\n" for rule in call.api.firewall.rules(call.destination))


async def set_rules(call: Call) -> str:
    try:
        rules = parse_rules(call.payload_text())
    except ProtocolError as error:
        raise RefusedSilentlyError(str(error)) from None
    await call.api.firewall.set(call.destination, rules)
    return ""


async def reload(call: Call) -> str:
    call.api.firewall.reload(call.destination)
    return ""


METHODS = {
    "admin.vm.firewall.Get": Method(run=get, destination="machine"),
    "admin.vm.firewall.Set": Method(run=set_rules, destination="machine", payload=True),
    "admin.vm.firewall.Reload": Method(run=reload, destination="machine"),
}
