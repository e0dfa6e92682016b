"""Command strings of EXEC_CMDLINE and JUST_EXEC, and VMExec arguments.

Source of the formats: qrexec-wire.md section 8, in-qube.md section 4.1.
"""

import re
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

MAX_SERVICE_NAME = 255
MAX_DESCRIPTOR_TOKEN = 65_000
_RPC = "QUBESRPC"
_NOGUI = "nogui:"
_PLAIN = re.compile(rb"[A-Za-z0-9._]")
_PART = re.compile(r"(?:[A-Za-z0-9._]|--|-[0-9A-F]{2})*", re.ASCII)
_ESCAPE = re.compile(r"--|-[0-9A-F]{2}", re.ASCII)


class ServiceCall(NamedTuple):
    """What a service is called with. argument is None when the call had no `+`.

    descriptor: the text after QUBESRPC, as it came.
    """

    name: str
    argument: str | None
    source: str
    descriptor: str

    @property
    def full_name(self) -> str:
        """The first token as it came."""
        return self.name if self.argument is None else f"{self.name}+{self.argument}"


class Command(NamedTuple):
    """A command for a user: exactly one of shell and service is there."""

    user: str
    nogui: bool
    shell: str | None = None
    service: ServiceCall | None = None


def parse_command(text: str) -> Command:
    """Read the text that a qube's agent gets.

    Raises:
        ProtocolError: it has no user, or a service descriptor that is not as it should be.
    """
    user, colon, rest = text.partition(":")
    if not colon:
        raise ProtocolError("a command names its user")
    nogui = rest.startswith(_NOGUI)
    if nogui:
        rest = rest[len(_NOGUI) :]
    if not rest.startswith(_RPC):
        return Command(user, nogui, shell=rest)
    if rest[len(_RPC) : len(_RPC) + 1] != " ":
        raise ProtocolError(f"no space after {_RPC}")
    return Command(user, nogui, service=parse_descriptor(rest[len(_RPC) + 1 :]))


def parse_descriptor(descriptor: str) -> ServiceCall:
    """Read `SERVICE[+ARGUMENT] SOURCE [...]`.

    Raises:
        ProtocolError: a token is missing, empty or too long.
    """
    first, space, rest = descriptor.partition(" ")
    if not space or not 1 <= _size(first) <= MAX_DESCRIPTOR_TOKEN:
        raise ProtocolError("a service descriptor has a service and a source")
    source = rest.partition(" ")[0]
    if not source:
        raise ProtocolError("a service descriptor names its source")
    name, plus, argument = first.partition("+")
    if not 1 <= _size(name) <= MAX_SERVICE_NAME:
        raise ProtocolError(f"a service's name has 1 to {MAX_SERVICE_NAME} bytes")
    return ServiceCall(name, argument if plus else None, source, descriptor)


def words_of(descriptor: str) -> list[str]:
    """What a descriptor consists of; nothing but spaces separates."""
    return [word for word in descriptor.split(" ") if word]


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def encode_vmexec(argv: list[bytes]) -> str:
    """The argument of qubes.VMExec for a program and its words."""
    return "+".join(
        "".join(
            chr(byte)
            if _PLAIN.match(bytes((byte,)))
            else ("--" if byte == ord("-") else f"-{byte:02X}")
            for byte in word
        )
        for word in argv
    )


def decode_vmexec(argument: str) -> list[bytes]:
    """The program and its words.

    Raises:
        ProtocolError: a part holds a character or an escape that the encoding does not have.
    """
    words = []
    for part in argument.split("+"):
        if _PART.fullmatch(part) is None:
            raise ProtocolError(f"not a VMExec argument: {part!r}")
        plain = _ESCAPE.sub(
            lambda found: "-" if found.group() == "--" else chr(int(found.group()[1:], 16)), part
        )
        words.append(plain.encode("latin-1"))
    return words
