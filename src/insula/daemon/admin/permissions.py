"""What qubes other than dom0 get to see (admin-api.md section 1.7).

What one may ask for is decided before its request comes here, by who routes it. These are filters
of what is answered, by the same policy.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.protocol.admin import Event

# Whether a call of a service with an argument is allowed from a source to a target, without asking
# anybody; no target is the admin domain.
Allows = Callable[[str, str, Qube, Qube | None], bool]


def nothing_allowed(_service: str, _argument: str, _source: Qube, _target: Qube | None) -> bool:
    """The policy where there is none."""
    return False


def listed(allows: Allows, system: System, source: Qube, qubes: list[Qube]) -> list[Qube]:
    """The qubes that one gets to see in a list of them."""
    if source is system.dom0:
        return qubes
    return [qube for qube in qubes if allows("admin.vm.List", "", source, qube)]


def is_told(
    allows: Allows,
    system: System,
    source: Qube,
    event: Event,
    departed: Mapping[str, Qube] = MappingProxyType({}),
) -> bool:
    """Whether one gets to know of an event. departed: qubes that it tells are no more."""
    if source is system.dom0:
        return True
    name = event.subject or event.fields.get("vm", "")
    about = None
    if name:
        about = departed.get(name) or (system.named(name) if system.has_name(name) else None)
        if about is None:
            return False  # It is gone, and with it what a policy could have said of it.
    return allows("admin.Events", event.name.replace(":", "_"), source, about)
