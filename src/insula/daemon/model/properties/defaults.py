"""Defaults that are computed from the rest of the system (admin-api.md sections 6.3 and 6.5)."""

from insula.daemon.model.properties.definition import Compute
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System

MEMORY = 400  # MiB
_DEFAULT_MAXMEM = 4000  # MiB
_START_MODE = "snapshot"


def system_value(name: str, fallback: Value = None) -> Compute:
    """What the system has set under a name."""
    return lambda system, _qube: system.properties.get(name, fallback)


def dom0_unless(name: str) -> Compute:
    """What the system has set under a name, dom0 where it has not."""
    return lambda system, _qube: system.properties.get(name, system.dom0.uuid)


def constant(value: Value) -> Compute:
    return lambda _system, _qube: value


def from_template(name: str, otherwise: Compute) -> Compute:
    """The template's value where there is a template, set or by default."""

    def compute(system: System, qube: Qube) -> Value:
        templates = list(system.templates_of(qube))
        for template in templates:
            if name in template.properties:
                return template.properties[name]
        return otherwise(system, templates[-1] if templates else qube)

    return compute


def icon(_system: System, qube: Qube) -> str:
    match qube.klass:
        case QubeClass.ADMIN:
            return "adminvm-black"
        case QubeClass.APP if qube.properties.get("template_for_dispvms"):
            kind = "templatevm"
        case QubeClass.TEMPLATE:
            kind = "templatevm"
        case _ if qube.features.get("servicevm"):
            kind = "servicevm"
        case QubeClass.DISPOSABLE:
            kind = "dispvm"
        case _:
            kind = "appvm"
    return f"{kind}-{qube.label}"


def default_dispvm(system: System, qube: Qube) -> Value:
    if qube.klass is QubeClass.DISPOSABLE:
        return qube.template
    return system.properties.get("default_dispvm")


def include_in_backups(_system: System, qube: Qube) -> bool:
    return not qube.properties.get("auto_cleanup", False)


def maxmem(system: System, qube: Qube) -> Value:
    for template in system.templates_of(qube):
        if "maxmem" in template.properties:
            return template.properties["maxmem"]
    memory = from_template("memory", constant(MEMORY))(system, qube)
    own = qube.properties.get("memory", memory)
    wanted = 10 * int(str(own)) if qube.features.get("os") == "Linux" else _DEFAULT_MAXMEM
    return min(wanted, system.host_memory // 2) if system.host_memory else wanted


def bootmode(system: System, qube: Qube) -> str:
    active = qube.features.get("boot-mode.active")
    if active == "default":
        return active
    if active and system.feature(qube, f"boot-mode.kernelopts.{active}") is not None:
        return active
    for template in system.templates_of(qube):
        found = template.properties.get("appvm_default_bootmode") or appvm_bootmode(
            system, template
        )
        if system.feature(qube, f"boot-mode.kernelopts.{found}") is not None:
            return str(found)
    return "default"


def appvm_bootmode(_system: System, qube: Qube) -> str:
    return qube.features.get("boot-mode.appvm-default", "default")


def start_mode(_system: System, qube: Qube) -> str:
    """Memory of its own for a qube that was given no network on purpose, as vaults are."""
    apart = "netvm" in qube.properties and qube.properties["netvm"] is None
    return "unshared" if apart and qube.klass is QubeClass.APP else _START_MODE


def keyboard_layout(system: System, _qube: Qube) -> Value:
    return system.dom0.properties.get("keyboard_layout", "us++")
