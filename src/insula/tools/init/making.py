"""Making the qubes that are missing; what is there already stays as it is."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from insula.client import errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools.init.record import Record
from insula.tools.init.roles import Role

_CLASS = "AppVM"
Tell = Callable[[str], object]


@dataclass(slots=True)
class Made:
    """What became of qubes. names: those that were made."""

    names: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def make_qubes(
    app: App, roles: Sequence[Role], template: str, tell: Tell, wanted: Collection[str] = ()
) -> Made:
    """Make each qube whole or not at all, and say what became of it.

    wanted: those that are made even if they were removed before.

    Raises:
        DaemonNotRunningError: the daemon is gone; the next time goes on where this one ended.
    """
    record = Record(app)
    made = Made()
    for role in roles:
        there = role.name in app.domains
        if there and not record.was_begun(role.name):
            tell(f"{role.name}: is there, and left as it is")
        elif not there and record.has(role.name) and role.name not in wanted:
            tell(f"{role.name}: was removed, and stays so; to have it: insula init {role.name}")
        else:
            try:
                _make(app, record, role, template, there=there)
            except errors.DaemonNotRunningError:
                raise
            except ReportableError as error:
                tell(f"{role.name}: could not be made: {error}")
                made.failed.append(role.name)
            else:
                tell(f"{role.name}: made: {_described(role, template)}")
                made.names.append(role.name)
    return made


def set_system(app: App, values: Mapping[str, str], tell: Tell) -> list[str]:
    """Set properties of the system that nobody has set; returns which could not be.

    Raises:
        DaemonNotRunningError: the daemon is gone.
    """
    record = Record(app)
    failed = []
    for name, value in values.items():
        before = app.get(name)
        if not before.is_default or record.has(name):
            shown = before.value or "none"
            tell(f"{name}: is {shown}{', and stays so' if before.value != value else ''}")
        elif value not in app.domains:
            tell(f"{name}: stays {before.value or 'none'}, as there is no {value}")
        else:
            try:
                app.set(name, value)
            except errors.DaemonNotRunningError:
                raise
            except ReportableError as error:
                tell(f"{name}: could not be set to {value}: {error}")
                failed.append(name)
            else:
                record.end(name, made=True)
                tell(f"{name}: set to {value}")
    return failed


def _make(app: App, record: Record, role: Role, template: str, *, there: bool) -> None:
    record.begin(role.name)
    if there:
        qube = app.domains.known(role.name)
    else:
        try:
            qube = app.add_new_qube(_CLASS, role.name, role.label, template=template)
        except errors.DaemonNotRunningError:
            raise
        except ReportableError:
            record.end(role.name, made=False)
            raise
    try:
        _set(qube, role)
    except errors.DaemonNotRunningError:
        raise
    except BaseException:
        qube.remove()
        record.end(role.name, made=False)
        raise
    record.end(role.name, made=True)


def _set(qube: Qube, role: Role) -> None:
    for name, value in role.properties.items():
        qube.set(name, value)
    for name, value in role.features.items():
        qube.features[name] = value
    for name, on in role.services.items():
        qube.services[name] = on
    for tag in role.tags:
        qube.tags.add(tag)
    if role.firewall:
        qube.firewall.rules = role.firewall


def _described(role: Role, template: str) -> str:
    parts = [f"label {role.label}", f"template {template}"]
    parts += [f"{name} {value or 'none'}" for name, value in role.properties.items()]
    parts += [f"feature {name} {value}" for name, value in role.features.items()]
    parts += [f"service {name} {'on' if on else 'off'}" for name, on in role.services.items()]
    parts += [f"tag {tag}" for tag in role.tags]
    parts += [f"firewall {rule}" for rule in role.firewall]
    return ", ".join(parts)
