"""Devices as the Admin API spells them (admin-api.md section 3.7, devices.md section 2)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from insula.protocol.errors import ProtocolError

ANY = "*"
UNKNOWN_ID = "0000:0000::?******"
UNKNOWN_INTERFACE = "?******"
INTERFACE_SIZE = 7  # characters
MODES = ("manual", "auto-attach", "ask-to-attach", "required")
_UNKNOWN_ARGUMENT = "_" * INTERFACE_SIZE
# With one of these before its quote, the end of a value cannot be told.
UNREADABLE_ENDS = ("=", "\\")
_PORT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_DEVICE_ID = re.compile(r"[!-~]+", re.ASCII)
_KEY = re.compile(r"[0-9A-Za-z!#$%&()*+,\-./:;<>?@\[\\\]^_{|}~]+", re.ASCII)
_VALUE = re.compile(r"[ -~]*", re.ASCII)
# Patterns of each category; the first listed wins a tie.
_CATEGORIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Other", ("*******",)),
    ("Network", ("u02****", "p0703**", "p02****", "ue0****")),
    ("Keyboard", ("u03**01", "p0900**")),
    ("Mouse", ("u03**02", "p0902**")),
    ("Input", ("u03****", "p09****")),
    ("Printer", ("u07****",)),
    ("Camera", ("p0903**", "u06****", "u0e****")),
    ("Microphone", ("m******",)),
    ("Audio", ("p0403**", "p0401**", "p0408**", "u01****", "m******")),
    ("Multimedia", ("u10****", "p03****", "p04****")),
    ("USB_Storage", ("u08****",)),
    ("Block_Storage", ("b******",)),
    ("Storage", ("b******", "u08****", "p01****")),
    ("Bluetooth", ("ue00101", "p0d11**")),
    ("Smart_Card_Readers", ("u0b****",)),
    ("Display", ("p0300**", "p0380**")),
    ("Memory", ("p05****",)),
    ("PCI_Bridge", ("p06****",)),
    ("Docking_Station", ("p0a****",)),
    ("Processor", ("p0b****", "p40****")),
    ("PCI_Serial_Bus", ("p0c****",)),
    ("PCI_USB", ("p0c03**",)),
)


@dataclass(frozen=True, slots=True)
class DeviceName:
    """A device as it is named; backend, port and device_id may each be ANY.

    device_id is None where the name leaves it out.
    """

    backend: str
    port: str
    device_id: str | None = None

    def __str__(self) -> str:
        return f"{self.backend}:{self.port}:{ANY if self.device_id is None else self.device_id}"

    def argument(self) -> str:
        """The name as the argument of a call."""
        backend, port = ("_" if part == ANY else part for part in (self.backend, self.port))
        if self.device_id is None:
            return f"{backend}+{port}"
        if self.device_id == ANY:
            return f"{backend}+{port}+_"
        device_id = self.device_id.replace(UNKNOWN_INTERFACE, _UNKNOWN_ARGUMENT)
        return f"{backend}+{port}+{device_id.replace(':', '+')}"


def parse_argument(untrusted: str) -> DeviceName:
    """A device named by the argument of a call.

    Raises:
        ProtocolError: it names none.
    """
    backend, plus, rest = untrusted.partition("+")
    port, has_id, device_id = rest.partition("+")
    if not plus or not backend:
        raise ProtocolError(f"not a device: {untrusted[:80]!r}")
    port = ANY if port == "_" else check_port(port)
    if not has_id:
        return DeviceName(_any(backend), port)
    if device_id != "_":
        device_id = device_id.replace("+", ":").replace(_UNKNOWN_ARGUMENT, UNKNOWN_INTERFACE)
        return DeviceName(_any(backend), port, check_device_id(device_id))
    return DeviceName(_any(backend), port, ANY)


def check_port(text: str) -> str:
    """A port's id as it is.

    Raises:
        ProtocolError: it is none.
    """
    if _PORT.fullmatch(text) is None:
        raise ProtocolError(f"not a port: {text[:80]!r}")
    return text


def check_device_id(text: str) -> str:
    """A device's id as it is, be it ANY.

    Raises:
        ProtocolError: it is none.
    """
    if _DEVICE_ID.fullmatch(text) is None or "'" in text or text.endswith(UNREADABLE_ENDS):
        raise ProtocolError(f"not the id of a device: {text[:80]!r}")
    return text


def serialise(items: Iterable[tuple[str, str]]) -> str:
    """Keys and values as one line.

    Raises:
        ProtocolError: a key or a value cannot be written so.
    """
    words = []
    for key, value in items:
        if _KEY.fullmatch(key) is None or _VALUE.fullmatch(value) is None:
            raise ProtocolError(f"cannot be written: {key[:80]!r}={value[:80]!r}")
        words.append("{}='{}'".format(key, value.replace("'", "\\'")))
    return " ".join(words)


def parse_serialised(untrusted: str) -> dict[str, str]:
    """Keys and values of one line; later ones of a key win.

    A key ends at =', a value at the last ' before the next key.

    Raises:
        ProtocolError: it is no such line.
    """
    found: dict[str, str] = {}
    key, begun, rest = untrusted.lstrip(" ").partition("='")
    while begun:
        inside, begun, after = rest.partition("='")
        if begun:
            end = inside.rfind("' ")
            value, next_key = inside[:end], inside[end + 2 :].lstrip(" ")
        else:
            value, next_key = rest.rstrip(" ")[:-1], ""
            end = 0 if rest.rstrip(" ").endswith("'") else -1
        value = value.replace("\\'", "'")
        if end < 0 or _KEY.fullmatch(key) is None or _VALUE.fullmatch(value) is None:
            raise ProtocolError(f"not a key and its value: {key[:80]!r}")
        found[key] = value
        key, rest = next_key, after
    if key:
        raise ProtocolError(f"not a key and its value: {key[:80]!r}")
    return found


def interfaces_of(codes: str) -> tuple[str, ...]:
    """Interface codes that were written one behind the other."""
    return tuple(codes[at : at + INTERFACE_SIZE] for at in range(0, len(codes), INTERFACE_SIZE))


def matches(pattern: str, code: str) -> bool:
    """Whether an interface is one of a pattern."""
    return len(pattern) == len(code) and all(
        wanted in (ANY, found) for wanted, found in zip(pattern, code, strict=True)
    )


def category(code: str) -> str:
    """What kind of device has an interface, by the pattern that says most of it."""
    best, most = "Other", -1
    for name, patterns in _CATEGORIES:
        for pattern in patterns:
            if not matches(pattern, code):
                continue
            equal = sum(one == other for one, other in zip(pattern, code, strict=True))
            if equal > most:
                best, most = name, equal
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """A device that a backend shows.

    interfaces: codes one behind the other. described: vendor, product and so on, those known.
    parent: class and port of what it is a part of. data: what else is known, by keys without "_".
    """

    devclass: str
    backend: str
    port: str
    device_id: str = UNKNOWN_ID
    interfaces: str = UNKNOWN_INTERFACE
    described: Mapping[str, str] | None = None
    parent: tuple[str, str] | None = None
    data: Mapping[str, str] | None = None

    @property
    def name(self) -> DeviceName:
        return DeviceName(self.backend, self.port, self.device_id)

    def line(self, attachment: str | None = None) -> str:
        """Its line in a list of what is available. attachment: the qube that has it."""
        items = [
            ("device_id", self.device_id),
            ("port_id", self.port),
            ("devclass", self.devclass),
            ("backend_domain", self.backend),
            *(self.described or {}).items(),
        ]
        if attachment is not None:
            items.append(("attachment", attachment))
        items.append(("interfaces", self.interfaces))
        if self.parent is not None:
            items += [("parent_port_id", self.parent[1]), ("parent_devclass", self.parent[0])]
        items += [(f"_{key}", value) for key, value in (self.data or {}).items()]
        return f"{self.port}:{self.device_id} {serialise(items)}"


def read_available(
    untrusted: str, backend: str, devclass: str
) -> tuple[DeviceName, dict[str, str]] | None:
    """A device and its record, by its line in a list of what a backend shows; None: it is none.

    A record that cannot be read, or is of another device, leaves an unknown one in that port.
    """
    head, _, record = untrusted.partition(" ")
    port, _, device_id = head.partition(":")
    if _PORT.fullmatch(port) is None:
        return None
    unknown = DeviceName(backend, port, UNKNOWN_ID), dict[str, str]()
    try:
        name = DeviceName(backend, port, check_device_id(device_id))
        items = parse_serialised(record)
    except ProtocolError:
        return unknown
    expected = (name.device_id, port, devclass, backend)
    told = ("device_id", "port_id", "devclass", "backend_domain")
    return (name, items) if tuple(items.get(key) for key in told) == expected else unknown


def _any(text: str) -> str:
    return ANY if text == "_" else text
