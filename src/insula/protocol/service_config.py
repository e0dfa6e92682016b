"""A service's configuration: a small part of TOML (qrexec-wire.md section 9.2)."""

import re
from dataclasses import dataclass

from insula.protocol.errors import ProtocolError

_LARGEST = 2**63 - 1
_LINE = re.compile(
    rb"(?P<key>[A-Za-z][A-Za-z0-9._-]*)[ \t]*=[ \t]*"
    rb"(?:(?P<truth>true|false)|(?P<number>0|[1-9][0-9]*)|'(?P<text>[^']*)')"
    rb"[ \t]*(?:#.*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What a file says, or what holds without one. unknown: keys that mean nothing here."""

    wait_for_session: bool = False
    force_user: str | None = None
    skip_service_descriptor: bool = False
    exit_on_service_eof: bool = False
    exit_on_client_eof: bool = False
    unknown: tuple[str, ...] = ()


def parse_service_config(content: bytes) -> ServiceConfig:
    """Read a file.

    Raises:
        ProtocolError: some line is none of the format, or its value none for its key.
    """
    found: dict[str, bool | str] = {}
    unknown: list[str] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            _take(line.removesuffix(b"\r"), found, unknown)
        except ValueError as error:
            raise ProtocolError(f"line {number}: {error}") from None
    sockets = ("skip_service_descriptor", "exit_on_service_eof", "exit_on_client_eof")
    if "force_user" in found and any(found.get(name) for name in sockets):
        raise ProtocolError("force-user does not go with what is for sockets alone")
    return ServiceConfig(**found, unknown=tuple(unknown))  # type: ignore[arg-type]


def _take(line: bytes, found: dict[str, bool | str], unknown: list[str]) -> None:
    if b"\0" in line:
        raise ValueError("a NUL byte")
    if not line or line.startswith(b"#"):
        return
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("not: key = value, with true, false, a number or 'text'")
    key = match["key"].decode()
    name = key.replace("-", "_")
    if key not in _KEYS:
        if match["number"] is not None and int(match["number"]) > _LARGEST:
            raise ValueError("a number that is too large")
        unknown.append(key)
        return
    if name in found:
        raise ValueError(f"{key} a second time")
    found[name] = _value(key, match["truth"], match["number"], match["text"])


def _value(key: str, truth: bytes | None, number: bytes | None, text: bytes | None) -> bool | str:
    if key == "force-user":
        if text is None:
            raise ValueError(f"{key} takes a text")
        return text.decode("utf-8", "surrogateescape")
    if truth is not None:
        return truth == b"true"
    if key == "wait-for-session" and number in (b"0", b"1"):
        return number == b"1"
    raise ValueError(f"{key} takes true or false")


_KEYS = frozenset(
    (
        "wait-for-session",
        "force-user",
        "skip-service-descriptor",
        "exit-on-service-eof",
        "exit-on-client-eof",
    )
)
