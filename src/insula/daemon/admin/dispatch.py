"""From a request to its method's answer, whatever goes wrong in between."""

import logging
import re
from collections.abc import Mapping
from uuid import UUID

from insula.daemon.admin.calls import Api, Call, Method
from insula.daemon.admin.methods import (
    console,
    denied,
    devices,
    domains,
    features,
    firewall,
    internal,
    labels,
    misc,
    notes,
    policy,
    pools,
    power,
    properties,
    volumes,
)
from insula.daemon.model.errors import (
    InvalidUuidError,
    QubeNotFoundError,
    RefusedSilentlyError,
    full_text,
)
from insula.daemon.model.qube import Qube, check_name
from insula.daemon.model.system import System
from insula.protocol import admin
from insula.protocol.admin import AdminRequest
from insula.protocol.errors import ReportableError

# The methods of each socket: a name means something on its own socket alone.
SOCKETS: dict[str, dict[str, Method]] = {
    "qubesd.sock": {
        **domains.METHODS,
        **power.METHODS,
        **properties.METHODS,
        **features.METHODS,
        **labels.METHODS,
        **pools.METHODS,
        **volumes.METHODS,
        **notes.METHODS,
        **firewall.METHODS,
        **devices.METHODS,
        **denied.METHODS,
        **console.METHODS,
        **policy.METHODS,
    },
    "qubesd.internal.sock": {**internal.METHODS, **volumes.IMPORTS},
    "qubesd.misc.sock": misc.METHODS,
}
_UUID_PREFIX = "uuid:"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

log = logging.getLogger(__name__)


async def answer(
    api: Api, methods: Mapping[str, Method], request: AdminRequest, untrusted_payload: bytes
) -> bytes:
    """The whole answer to a request; empty where the API refuses without a word.

    Its source is believed: whoever can open the socket may act for any qube. What a qube itself
    may ask for is for the policy to say, before its request comes here.
    """
    try:
        call = resolve(api, request, untrusted_payload)
        method = methods.get(request.method)
        if method is None:
            raise RefusedSilentlyError("no such method")
        method.check(call)
        return admin.ok(await method.run(call))
    except ReportableError as error:
        return admin.exception(error.api_name, full_text(error))
    except RefusedSilentlyError as error:
        log.info("refused", extra={"method": request.method, "why": str(error)})
    except Exception:
        log.exception("call failed", extra={"method": request.method})
    return b""


def resolve(api: Api, request: AdminRequest, untrusted_payload: bytes) -> Call:
    """The call of a request.

    Raises:
        ReportableError: its source or destination is no known qube.
    """
    return Call(
        api=api,
        method=request.method,
        argument=request.argument,
        source=find_qube(api.world.system, request.source),
        destination=find_qube(api.world.system, request.destination),
        untrusted_payload=untrusted_payload,
    )


def find_qube(system: System, text: str) -> Qube:
    """A qube by its name, or by `uuid:` and its UUID.

    Raises:
        ReportableError: it is neither, or there is no such qube.
    """
    if text.startswith(_UUID_PREFIX):
        digits = text.removeprefix(_UUID_PREFIX)
        if _UUID.fullmatch(digits) is None:
            raise InvalidUuidError(digits)
        found = system.find(UUID(digits))
        if found is None:
            raise QubeNotFoundError(text)
        return found
    return system.named(check_name(text))
