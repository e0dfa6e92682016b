"""What programs of the system itself ask for (admin-api.md section 4.13)."""

import json

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.described import domains


async def system_info(call: Call) -> str:
    """What a policy is evaluated against, as JSON."""
    return json.dumps({"domains": domains(call.api.world.system)})


async def suspend_all(call: Call) -> str:
    await call.api.sleeping.suspend_all()
    return ""


async def resume_all(call: Call) -> str:
    await call.api.sleeping.resume_all()
    return ""


METHODS: dict[str, Method] = {
    "internal.GetSystemInfo": Method(run=system_info, destination="dom0"),
    # Their arguments and payloads are ignored.
    "internal.SuspendPre": Method(run=suspend_all, argument=True, payload=True),
    "internal.SuspendPost": Method(run=resume_all, argument=True, payload=True),
}
