"""qubesdb-read and its kin (in-qube.md section 1.2)."""

import getopt
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from insula.guest.qubesdb import SOCKET_PATH
from insula.protocol.errors import ProtocolError
from insula.protocol.qubesdb import HEADER, Message, MessageType, take_message

_EXIT_FAILED, _EXIT_NOT_FOUND, _EXIT_UNKNOWN = 1, 2, 3
_OPTIONS = "frqwxe:d:n:c:h"
_CHUNK = 65_536
_COMMANDS = ("read", "write", "rm", "multiread", "list", "watch")


class NotFoundError(Exception):
    """There is no such key."""


class Database:
    """A connection to the store."""

    def __init__(self, path: str | None = None) -> None:
        """Raises: OSError: nobody serves it."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path or os.environ.get("INSULA_QUBESDB_SOCKET", SOCKET_PATH))
        self._received = bytearray()
        self._events: list[bytes] = []

    def close(self) -> None:
        """Ask nothing any more."""
        self._socket.close()

    def read(self, key: str) -> bytes:
        """A value.

        Raises:
            NotFoundError: there is none.
        """
        return self._ask(MessageType.READ, key).data

    def write(self, key: str, value: bytes) -> None:
        """Keep a value."""
        self._ask(MessageType.WRITE, key, value)

    def remove(self, key: str) -> None:
        """Remove a key, or those below one that ends in a slash."""
        self._ask(MessageType.RM, key)

    def watch(self, key: str) -> None:
        """Be told of changes from now on."""
        self._ask(MessageType.WATCH, key)

    def next_event(self) -> bytes:
        """The path of the next change."""
        while not self._events:
            self._receive()
        return self._events.pop(0)

    def below(self, prefix: str, kind: MessageType) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with a text; kind: MULTIREAD for their values, too, or LIST."""
        self._socket.sendall(Message(kind, os.fsencode(prefix)).encode())
        while True:
            message = self._answer()
            if message.type == MessageType.RESP_ERROR:
                raise ProtocolError(f"{prefix} cannot be listed")
            if not message.path and not message.data:
                return
            yield message.path, message.data

    def _ask(self, kind: MessageType, key: str, data: bytes = b"") -> Message:
        path = os.fsencode(key)
        if len(path) > HEADER.size - 9:
            raise ProtocolError(f"{key} is too long")
        self._socket.sendall(Message(kind, path, data).encode())
        message = self._answer()
        if message.type == MessageType.RESP_ERROR_NOENT:
            raise NotFoundError(key)
        if message.type == MessageType.RESP_ERROR:
            raise ProtocolError(f"{key} is not to be had, or not to be changed")
        return message

    def _answer(self) -> Message:
        while True:
            message = take_message(self._received)
            if message is None:
                self._receive_bytes()
            elif message.type == MessageType.RESP_WATCH:
                self._events.append(message.path)
            else:
                return message

    def _receive(self) -> None:
        message = take_message(self._received)
        if message is None:
            self._receive_bytes()
        elif message.type == MessageType.RESP_WATCH:
            self._events.append(message.path)

    def _receive_bytes(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionError("the store closed the connection")
        self._received += data


def main(words: Sequence[str] | None = None) -> int:
    """qubesdb-COMMAND, or qubesdb-cmd -c COMMAND."""
    name = Path(sys.argv[0]).name.removeprefix("qubesdb-")
    try:
        given, rest = getopt.gnu_getopt(
            list(sys.argv[1:] if words is None else words), _OPTIONS, ["default=", "help"]
        )
    except getopt.GetoptError as error:
        print(f"qubesdb-{name}: {error}", file=sys.stderr)
        return _EXIT_FAILED
    options = dict(given)
    if "--default" in options:
        options["-e"] = options["--default"]
    command = options.get("-c", "read") if name == "cmd" else name
    if "-h" in options or "--help" in options or command not in _COMMANDS or not rest:
        print(f"usage: qubesdb-{name} [-frqwx] [-e DEFAULT] [-n COUNT] KEY...", file=sys.stderr)
        return 0 if "-h" in options or "--help" in options else _EXIT_FAILED
    try:
        return _RUN[command](Database(), options, rest)
    except NotFoundError as error:
        return _complain(options, f"{error}: there is no such key", _EXIT_NOT_FOUND)
    except (OSError, ProtocolError) as error:
        return _complain(options, str(error), _EXIT_FAILED)


def read_bool(words: Sequence[str] | None = None) -> int:
    """qubesdb-read-bool KEY [DEFAULT]"""
    given = list(sys.argv[1:] if words is None else words)
    if not 1 <= len(given) <= 2:
        print("usage: qubesdb-read-bool KEY [DEFAULT]", file=sys.stderr)
        return _EXIT_UNKNOWN
    try:
        return 0 if Database().read(given[0]) else 1
    except NotFoundError:
        return int(given[1]) if len(given) > 1 else 2
    except (OSError, ProtocolError, ValueError) as error:
        print(f"qubesdb-read-bool: {error}", file=sys.stderr)
        return _EXIT_UNKNOWN


def _complain(options: dict[str, str], text: str, code: int) -> int:
    if "-q" not in options:
        print(text, file=sys.stderr)
    return code


def shown(value: bytes, *, raw: bool) -> bytes:
    """A value as it is printed."""
    if raw:
        return value
    return b"".join(bytes((byte,)) if 0x20 <= byte <= 0x7F else b"\\x%02X" % byte for byte in value)


def _print(value: bytes, options: dict[str, str]) -> None:
    sys.stdout.buffer.write(shown(value, raw="-r" in options) + b"\n")
    sys.stdout.buffer.flush()


def _read(database: Database, options: dict[str, str], keys: list[str]) -> int:
    code = 0
    for key in keys:
        if "-w" in options:
            _wait(database, key)
        try:
            value = database.read(key)
        except NotFoundError:
            if "-e" not in options:
                code = _complain(options, f"{key}: there is no such key", _EXIT_NOT_FOUND)
                continue
            value = os.fsencode(options["-e"])
        if "-f" in options:
            sys.stdout.buffer.write(os.fsencode(key) + b" = ")
        _print(value, options)
        if "-x" in options:
            database.remove(key)
    return code


def _wait(database: Database, key: str) -> None:
    database.watch(key)
    while True:
        try:
            database.read(key)
            return
        except NotFoundError:
            database.next_event()


def _write(database: Database, _options: dict[str, str], words: list[str]) -> int:
    if len(words) % 2:
        raise ProtocolError("keys and values come in pairs")
    for key, value in zip(words[::2], words[1::2], strict=True):
        database.write(key, os.fsencode(value))
    return 0


def _remove(database: Database, options: dict[str, str], keys: list[str]) -> int:
    code = 0
    for key in keys:
        try:
            database.remove(key)
        except NotFoundError:
            code = _complain(options, f"{key}: there is no such key", _EXIT_NOT_FOUND)
    return code


def _multiread(database: Database, options: dict[str, str], keys: list[str]) -> int:
    for key in keys:
        for path, value in database.below(key, MessageType.MULTIREAD):
            rest = path if "-f" in options else path[len(os.fsencode(key)) :]
            sys.stdout.buffer.write(rest + b" = ")
            _print(value, options)
    return 0


def _list(database: Database, options: dict[str, str], keys: list[str]) -> int:
    for key in keys:
        for path, _ in database.below(key, MessageType.LIST):
            _print(path if "-f" in options else path[len(os.fsencode(key)) :], options)
    return 0


def _watch(database: Database, options: dict[str, str], keys: list[str]) -> int:
    count = int(options.get("-n", "1"))
    for key in keys:
        database.watch(key)
    while count:
        _print(database.next_event(), options)
        count -= 1
    return 0


_RUN: dict[str, Callable[[Database, dict[str, str], list[str]], int]] = {
    "read": _read,
    "write": _write,
    "rm": _remove,
    "multiread": _multiread,
    "list": _list,
    "watch": _watch,
}
