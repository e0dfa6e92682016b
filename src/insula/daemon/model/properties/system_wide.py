"""The properties of the system (admin-api.md section 6.7)."""

from insula.daemon.model.errors import PropertyValueError
from insula.daemon.model.pools import POOL
from insula.daemon.model.properties import defaults, network, parsing
from insula.daemon.model.properties.definition import Compute, Property
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System

_NAMED_SO = "default"  # a pool of this name is the one of new volumes


def _must_be_template(found: Qube) -> str | None:
    return None if found.klass is QubeClass.TEMPLATE else "is not a template"


def _check_pool(system: System, _qube: Qube, value: Value) -> None:
    if value not in system.pools:
        raise PropertyValueError(f"No such pool: {value!r}. There are {', '.join(system.pools)}")


def _reference(name: str, text: str, *, dom0: bool = False) -> Property:
    default = defaults.dom0_unless(name) if dom0 else defaults.constant(None)
    parse = parsing.qube_named(none=True)
    return Property(name=name, kind="vm", help=text, default=default, parse=parse)


def _pool(name: str, text: str, default: Compute) -> Property:
    return Property(
        name=name,
        kind="str",
        help=text,
        default=default,
        parse=parsing.string_of(),
        check=_check_pool,
    )


def _seconds(name: str, default: int, text: str) -> Property:
    return Property(
        name=name,
        kind="int",
        help=text,
        default=defaults.constant(default),
        parse=parsing.integer(),
    )


def _usual_pool(system: System, _dom0: Qube) -> Value:
    return _NAMED_SO if _NAMED_SO in system.pools else POOL


def _default_pool(system: System, dom0: Qube) -> Value:
    return system.properties.get("default_pool", _usual_pool(system, dom0))


_ALL = (
    Property(
        name="check_updates_vm",
        kind="bool",
        help="Whether new qubes look for updates.",
        default=defaults.constant(True),
        parse=parsing.boolean,
    ),
    _reference("clockvm", "The qube from which the time is taken."),
    _reference("default_audiovm", "The qube that plays sound of those that name none.", dom0=True),
    _reference("default_guivm", "The qube that shows windows of those that name none.", dom0=True),
    _reference("default_dispvm", "The disposable template of qubes that name none."),
    _reference("management_dispvm", "The disposable template from which qubes are managed."),
    Property(
        name="default_kernel",
        kind="str",
        help="The kernel of qubes that name none.",
        parse=parsing.kernel,
    ),
    Property(
        name="default_netvm",
        kind="vm",
        help="The qube that provides network to those that name none.",
        default=defaults.constant(None),
        parse=parsing.qube_named(none=True),
        check=network.check_default_netvm,
    ),
    _pool("default_pool", "The pool of new volumes.", _usual_pool),
    _pool("default_pool_root", "The pool of new root volumes.", _default_pool),
    _pool("default_pool_private", "The pool of new private volumes.", _default_pool),
    _pool("default_pool_volatile", "The pool of new volatile volumes.", _default_pool),
    _pool("default_pool_kernel", "The pool of kernels.", _default_pool),
    _seconds("default_qrexec_timeout", 60, "Seconds a qube's agent has to become ready."),
    _seconds("default_shutdown_timeout", 60, "Seconds a qube has to shut down."),
    _seconds("stats_interval", 3, "Seconds between two rounds of statistics."),
    Property(
        name="default_template",
        kind="vm",
        help="The template of new qubes that name none.",
        parse=parsing.qube_named(none=True, accepts=_must_be_template),
    ),
    _reference("updatevm", "The qube that fetches updates of dom0."),
)
GLOBAL: dict[str, Property] = {prop.name: prop for prop in sorted(_ALL, key=lambda one: one.name)}
