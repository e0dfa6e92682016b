"""What asks for another look at the disposables that wait (admin-api.md section 8.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from insula.daemon.model import members
from insula.daemon.model.preloading import is_relevant
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.protocol.admin import Event

AFTER_SHUTDOWN, AFTER_CHANGE = 4.0, 30.0  # seconds


class _Plan(Protocol):
    def __call__(self, template: Qube, reason: str, delay: float = ..., /) -> None: ...


@dataclass(frozen=True, slots=True)
class Triggers:
    """Hears of events. plan: has a round begin in a while. renew: has all that wait replaced.

    used: told of one that goes on though nobody took it.
    """

    system: System
    plan: _Plan
    renew: Callable[[Qube], None]
    used: Callable[[Qube, Qube], None]

    def hear(self, event: Event) -> None:
        """Take notice of one event."""
        if not event.subject:
            self._of_system(event)
        elif self.system.has_name(event.subject):
            self._of_qube(self.system.named(event.subject), event.name)

    def _of_qube(self, qube: Qube, name: str) -> None:
        kind, _, detail = name.partition(":")
        match kind:
            case "domain-feature-set" | "domain-feature-delete" if detail == members.LIMIT:
                self._of_limit(qube)
            case "property-set" | "property-reset":
                self._of_property(qube, detail)
            case "firewall-changed" if members.MEMBERS in qube.features:
                self.plan(qube, "firewall")
            case "domain-shutdown":
                for one in (qube, *self.system.made_from(qube)):
                    if members.MEMBERS in one.features:
                        self.plan(one, "outdated", AFTER_SHUTDOWN)
            case "domain-unpaused" if members.COMPLETED in qube.features:
                template = self.system.find(qube.template)
                if template is not None and members.is_preloaded(self.system, qube):
                    self.used(template, qube)

    def _of_limit(self, qube: Qube) -> None:
        template: Qube | None = qube
        if qube is self.system.dom0:
            found = self.system.properties.get("default_dispvm")
            template = self.system.find(found) if isinstance(found, UUID) else None
        if template is not None:
            self.plan(template, members.LIMIT)

    def _of_property(self, qube: Qube, name: str) -> None:
        if name == "template_for_dispvms":
            self.plan(qube, name)
        elif members.MEMBERS not in qube.features:
            return
        elif name == "template":
            self.renew(qube)
        elif is_relevant(name):
            self.plan(qube, "property", AFTER_CHANGE)

    def _of_system(self, event: Event) -> None:
        changed = event.name in ("property-set:default_dispvm", "property-reset:default_dispvm")
        gone = event.fields.get("vm") if event.name == "domain-delete" else None
        for template in members.templates_with(self.system):
            if changed or gone in members.members_of(template):
                self.plan(template, event.name.partition(":")[0])
