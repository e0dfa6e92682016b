"""What qrexec-client-vm is told: options up to the first word that is none."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from insula.protocol.qrexec import MAX_SERVICE

_LARGEST_BUFFER = 2**31 - 1
_VALUED = {"-a": "--agent-socket", "-p": "--prefix-data", "-s": "--source-qube"}
_PLAIN = {
    "-t": "--filter-escape-chars-stdout",
    "-T": "--filter-escape-chars-stderr",
    "-h": "--help",
}
_LONG_VALUED = ("--buffer-size", *_VALUED.values())
_LONG_PLAIN = (
    "--no-filter-escape-chars-stdout",
    "--no-filter-escape-chars-stderr",
    "--use-stdin-socket",
    *_PLAIN.values(),
)


class UsageError(Exception):
    """The words are none that the command takes."""


class Options(NamedTuple):
    """filter_stdout, filter_stderr: whether what could act on a terminal is taken out."""

    target: str
    service: str
    program: Sequence[str]
    source: str
    agent_socket: str | None
    prefix_data: bytes
    filter_stdout: bool
    filter_stderr: bool
    use_stdin_socket: bool


def usage() -> str:
    """What the command takes."""
    return (
        "usage: qrexec-client-vm [options] TARGET SERVICE[+ARGUMENT] [PROGRAM [ARGUMENTS]]\n\n"
        "Calls a service of another qube, as the policy of dom0 allows. TARGET is a qube's name,\n"
        "@default, @dispvm, @dispvm:TEMPLATE or @adminvm. PROGRAM is connected with the service;\n"
        "without one, standard input and output are.\n\n"
        "  --buffer-size=BYTES      size of the buffer; 0 for the usual one\n"
        "  -t, --filter-escape-chars-stdout, --no-filter-escape-chars-stdout\n"
        "                           replace what could act on a terminal in the output\n"
        "  -T, --filter-escape-chars-stderr, --no-filter-escape-chars-stderr\n"
        "                           the same in error messages\n"
        "  -a, --agent-socket=PATH  socket of the agent\n"
        "  -p, --prefix-data=TEXT   send TEXT before anything else\n"
        "  -s, --source-qube=NAME   qube of another system on whose behalf to call\n"
        "      --use-stdin-socket   standard input is a socket, for both directions\n"
        "  -h, --help               this text"
    )


def parse(words: Sequence[str]) -> Options | None:
    """Read the words; None where help is asked for.

    Raises:
        UsageError: they are not as they should be.
    """
    given, rest = _split(words)
    names = [name for name, _ in given]
    if "--help" in names:
        return None
    values = dict(given)
    _check_buffer(values.get("--buffer-size", "0"))
    if len(rest) < 2:
        raise UsageError("a target and a service are needed")
    stdin_socket = "--use-stdin-socket" in names
    if stdin_socket and len(rest) > 2:
        raise UsageError("--use-stdin-socket does not go with a program")
    service = rest[1]
    if len(os.fsencode(service)) >= MAX_SERVICE:
        raise UsageError(f"a service's name has less than {MAX_SERVICE} bytes")
    return Options(
        target=rest[0].replace("$", "@"),
        service=service,
        program=rest[2:],
        source=_once(given, "--source-qube") or "",
        agent_socket=values.get("--agent-socket"),
        prefix_data=os.fsencode(_once(given, "--prefix-data") or ""),
        filter_stdout=_filtered(given, "stdout", os.isatty(1) and len(rest) == 2),
        filter_stderr=_filtered(given, "stderr", os.isatty(2)),
        use_stdin_socket=stdin_socket,
    )


def _split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options by their long names with their values, up to the first word that is none.

    getopt would do it, and take as long to load as all the rest.
    """
    given: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            given.append((name, _value(name, equals, value, rest)))
        else:
            given += _letters(word[1:], rest)
    return given, rest


def _value(name: str, equals: str, value: str, rest: list[str]) -> str:
    if name in _LONG_PLAIN and not equals:
        return ""
    if name not in _LONG_VALUED:
        raise UsageError(f"unknown option {name}")
    if equals:
        return value
    if not rest:
        raise UsageError(f"{name} takes a value")
    return rest.pop(0)


def _letters(letters: str, rest: list[str]) -> list[tuple[str, str]]:
    """Short options in one word; the value of one is what follows it there, or the next word."""
    given = []
    while letters:
        letter, letters = f"-{letters[0]}", letters[1:]
        if letter in _PLAIN:
            given.append((_PLAIN[letter], ""))
        elif letter in _VALUED:
            name = _VALUED[letter]
            given.append((name, letters or _value(name, "", "", rest)))
            break
        else:
            raise UsageError(f"unknown option {letter}")
    return given


def _once(given: Sequence[tuple[str, str]], wanted: str) -> str | None:
    found = [value for name, value in given if name == wanted]
    if len(found) > 1:
        raise UsageError(f"{wanted} is taken once")
    return found[0] if found else None


def _filtered(given: Sequence[tuple[str, str]], stream: str, otherwise: bool) -> bool:
    switch = f"filter-escape-chars-{stream}"
    for name, _ in reversed(given):
        if name in (f"--{switch}", f"--no-{switch}"):
            return name == f"--{switch}"
    return otherwise


def _check_buffer(text: str) -> None:
    """C's integers: decimal, 0x, or octal by a leading 0."""
    digits = text.strip().removeprefix("+")
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
    try:
        size = int("" if "_" in digits else digits, base)
    except ValueError:
        raise UsageError(f"{text!r} is no size of a buffer") from None
    if not 0 <= size <= _LARGEST_BUFFER:
        raise UsageError(f"a buffer of {size} bytes cannot be")
