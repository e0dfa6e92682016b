"""Defaults that are computed from the rest of the system (admin-api.md sections 6.3 and 6.5)."""

from uuid import UUID

from insula.daemon.model.properties.definition import Compute
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System

MEMORY = 400  # MiB
LAYOUT = "us++"
_DEFAULT_MAXMEM = 4000  # MiB
_START_MODE = "snapshot"
_LONGEST_CHAIN = 64
_KERNELOPTS = "swiotlb=2048"
_SUSPEND_IDLE = " qubes_exp_pm_use_suspend=1"


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
        last = qube
        for template in system.templates_of(qube):
            if name in template.properties:
                return template.properties[name]
            last = template
        return otherwise(system, last)

    return compute


_DEFAULT_KERNEL = from_template("kernel", system_value("default_kernel", ""))
_VIRT_MODE = "pvh"


def _kernel(system: System, qube: Qube) -> Value:
    own = qube.properties.get("kernel")
    return _DEFAULT_KERNEL(system, qube) if own is None else own


def given_kernelopts(system: System, qube: Qube) -> str | None:
    """What somebody wants on the kernel's command line: for the qube, its template, the kernel."""
    for one in (qube, *system.templates_of(qube)):
        if "kernelopts" in one.properties:
            return str(one.properties["kernelopts"])
    return _options_of_kernel(system, qube)


def _options_of_kernel(system: System, qube: Qube) -> str | None:
    return system.kernel_options.get((str(_kernel(system, qube)), has_pci(qube)))


def kernelopts(system: System, qube: Qube) -> str:
    """What Qubes has; of words that nobody asked for, machines of ours get none."""
    if not _kernel(system, qube):
        return ""
    if has_pci(qube):
        options = _options_of_kernel(system, qube) or ""
        return options + (_SUSPEND_IDLE if system.dom0.features.get("suspend-s0ix") else "")
    template = system.find(qube.template)
    if template is not None:
        return str(template.properties.get("kernelopts", kernelopts(system, template)))
    given = _options_of_kernel(system, qube)
    return _KERNELOPTS if given is None else given


def has_pci(qube: Qube) -> bool:
    """Whether PCI devices of the host are the qube's."""
    return any(assignment.devclass == "pci" for assignment in qube.assignments)


def virt_mode(system: System, qube: Qube) -> Value:
    if has_pci(qube):
        return "hvm"
    template = system.find(qube.template)
    if template is None:
        return _VIRT_MODE
    return template.properties.get("virt_mode", virt_mode(system, template))


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
        case QubeClass.STANDALONE:
            kind = "standalonevm"
        case QubeClass.REMOTE:
            kind = "remotevm"
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
    if _cannot_balance(system, qube):
        return 0
    template = system.find(qube.template)
    if template is not None:
        return template.properties.get("maxmem", maxmem(system, template))
    own = int(str(qube.properties.get("memory", MEMORY)))
    wanted = 10 * own if qube.features.get("os") == "Linux" else _DEFAULT_MAXMEM
    return min(wanted, system.host_memory // 2) if system.host_memory else wanted


def _cannot_balance(system: System, qube: Qube) -> bool:
    """Whether a qube has nobody in it who could give memory back."""
    if has_pci(qube):
        return True
    if qube.properties.get("virt_mode", virt_mode(system, qube)) != "hvm":
        return False
    if not system.feature(qube, "qrexec"):
        return True
    announced = [name for name in qube.features if name.startswith("supported-service.")]
    for template in system.templates_of(qube):
        announced += [name for name in template.features if name.startswith("supported-service.")]
    return bool(announced) and not system.feature(qube, "supported-service.meminfo-writer")


def bootmode(system: System, qube: Qube) -> str:
    active = qube.features.get("boot-mode.active")
    if active and _has_bootmode(system, qube, active):
        return active
    for template in system.templates_of(qube):
        if template.klass is QubeClass.TEMPLATE:
            found = str(
                template.properties.get("appvm_default_bootmode", appvm_bootmode(system, template))
            )
            return found if _has_bootmode(system, qube, found) else "default"
    return "default"


def _has_bootmode(system: System, qube: Qube, mode: str) -> bool:
    return mode == "default" or system.feature(qube, f"boot-mode.kernelopts.{mode}") is not None


def appvm_bootmode(_system: System, qube: Qube) -> str:
    return qube.features.get("boot-mode.appvm-default", "default")


def start_mode(_system: System, qube: Qube) -> str:
    """Memory of its own for a qube that was given no network on purpose, as vaults are."""
    apart = "netvm" in qube.properties and qube.properties["netvm"] is None
    return "unshared" if apart and qube.klass is QubeClass.APP else _START_MODE


def keyboard_layout(system: System, qube: Qube) -> Value:
    """That of the qube which shows its windows, and of the one that shows that one's."""
    for _ in range(_LONGEST_CHAIN):
        shows = gui_qube(system, qube)
        if shows is None or shows is qube:
            break
        if "keyboard_layout" in shows.properties:
            return shows.properties["keyboard_layout"]
        qube = shows
    return LAYOUT


def gui_qube(system: System, qube: Qube) -> Qube | None:
    """The qube that shows another's windows."""
    if not qube.klass.is_machine:
        return None
    value = qube.properties.get("guivm", dom0_unless("default_guivm")(system, qube))
    return system.find(value) if isinstance(value, UUID) else None
