"""Consoles of qubes (admin-api.md section 4.2)."""

from insula.daemon.admin.calls import Call, Method


async def console(call: Call) -> str:
    """The path of the terminal that is the qube's console."""
    return await call.api.consoles.open(call.destination)


METHODS = {"admin.vm.Console": Method(run=console)}
