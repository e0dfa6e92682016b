"""What a policy has to know of the system (qrexec-policy.md section 7)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from insula.protocol.errors import ProtocolError

NIL_UUID = "00000000-0000-0000-0000-000000000000"
ADMIN = "dom0"
REMOTE = "RemoteVM"
UUID_PREFIX = "uuid:"
RUNNING = "Running"


@dataclass(frozen=True, slots=True, kw_only=True)
class QubeInfo:
    """One qube. default_dispvm, guivm, relayvm: names, or None."""

    name: str
    klass: str
    uuid: str = ""
    tags: frozenset[str] = frozenset()
    template_for_dispvms: bool = False
    default_dispvm: str | None = None
    power_state: str = "Halted"
    guivm: str | None = None
    internal: bool = False
    relayvm: str | None = None
    transport_rpc: str | None = None


class SystemInfo:
    """All qubes, by name and by UUID."""

    def __init__(self, qubes: Iterable[QubeInfo]) -> None:
        self.qubes = {qube.name: qube for qube in qubes}
        self._by_uuid = {qube.uuid: qube for qube in self.qubes.values() if qube.uuid}

    @classmethod
    def from_domains(cls, domains: Mapping[str, Any]) -> "SystemInfo":
        """The `domains` that internal.GetSystemInfo answers.

        Raises:
            ProtocolError: it is something else.
        """
        try:
            return cls(_of(name, fields, fields["type"]) for name, fields in domains.items())
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"not a system: {error!r}") from None

    def find(self, text: str) -> QubeInfo | None:
        """A qube by its name, or by uuid: and its UUID."""
        if text.startswith(UUID_PREFIX):
            return self._by_uuid.get(text.removeprefix(UUID_PREFIX))
        return self.qubes.get(text)

    def default_base(self, source: str) -> str | None:
        """The name of the disposable template that a qube uses unless it names one."""
        found = self.qubes.get(source)
        return None if found is None else found.default_dispvm

    def bases(self) -> list[str]:
        """Names of all disposable templates."""
        return [qube.name for qube in self.qubes.values() if qube.template_for_dispvms]


def is_admin(text: str) -> bool:
    """Whether a literal is the admin domain."""
    return text in (ADMIN, UUID_PREFIX + NIL_UUID)


def _of(name: str, fields: Mapping[str, Any], klass: str) -> QubeInfo:
    return QubeInfo(
        name=name,
        klass=klass,
        uuid=fields.get("uuid") or "",
        tags=frozenset(fields.get("tags") or ()),
        template_for_dispvms=bool(fields.get("template_for_dispvms")),
        default_dispvm=fields.get("default_dispvm"),
        power_state=fields.get("power_state") or "Halted",
        guivm=fields.get("guivm"),
        internal=bool(fields.get("internal")),
        relayvm=fields.get("relayvm"),
        transport_rpc=fields.get("transport_rpc"),
    )
