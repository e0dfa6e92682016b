"""The properties of qubes, by class (admin-api.md sections 6.1 to 6.3)."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from insula.daemon.model.errors import NotHaltedError, PropertyValueError, QubeInUseError
from insula.daemon.model.members import is_preloaded
from insula.daemon.model.properties import defaults, network, parsing
from insula.daemon.model.properties.definition import Access, Held, Property, held
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System

START_MODES = ("snapshot", "unshared", "cold")
_USER = r"[A-Za-z0-9_+,.-]*"
_LAYOUT = r"[A-Za-z]+\+[A-Za-z0-9_-]*\+[A-Za-z0-9_:,-]*"


def _must_be_template(found: Qube) -> str | None:
    return None if found.klass is QubeClass.TEMPLATE else "is not a template"


def _must_make_disposables(found: Qube) -> str | None:
    return None if found.properties.get("template_for_dispvms") else "is not a disposable template"


def _check_template(system: System, qube: Qube, _value: Value) -> None:
    if not qube.halted:
        raise NotHaltedError(qube.name, "is not halted, so its template cannot be changed")
    if running := _made_from(system, qube, running=True):
        raise QubeInUseError(f"Disposables of {qube.name} are running: {', '.join(running)}")


def _made_from(system: System, qube: Qube, *, running: bool = False) -> list[str]:
    """Names of what is made from a qube, but for what waits to be used and goes with it."""
    return [
        one.name
        for one in system.made_from(qube)
        if not is_preloaded(system, one) and not (running and one.halted)
    ]


def _check_template_for_dispvms(system: System, qube: Qube, value: Value) -> None:
    if not value and (made := _made_from(system, qube)):
        error = QubeInUseError(f"There are disposables of {qube.name}: {', '.join(made)}")
        error.hint = f"Remove them first: qvm-remove {' '.join(made)}"
        raise error


def _check_virt_mode(_system: System, qube: Qube, value: Value) -> None:
    if value == "pvh" and defaults.has_pci(qube):
        raise PropertyValueError(f"{qube.name} has PCI devices assigned, so it cannot be pvh")


def _check_start_mode(_system: System, _qube: Qube, value: Value) -> None:
    if value not in START_MODES:
        raise PropertyValueError(f"start_mode is one of {', '.join(START_MODES)}, not {value!r}")


def _own(attribute: str) -> Callable[[System, Qube], Value]:
    def compute(_system: System, qube: Qube) -> Value:
        found: Value = getattr(qube, attribute)
        return found

    return compute


def _computed(name: str, compute: Callable[[System, Qube], Value], text: str) -> Property:
    return Property(
        name=name,
        kind="str",
        help=text,
        access=Access.READ_ONLY,
        default=compute,
        parse=parsing.nothing,
    )


def _flag(name: str, default: Callable[[System, Qube], Value], text: str) -> Property:
    return Property(name=name, kind="bool", help=text, default=default, parse=parsing.boolean)


def _reference(name: str, default: Callable[[System, Qube], Value] | None, text: str) -> Property:
    parse = parsing.qube_named(none=True)
    return Property(name=name, kind="vm", help=text, default=default, parse=parse)


_NUMBER = parsing.integer(1)
_NAME = Property(
    name="name",
    kind="str",
    help="The qube's name. It cannot be changed.",
    access=Access.WRITE_ONCE,
    parse=parsing.nothing,
)
_QID = Property(
    name="qid",
    kind="int",
    help="A number that is the qube's alone.",
    access=Access.WRITE_ONCE,
    parse=parsing.nothing,
)
_UUID = Property(
    name="uuid",
    kind="str",
    help="The qube's identity, which no other qube ever has.",
    access=Access.WRITE_ONCE,
    parse=parsing.nothing,
)
_EVERY = (
    Property(
        name="label",
        kind="label",
        help="How far the qube is trusted, as a colour.",
        parse=parsing.label,
        resettable=False,
    ),
    _computed("klass", lambda _system, qube: str(qube.klass), "The qube's class."),
    _computed("icon", defaults.icon, "Name of the qube's icon."),
)
_BACKUP = Property(
    name="include_in_backups",
    kind="bool",
    help="Whether the qube is part of backups unless they are told otherwise.",
    default=defaults.include_in_backups,
    parse=parsing.boolean,
)
_DISPVM = _reference(
    "default_dispvm",
    defaults.default_dispvm,
    "The disposable template for what this qube opens in a disposable.",
)
_DENIED = Property(
    name="devices_denied",
    kind="str",
    help="Interfaces of devices that may not be attached to the qube.",
    default=defaults.constant(""),
    parse=parsing.interfaces,
)
_UPDATEABLE = Property(
    name="updateable",
    kind="bool",
    help="Whether software is installed in the qube itself, for it has its own root.",
    access=Access.READ_ONLY,
    default=lambda _system, qube: qube.klass is QubeClass.ADMIN or qube.klass.has_own_root,
    parse=parsing.nothing,
)
_KEYBOARD = Property(
    name="keyboard_layout",
    kind="str",
    help="LAYOUT+VARIANT+OPTIONS, as the X keyboard extension names them.",
    default=defaults.keyboard_layout,
    parse=parsing.string_of(_LAYOUT),
)
_SHARED = (*_EVERY, _BACKUP, _DISPVM, _DENIED, _UPDATEABLE, _KEYBOARD)
_ADMIN = (
    *_SHARED,
    *(
        replace(prop, access=Access.READ_ONLY, default=default)
        for prop, default in (
            (_NAME, _own("name")),
            (_QID, _own("qid")),
            (_UUID, lambda _system, qube: str(qube.uuid)),
        )
    ),
)
_COMMON = (
    *(_NAME, _QID, _UUID),
    *_SHARED,
    _reference(
        "audiovm", defaults.dom0_unless("default_audiovm"), "The qube that plays its sound."
    ),
    _reference("guivm", defaults.dom0_unless("default_guivm"), "The qube that shows its windows."),
    _reference(
        "management_dispvm",
        defaults.from_template("management_dispvm", defaults.system_value("management_dispvm")),
        "The disposable template from which the qube is managed.",
    ),
    Property(
        name="netvm",
        kind="vm",
        help="The qube that provides network to this one.",
        default=network.default_netvm,
        parse=parsing.qube_named(none=True, accepts=network.provides_network),
        check=network.check_netvm,
    ),
    Property(
        name="provides_network",
        kind="bool",
        help="Whether other qubes may get their network from this one.",
        default=defaults.constant(False),
        parse=parsing.boolean,
        check=network.check_provides_network,
    ),
    _flag("autostart", defaults.constant(False), "Whether the qube starts with the system."),
    _flag("debug", defaults.constant(False), "Whether the qube starts with what helps debugging."),
    _flag("installed_by_rpm", defaults.constant(False), "Whether a package manager owns the qube."),
    Property(
        name="backup_timestamp",
        kind="int",
        help="When the qube was last backed up, in seconds since the epoch.",
        parse=parsing.integer(),
    ),
    Property(
        name="bootmode",
        kind="str",
        help="Which of its template's boot modes the qube starts in.",
        default=defaults.bootmode,
        parse=parsing.string_of(),
    ),
    Property(
        name="default_user",
        kind="str",
        help="The user as whom commands run that name none.",
        default=defaults.from_template("default_user", defaults.constant("user")),
        parse=parsing.string_of(_USER),
    ),
    Property(
        name="kernel",
        kind="str",
        help="The kernel of the pool that the qube boots.",
        default=defaults.from_template("kernel", defaults.system_value("default_kernel", "")),
        parse=parsing.kernel,
    ),
    Property(
        name="kernelopts",
        kind="str",
        help="Further words of the kernel's command line.",
        default=defaults.kernelopts,
        parse=parsing.string_of(longest=512),
    ),
    Property(
        name="memory",
        kind="int",
        help="Memory the qube starts with, in MiB.",
        default=defaults.from_template("memory", defaults.constant(defaults.MEMORY)),
        parse=_NUMBER,
    ),
    Property(
        name="maxmem",
        kind="int",
        help="Memory the qube may grow to, in MiB; 0 keeps it at what it starts with.",
        default=defaults.maxmem,
        parse=parsing.integer(0),
    ),
    Property(
        name="vcpus",
        kind="int",
        help="Virtual processors of the qube. Under software emulation it has one unless this is "
        "set, for the qube or its template.",
        default=defaults.from_template("vcpus", defaults.constant(2)),
        parse=_NUMBER,
    ),
    Property(
        name="virt_mode",
        kind="str",
        help="How the qube is virtualised: hvm, pv or pvh.",
        default=defaults.virt_mode,
        parse=parsing.string_of(r"hvm|pv|pvh", also=str.lower),
        check=_check_virt_mode,
    ),
    Property(
        name="qrexec_timeout",
        kind="int",
        help="Seconds the qube's agent has to become ready.",
        default=defaults.from_template(
            "qrexec_timeout", defaults.system_value("default_qrexec_timeout", 60)
        ),
        parse=_NUMBER,
    ),
    Property(
        name="shutdown_timeout",
        kind="int",
        help="Seconds the qube has to shut down.",
        default=defaults.from_template(
            "shutdown_timeout", defaults.system_value("default_shutdown_timeout", 60)
        ),
        parse=_NUMBER,
    ),
    Property(
        name="start_mode",
        kind="str",
        help="How the qube starts: snapshot (a copy of its template's booted snapshot, sharing "
        "memory pages with qubes of its label), unshared (a copy with memory of its own) or cold "
        "(it boots).",
        default=defaults.start_mode,
        parse=parsing.string_of(),
        check=_check_start_mode,
    ),
    Property(
        name="ip",
        kind="str",
        help="The qube's IPv4 address.",
        default=network.ip,
        parse=parsing.address(4),
    ),
    Property(
        name="ip6",
        kind="str",
        help="The qube's IPv6 address.",
        default=network.ip6,
        parse=parsing.address(6),
    ),
    Property(
        name="mac",
        kind="str",
        help="The hardware address of the qube's network interface.",
        default=defaults.constant("00:16:3e:5e:6c:00"),
        parse=parsing.mac,
    ),
    _computed("dns", network.dns, "Name servers of the qube."),
    _computed("gateway", network.gateway, "The address at which it routes for its clients."),
    _computed("gateway6", network.gateway6, "The same for IPv6."),
    _computed("visible_ip", network.visible_ip, "The address that the qube itself sees."),
    _computed("visible_ip6", network.visible_ip6, "The same for IPv6."),
    _computed("visible_gateway", network.visible_gateway, "The gateway that the qube sees."),
    _computed("visible_gateway6", network.visible_gateway6, "The same for IPv6."),
    _computed("visible_netmask", network.visible_netmask, "The net mask that the qube sees."),
    _computed("start_time", _own("started"), "When it started, in seconds since the epoch."),
    _computed("stubdom_uuid", defaults.constant(""), "Always empty: there are no stub domains."),
    Property(
        name="stubdom_mem",
        kind="int",
        help="Memory of the stub domain in MiB; kept for other programs, without effect.",
        parse=_NUMBER,
    ),
    Property(
        name="stubdom_xid",
        kind="int",
        help="Always -1: there are no stub domains.",
        access=Access.READ_ONLY,
        default=defaults.constant(-1),
        parse=parsing.nothing,
    ),
    Property(
        name="xid",
        kind="int",
        help="The running qube's domain number; -1 while it does not run.",
        access=Access.READ_ONLY,
        default=_own("xid"),
        parse=parsing.nothing,
    ),
)


def _template(accepts: Callable[[Qube], str | None], text: str) -> Property:
    return Property(
        name="template",
        kind="vm",
        help=text,
        parse=parsing.qube_named(none=False, accepts=accepts),
        check=_check_template,
        resettable=False,
    )


_MAKES_DISPOSABLES = Property(
    name="template_for_dispvms",
    kind="bool",
    help="Whether disposables may be made from this qube.",
    default=defaults.constant(False),
    parse=parsing.boolean,
    check=_check_template_for_dispvms,
)
_REMOTE = (
    *(_NAME, _QID, _UUID),
    *_EVERY,
    replace(_BACKUP, default=defaults.constant(False)),
    _reference("relayvm", defaults.constant(None), "The qube through which it is reached."),
    Property(
        name="transport_rpc",
        kind="str",
        help="The service of its relay qube that carries calls to it.",
        default=defaults.constant(None),
        parse=parsing.string_of(),
    ),
    Property(
        name="remote_name",
        kind="str",
        help="Its name on the system where it is.",
        default=defaults.constant(None),
        parse=parsing.string_of(),
    ),
)
_OF_CLASS: dict[QubeClass, tuple[Property, ...]] = {
    QubeClass.ADMIN: _ADMIN,
    QubeClass.APP: (
        *_COMMON,
        _template(_must_be_template, "The template whose root this qube uses."),
        _MAKES_DISPOSABLES,
    ),
    QubeClass.STANDALONE: (*_COMMON, _MAKES_DISPOSABLES),
    QubeClass.REMOTE: _REMOTE,
    QubeClass.TEMPLATE: (
        *_COMMON,
        Property(
            name="appvm_default_bootmode",
            kind="str",
            help="The boot mode of qubes made from this template.",
            default=defaults.appvm_bootmode,
            parse=parsing.string_of(),
        ),
    ),
    QubeClass.DISPOSABLE: (
        *_COMMON,
        _template(_must_make_disposables, "The disposable template this qube is made from."),
        Property(
            name="dispid",
            kind="int",
            help="A random number that is the disposable's alone.",
            access=Access.WRITE_ONCE,
            parse=parsing.nothing,
        ),
        _flag("auto_cleanup", defaults.constant(False), "Whether the qube vanishes when it ends."),
        Property(
            name="is_preload",
            kind="bool",
            help="Whether the disposable waits to be used.",
            access=Access.READ_ONLY,
            default=is_preloaded,
            parse=parsing.nothing,
        ),
    ),
}
BY_CLASS: dict[QubeClass, dict[str, Property]] = {
    klass: {prop.name: prop for prop in sorted(properties, key=lambda one: (one.stage, one.name))}
    for klass, properties in _OF_CLASS.items()
}
_ATTRIBUTES = frozenset(("name", "qid", "uuid", "label"))
# Properties that a qube takes from its template where it has none of its own.
INHERITED = (
    *("default_user", "kernel", "kernelopts", "vcpus", "memory", "maxmem", "qrexec_timeout"),
    *("shutdown_timeout", "management_dispvm"),
)


def property_of(system: System, qube: Qube, name: str) -> Held:
    """A property as it is.

    Raises:
        KeyError: qubes of this class have no such property.
    """
    prop = BY_CLASS[qube.klass][name]
    own = stored(qube) if name in _ATTRIBUTES else qube.properties
    return held(system, qube, prop, own)


def value_of(system: System, qube: Qube, name: str) -> Value:
    """A property's value, set or by default.

    Raises:
        KeyError: qubes of this class have no such property.
    """
    return property_of(system, qube, name).value


def stored(qube: Qube) -> Mapping[str, Value]:
    """What was set on a qube, those that are attributes of it among them."""
    identity: dict[str, Value] = {
        "name": qube.name,
        "qid": qube.qid,
        "uuid": str(qube.uuid),
        "label": qube.label,
    }
    return {**qube.properties, **identity}
