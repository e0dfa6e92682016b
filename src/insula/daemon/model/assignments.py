"""Devices that are a qube's from its next start on, or whenever they appear. No I/O."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from insula.protocol.devices import ANY

CLASSES = ("block", "mic", "pci", "usb", "webcam")
STORED_MODES = ("auto-attach", "ask-to-attach", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One device of a qube. backend: None is any; port, device_id: ANY is any."""

    devclass: str
    backend: UUID | None
    port: str = ANY
    device_id: str = ANY
    mode: str
    options: dict[str, str] = field(default_factory=dict)

    def is_of(self, devclass: str, backend: UUID | None, port: str, device_id: str) -> bool:
        """Whether it is the assignment that is so named."""
        return (self.devclass, self.backend, self.port, self.device_id) == (
            devclass,
            backend,
            port,
            device_id,
        )

    def fits(self, devclass: str, backend: UUID, port: str, device_id: str) -> bool:
        """Whether it is for a device."""
        return (
            self.devclass == devclass
            and self.backend in (None, backend)
            and self.port in (ANY, port)
            and self.device_id in (ANY, device_id)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.devclass,
            "backend": None if self.backend is None else str(self.backend),
            "port": self.port,
            "device_id": self.device_id,
            "mode": self.mode,
            "options": self.options,
        }

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Assignment":
        """What to_json wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        backend = loaded["backend"]
        return cls(
            devclass=loaded["class"],
            backend=None if backend is None else UUID(backend),
            port=loaded["port"],
            device_id=loaded["device_id"],
            mode=loaded["mode"],
            options=dict(loaded["options"]),
        )
