"""From files to one list of rules, in the order in which they are tried (sections 1 and 4).

What is where is asked of Files; nothing is read here.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from insula.protocol.policy.errors import IncludeDepthError, PolicyError, PolicySyntaxError
from insula.protocol.policy.rules import (
    DENY,
    Called,
    Directive,
    Rule,
    lines_of,
    parse_called,
    parse_line,
    parse_old_line,
)
from insula.protocol.policy.tokens import ADMIN_KEYWORD, Kind, Token

SUFFIX = ".policy"
DEEPEST = 32  # files that include each other
_NAME = re.compile(r"[0-9a-z_.-]+", re.ASCII)
_LEGACY_NAME = re.compile(r"[A-Za-z0-9+._-]+", re.ASCII)
_LEFT_OUT = (".rpmsave", ".rpmnew", ".swp")


class Files(Protocol):
    """Where policies lie. Paths are absolute and have "/" between names."""

    def names(self, directory: str) -> list[str]:
        """Names of the files in a directory, links to files among them.

        Raises:
            OSError: there is no such directory, or it cannot be read.
        """
        ...

    def text(self, path: str) -> str:
        """A file's text.

        Raises:
            OSError, ValueError: it is no file, or cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of a policy, those first that hide files of the same name in later ones.

    legacy: that of the old format.
    """

    directories: tuple[str, ...]
    legacy: str


def load(files: Files, places: Places) -> tuple[Rule, ...]:
    """All rules, in their order.

    Raises:
        PolicyError: there is none, as some part of it cannot be read or understood.
    """
    chosen: dict[str, str] = {}
    for directory in places.directories:
        for name in _policy_names(files, directory):
            chosen.setdefault(name, directory)
    reader = _Reader(files, places.legacy)
    rules: list[Rule] = []
    for name in sorted(chosen):
        directory = chosen[name]
        rules += reader.new(posixpath.join(directory, name), directory, 0)
    return tuple(rules)


def is_policy_name(name: str) -> bool:
    """Whether a file of that name is read, be it to fail because of its name."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def _policy_names(files: Files, directory: str) -> list[str]:
    try:
        names = [name for name in files.names(directory) if is_policy_name(name)]
    except OSError as error:
        raise PolicyError(f"{directory} cannot be read: {error.strerror}") from None
    for name in names:
        if _NAME.fullmatch(name) is None:
            bad = PolicyError(f"{directory}/{name}: a policy's file has another kind of name")
            bad.hint = "Rename it: only 0-9, a-z, '_', '.' and '-' are allowed"
            raise bad
    return sorted(names)


class _Reader:
    """Reads files and what they include."""

    def __init__(self, files: Files, legacy: str) -> None:
        self._files = files
        self._legacy = legacy

    def new(self, path: str, base: str, depth: int) -> Iterator[Rule]:
        """A file in the new syntax. base: to which paths in it are relative."""
        for number, line in lines_of(self._text(path, depth)):
            found = parse_line(path, number, line)
            if isinstance(found, Rule):
                yield found
            else:
                yield from self._directed(path, found, base, depth)

    def old(self, path: str, base: str, called: Called, depth: int) -> Iterator[Rule]:
        """A file in the old syntax."""
        for number, line in lines_of(self._text(path, depth)):
            found = parse_old_line(path, number, line, called)
            if isinstance(found, Rule):
                yield found
                continue
            if found.name != "!include":
                text = f"{found.name} cannot stand in a file of the old syntax"
                raise PolicySyntaxError(path, number, text)
            (target,) = _words(path, found, 1)
            yield from self.old(self._file(path, found, base, target), base, called, depth + 1)

    def _directed(self, path: str, directive: Directive, base: str, depth: int) -> Iterator[Rule]:
        match directive.name:
            case "!include":
                (target,) = _words(path, directive, 1)
                yield from self.new(self._file(path, directive, base, target), base, depth + 1)
            case "!include-dir":
                (target,) = _words(path, directive, 1)
                directory = _resolved(base, target)
                try:
                    self._files.names(directory)
                except OSError:
                    text = f"no such directory: {target}"
                    raise PolicySyntaxError(path, directive.line, text) from None
                for name in _policy_names(self._files, directory):
                    yield from self.new(posixpath.join(directory, name), base, depth + 1)
            case "!include-service":
                service, argument, target = _words(path, directive, 3)
                called = parse_called(path, directive.line, service, argument)
                included = self._file(path, directive, base, target)
                yield from self.old(included, base, called, depth + 1)
            case "!compat-4.0":
                _words(path, directive, 0)
                yield from self._compatible(depth)
            case _:
                raise PolicySyntaxError(path, directive.line, f"unknown: {directive.name}")

    def _compatible(self, depth: int) -> Iterator[Rule]:
        """The directory of the old format, services in order, those with an argument first."""
        try:
            names = self._files.names(self._legacy)
        except OSError as error:
            raise PolicyError(f"{self._legacy} cannot be read: {error.strerror}") from None
        for name in sorted(filter(_is_legacy_name, names), key=_legacy_order):
            service, plus, argument = name.partition("+")
            path = posixpath.join(self._legacy, name)
            called = Called(service, f"+{argument}" if plus else None)
            yield from self.old(path, self._legacy, called, depth + 1)
            if plus:
                for target in (Token(Kind.ANY, "@anyvm"), Token(Kind.ADMIN, ADMIN_KEYWORD)):
                    yield Rule(
                        file=path,
                        line=None,
                        service=service,
                        argument=called.argument,
                        source=Token(Kind.ANY, "@anyvm"),
                        target=target,
                        action=DENY,
                        notify=True,
                    )

    def _text(self, path: str, depth: int) -> str:
        if depth > DEEPEST:
            raise IncludeDepthError(f"{path} is included {depth} deep, perhaps by itself")
        try:
            return self._files.text(path)
        except (OSError, ValueError) as error:
            raise PolicyError(f"{path} cannot be read: {error}") from None

    def _file(self, path: str, directive: Directive, base: str, target: str) -> str:
        """The path of a file that is to be included."""
        resolved = _resolved(base, target)
        folder, name = posixpath.split(resolved)
        try:
            there = name in self._files.names(folder)
        except OSError:
            there = False
        if not there:
            raise PolicySyntaxError(path, directive.line, f"no such file: {target}")
        return resolved


def _resolved(base: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(base, target))


def _words(path: str, directive: Directive, count: int) -> tuple[str, ...]:
    if len(directive.words) != count:
        text = f"{directive.name} takes {count} words, not {len(directive.words)}"
        raise PolicySyntaxError(path, directive.line, text)
    return directive.words


def _is_legacy_name(name: str) -> bool:
    if name.startswith(".") or name.endswith(_LEFT_OUT):
        return False
    return _LEGACY_NAME.fullmatch(name) is not None


def _legacy_order(name: str) -> tuple[str, bool, str]:
    service, plus, argument = name.partition("+")
    return service, not plus, argument
