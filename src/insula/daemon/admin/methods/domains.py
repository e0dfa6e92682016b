"""Qubes: listed, created, removed (admin-api.md section 4.1)."""

import re
from pathlib import Path

from insula.daemon.admin.calls import Call, Method
from insula.daemon.lifecycle.administration import NewQube
from insula.daemon.model.errors import (
    LabelNotFoundError,
    QubeStateError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.properties.system_wide import GLOBAL, POOL
from insula.daemon.model.qube import PowerState, Qube, QubeClass, check_name
from insula.daemon.model.system import System
from insula.protocol.admin import ListedQube, listed_qube_line

_LABEL = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_POOL_VOLUMES = ("root", "private", "volatile", "kernel")
_MIB_IN_KIB = 1024


async def list_classes(_call: Call) -> str:
    return "".join(f"{klass}\n" for klass in sorted(QubeClass))


async def list_qubes(call: Call) -> str:
    system = call.api.world.system
    chosen = system.in_order() if call.destination is system.dom0 else [call.destination]
    return "".join(listed_qube_line(_listed(qube)) for qube in chosen)


async def create(call: Call) -> str:
    return await _create(call, _parameters(call, pools=False))


async def create_in_pool(call: Call) -> str:
    parameters = _parameters(call, pools=True)
    for key, pool in parameters.items():
        if key.partition(":")[0] == "pool" and pool != POOL:
            raise QubeStateError(f"There is no pool {pool!r} for volumes, only {POOL}")
    return await _create(call, parameters)


async def create_disposable(call: Call) -> str:
    if call.argument:
        raise RefusedSilentlyError("there are no preloaded disposables")
    payload = call.payload_text()
    if payload not in ("", "uuid"):
        raise ValueRefusedError(f"Not expected: {payload!r}")
    template = call.destination
    if template is call.api.world.system.dom0:
        template = default_dispvm(call.api.world.system, call.source)
    qube = await call.api.administration.create_disposable(template, call.source.name)
    return f"uuid:{qube.uuid}" if payload else qube.name


async def remove(call: Call) -> str:
    await call.api.administration.remove(call.destination)
    return ""


async def current_state(call: Call) -> str:
    """`mem` is what the qube's processes really take of the host's memory."""
    qube, system = call.destination, call.api.world.system
    if qube is system.dom0:
        return f"mem=0 mem_static_max={system.host_memory} cputime=0 power_state={_state(qube)}"
    running = call.api.world.running.get(qube.uuid)
    memory = cpu_time = 0
    if running is not None:
        memory, cpu_time = _used(running.machine.pid)
    highest = int(str(value_of(system, qube, "maxmem") or value_of(system, qube, "memory")))
    return (
        f"mem={memory} mem_static_max={highest * _MIB_IN_KIB} cputime={cpu_time} "
        f"power_state={_state(qube)}"
    )


def default_dispvm(system: System, qube: Qube) -> Qube:
    """The disposable template of what a qube opens in disposables.

    Raises:
        QubeStateError: it has none.
    """
    value = value_of(system, qube, "default_dispvm")
    for candidate in system.qubes.values():
        if candidate.uuid == value:
            return candidate
    error = QubeStateError(f"Qube {qube.name} has no default disposable template")
    error.hint = "Name one for all: qubes-prefs default_dispvm NAME"
    raise error


async def _create(call: Call, parameters: dict[str, str]) -> str:
    system = call.api.world.system
    klass = QubeClass(call.method.rpartition(".")[2])
    template = system.named(call.argument) if call.argument else _default_template(system, klass)
    name = check_name(parameters["name"])
    label = _label(system, parameters["label"])
    await call.api.administration.create(
        NewQube(klass=klass, name=name, label=label, template=template, creator=call.source.name)
    )
    return ""


def _parameters(call: Call, *, pools: bool) -> dict[str, str]:
    """`key=value` items, each key once.

    Raises:
        RefusedSilentlyError: they are not of that form, or an item is missing or unknown.
    """
    found: dict[str, str] = {}
    for item in call.payload_text().split(" "):
        key, equals, value = item.partition("=")
        if not equals or key in found or not _is_parameter(key, pools=pools):
            raise RefusedSilentlyError(f"not a parameter: {item!r}")
        found[key] = value
    if "name" not in found or "label" not in found:
        raise RefusedSilentlyError("a new qube has a name and a label")
    if "pool" in found and any(key.startswith("pool:") for key in found):
        raise RefusedSilentlyError("either one pool or one for each volume")
    return found


def _is_parameter(key: str, *, pools: bool) -> bool:
    if key in ("name", "label"):
        return True
    volume = key.removeprefix("pool:")
    return pools and (key == "pool" or (volume != key and volume in _POOL_VOLUMES))


def _label(system: System, text: str) -> str:
    if _LABEL.fullmatch(text) is None or text.isdigit():
        raise RefusedSilentlyError(f"not a label: {text!r}")
    if text not in system.labels:
        raise LabelNotFoundError(text)
    return text


def _default_template(system: System, klass: QubeClass) -> Qube | None:
    name = {QubeClass.APP: "default_template", QubeClass.DISPOSABLE: "default_dispvm"}.get(klass)
    if name is None:
        return None
    value = system.properties.get(GLOBAL[name].name)
    for candidate in system.qubes.values():
        if candidate.uuid == value:
            return candidate
    raise ValueRefusedError(f"No template is given, and there is no {name}")


def _listed(qube: Qube) -> ListedQube:
    return ListedQube(qube.name, str(qube.klass), _state(qube), str(qube.uuid))


def _state(qube: Qube) -> str:
    return str(PowerState.RUNNING if qube.klass is QubeClass.ADMIN else qube.power)


def _used(pid: int) -> tuple[int, int]:
    """KiB of memory and nanoseconds of processor time of a process; zeros when it is gone."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
        fields = Path("/proc", str(pid), "schedstat").read_text().split()
        return pages * 4, int(fields[0])
    except (OSError, ValueError, IndexError):
        return 0, 0


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
        for klass in (QubeClass.APP, QubeClass.TEMPLATE, QubeClass.DISPOSABLE)
    },
    **{
        f"admin.vm.CreateInPool.{klass}": Method(
            run=create_in_pool, destination="dom0", argument=True, payload=True
        )
        for klass in (QubeClass.APP, QubeClass.TEMPLATE, QubeClass.DISPOSABLE)
    },
}
