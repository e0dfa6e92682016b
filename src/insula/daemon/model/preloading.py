"""Whether a disposable that was started ahead of its use is still what it should be. No I/O."""

from insula.daemon.model.properties.qubes import BY_CLASS, value_of
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System

# Properties that may differ between a disposable and its template (admin-api.md section 8.4).
_DIFFERING = frozenset(
    (
        *("autostart", "backup_timestamp", "default_dispvm", "dispid", "gateway", "gateway6"),
        *("icon", "include_in_backups", "installed_by_rpm", "ip", "ip6", "klass", "name", "qid"),
        *("start_time", "stubdom_uuid", "stubdom_xid", "template", "template_for_dispvms"),
        *("updateable", "uuid", "visible_gateway", "visible_gateway6", "visible_ip"),
        *("visible_ip6", "xid"),
    )
)


def is_relevant(name: str) -> bool:
    """Whether a change of a template's property makes its waiting disposables outdated."""
    return name not in _DIFFERING


def differs(system: System, template: Qube, disposable: Qube) -> bool:
    """Whether one made from the template now would be another."""
    if template.volumes["private"].size != disposable.volumes["private"].size:
        return True
    if template.firewall != disposable.firewall:  # Not Qubes' rule; what is let through counts.
        return True
    known = BY_CLASS[disposable.klass]
    return any(
        value_of(system, template, name) != value_of(system, disposable, name)
        for name in BY_CLASS[template.klass]
        if name in known and is_relevant(name)
    )
