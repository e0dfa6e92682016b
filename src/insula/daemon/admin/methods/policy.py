"""The files of the policy (qrexec-policy.md section 12)."""

import asyncio
from functools import partial

from insula.daemon.admin.calls import Call, Method
from insula.daemon.policy.administration import FormError


async def names(include: bool, call: Call) -> str:
    found = await asyncio.to_thread(call.api.policy.names, include=include)
    return "".join(f"{name}\n" for name in found)


async def get(include: bool, call: Call) -> str:
    token, content = await asyncio.to_thread(call.api.policy.get, call.argument, include=include)
    return f"{token}\n{content}"


async def replace(include: bool, call: Call) -> str:
    token, line_feed, content = call.untrusted_payload.partition(b"\n")
    if not line_feed:
        raise FormError("A token and a line feed come before the content")
    await asyncio.to_thread(
        call.api.policy.replace, call.argument, _token(token), content, include=include
    )
    return ""


async def remove(include: bool, call: Call) -> str:
    token = _token(call.untrusted_payload)
    await asyncio.to_thread(call.api.policy.remove, call.argument, token, include=include)
    return ""


async def files(call: Call) -> str:
    found = await asyncio.to_thread(call.api.policy.files, call.argument)
    return "".join(f"{name}\n" for name in found)


def _token(untrusted: bytes) -> str:
    return untrusted.decode("ascii", "replace")


def _methods(prefix: str, *, include: bool) -> dict[str, Method]:
    return {
        f"{prefix}.List": Method(run=partial(names, include), destination="dom0"),
        f"{prefix}.Get": Method(run=partial(get, include), destination="dom0", argument=True),
        f"{prefix}.Replace": Method(
            run=partial(replace, include), destination="dom0", argument=True, payload=True
        ),
        f"{prefix}.Remove": Method(
            run=partial(remove, include), destination="dom0", argument=True, payload=True
        ),
    }


METHODS = {
    **_methods("policy", include=False),
    **_methods("policy.include", include=True),
    "policy.GetFiles": Method(run=files, destination="dom0", argument=True),
}
