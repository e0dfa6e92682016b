"""Qubes: listed, created, removed (admin-api.md section 4.1)."""

from uuid import UUID

from insula.daemon.admin import permissions
from insula.daemon.admin.calls import Call, Method
from insula.daemon.admin.methods.creation import create_qube
from insula.daemon.admin.usage import used, used_beside
from insula.daemon.model.described import state_of
from insula.daemon.model.errors import (
    RefusedError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.members import READINESS
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System
from insula.protocol.admin import ListedQube, listed_qube_line

_MIB_IN_KIB = 1024


async def list_classes(_call: Call) -> str:
    return "".join(f"{klass}\n" for klass in sorted(QubeClass))


async def list_qubes(call: Call) -> str:
    system = call.api.world.system
    chosen = system.in_order() if call.destination is system.dom0 else [call.destination]
    seen = permissions.listed(call.api.allows, system, call.source, chosen)
    return "".join(listed_qube_line(_listed(qube)) for qube in seen)


async def create(call: Call) -> str:
    return await create_qube(call, pools=False)


async def create_in_pool(call: Call) -> str:
    return await create_qube(call, pools=True)


async def create_disposable(call: Call) -> str:
    if call.argument not in ("", "preload"):
        raise RefusedSilentlyError(f"not expected: {call.argument!r}")
    system, payload = call.api.world.system, call.untrusted_payload
    if payload not in (b"", b"uuid"):
        raise ValueRefusedError(f"Not expected: {payload[:80]!r}. It is uuid or nothing")
    if call.argument:
        await _preload(call)
        return ""
    template = call.destination
    if template is system.dom0:
        template = default_dispvm(system, call.source)
    qube = await call.api.preloading.take(template, call.source)
    if qube is None:
        qube = await call.api.administration.create_disposable(template, call.source)
    return f"uuid:{qube.uuid}" if payload else qube.name


async def _preload(call: Call) -> None:
    """Have as many disposables wait as are to; returns when they do."""
    system, template = call.api.world.system, call.destination
    if template is system.dom0:
        try:
            template = default_dispvm(system, call.source)
        except RefusedError as error:
            raise RefusedSilentlyError(str(error)) from None
    if not system.feature(template, READINESS):
        raise ValueRefusedError(f"Qube {template.name} lacks the feature {READINESS}")
    await call.api.preloading.fill(template, "asked")


async def remove(call: Call) -> str:
    await call.api.preloading.before_removal(call.destination)
    await call.api.administration.remove(call.destination)
    return ""


async def current_state(call: Call) -> str:
    """`mem` is what the qube's process really takes of the host's memory; dom0 is the rest."""
    qube, system = call.destination, call.api.world.system
    if qube is system.dom0:
        memory, cpu_time = used_beside(one.machine.pid for one in call.api.world.running.values())
        return (
            f"mem={memory} mem_static_max={system.host_memory} cputime={cpu_time} "
            f"power_state={state_of(qube)}"
        )
    if qube.klass is QubeClass.REMOTE:
        return f"mem=0 mem_static_max=0 cputime=0 power_state={state_of(qube)}"
    running = call.api.world.running.get(qube.uuid)
    memory = cpu_time = 0
    if running is not None:
        memory, cpu_time = used(running.machine.pid)
    highest = int(str(value_of(system, qube, "maxmem") or value_of(system, qube, "memory")))
    return (
        f"mem={memory} mem_static_max={highest * _MIB_IN_KIB} cputime={cpu_time} "
        f"power_state={state_of(qube)}"
    )


def default_dispvm(system: System, qube: Qube) -> Qube:
    """The disposable template of what a qube opens in disposables.

    Raises:
        RefusedError: it has none.
    """
    value = value_of(system, qube, "default_dispvm")
    found = system.find(value) if isinstance(value, UUID) else None
    if found is None:
        raise RefusedError(
            f"Qube {qube.name} has no default disposable template",
            "Name one for all: qubes-prefs default_dispvm NAME",
        )
    return found


def _listed(qube: Qube) -> ListedQube:
    return ListedQube(qube.name, str(qube.klass), state_of(qube), str(qube.uuid))


METHODS = {
    "admin.vmclass.List": Method(run=list_classes, destination="dom0"),
    "admin.vm.List": Method(run=list_qubes),
    "admin.vm.CreateDisposable": Method(run=create_disposable, argument=True, payload=True),
    "admin.vm.Remove": Method(run=remove),
    "admin.vm.CurrentState": Method(run=current_state),
    **{
        f"admin.vm.Create.{klass}": Method(
            run=create, destination="dom0", argument=True, payload=True
        )
        for klass in QubeClass
    },
    **{
        f"admin.vm.CreateInPool.{klass}": Method(
            run=create_in_pool, destination="dom0", argument=True, payload=True
        )
        for klass in QubeClass
    },
}
