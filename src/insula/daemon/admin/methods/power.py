"""Qubes up and down (admin-api.md section 4.2)."""

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import RefusedSilentlyError

_SHUTDOWN_WORDS = frozenset(("force", "wait"))


async def start(call: Call) -> str:
    await call.api.power.start(call.destination)
    return ""


async def shutdown(call: Call) -> str:
    words = call.argument.split("+") if call.argument else []
    if not set(words) <= _SHUTDOWN_WORDS or len(set(words)) != len(words):
        raise RefusedSilentlyError(f"not how to shut down: {call.argument!r}")
    await call.api.power.shutdown(call.destination, force="force" in words, wait="wait" in words)
    return ""


async def kill(call: Call) -> str:
    await call.api.power.kill(call.destination)
    return ""


async def pause(call: Call) -> str:
    await call.api.power.pause(call.destination)
    return ""


async def unpause(call: Call) -> str:
    await call.api.power.unpause(call.destination)
    return ""


async def suspend(call: Call) -> str:
    await call.api.sleeping.suspend(call.destination)
    return ""


async def resume(call: Call) -> str:
    await call.api.sleeping.resume(call.destination)
    return ""


METHODS = {
    "admin.vm.Start": Method(run=start),
    "admin.vm.Shutdown": Method(run=shutdown, argument=True, destination="machine"),
    "admin.vm.Kill": Method(run=kill),
    "admin.vm.Suspend": Method(run=suspend),
    "admin.vm.Resume": Method(run=resume, destination="machine"),
    "admin.vm.Pause": Method(run=pause, destination="machine"),
    "admin.vm.Unpause": Method(run=unpause, destination="machine"),
}
