"""What a description file asks for. Every error names the key that it is about."""

import difflib
import re
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.firewall import Rule, parse_rule
from insula.tools.sizes import parse_size

SERVICE = "service."
MANAGED_FEATURES = frozenset(
    (
        "deferred-netvm-original",
        "preload-dispvm",
        "preload-dispvm-completed",
        "preload-dispvm-in-progress",
    )
)
STATE_FEATURES = frozenset(("updates-available", "last-update", "last-updates-check"))
# What programs in a qube announce, and what follows a property: exact does not take it away.
ANNOUNCED = (
    "os", "os-", "qubes-agent-version", "qubes-firewall", "servicevm", "supported-", "template-",
    "vmexec",
)  # fmt: skip
MANAGED_TAGS = ("created-by-", "disp-created-by-", "guivm-", "audiovm-", "relayvm-")
_ELSEWHERE = {"template": "template", "label": "label", "klass": "class"}
_FIXED = frozenset(("name", "qid", "uuid", "dispid"))
_QUBE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}", re.ASCII)
_COLOR = re.compile(r"0x[0-9A-Fa-f]{6}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_FEATURE = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
# Unicode categories of characters for which the daemon puts "_" into notes.
_INVISIBLE = frozenset(("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"))

Values = dict[str, str | None]  # None: the default, or not set


def is_announced(feature: str) -> bool:
    """Whether a feature is told by a qube itself."""
    return any(
        feature.startswith(one) if one.endswith("-") else feature == one for one in ANNOUNCED
    )


class DescriptionError(ReportableError):
    """A file does not describe a system."""

    def __init__(self, file: str, where: str, what: str) -> None:
        super().__init__(f"{file}: {where}: {what}" if where else f"{file}: {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedQube:
    """A qube as it is to be; what is None or not there stays as it is.

    exact: what is not mentioned is not to be. features: services, too. volumes: bytes.
    """

    name: str
    absent: bool = False
    klass: str | None = None
    label: str | None = None
    template: str | None = None
    clone: str | None = None
    exact: bool = False
    properties: Values = field(default_factory=dict)
    features: Values = field(default_factory=dict)
    tags: frozenset[str] | None = None
    notes: str | None = None
    firewall: tuple[Rule, ...] | None = None
    volumes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A system as it is to be."""

    file: str
    labels: dict[str, str] = field(default_factory=dict)
    qubes: dict[str, WantedQube] = field(default_factory=dict)
    system: Values = field(default_factory=dict)


def read(path: Path) -> Wanted:
    """Read a description; "-" is standard input.

    Raises:
        ReportableError: the file cannot be read, or does not describe a system.
    """
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise ReportableError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ReportableError(f"{path} is not UTF-8: byte {error.start}") from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Wanted:
    """Read a description's text; file: what errors call it.

    Raises:
        DescriptionError: it does not describe a system.
    """
    try:
        loaded = tomllib.loads(text)
    except ValueError as error:  # a TOMLDecodeError, or a number of thousands of digits
        raise DescriptionError(file, "", str(error)) from None
    except RecursionError:
        raise DescriptionError(file, "", "it is nested too deeply") from None
    return _Reader(file).system(loaded)


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file

    def system(self, loaded: dict[str, Any]) -> Wanted:
        self._known("", loaded, ("labels", "qubes", "system", "policy"))
        if "policy" in loaded:
            error = self._error("policy", "this instance cannot have policy files written for it")
            error.hint = "Leave the section out; write policy by hand."
            raise error
        labels = {
            name: self._color(f"labels.{name}", color)
            for name, color in self._table("labels", loaded.get("labels", {})).items()
        }
        qubes = {
            name: self._qube(name, table)
            for name, table in self._table("qubes", loaded.get("qubes", {})).items()
        }
        properties = self._properties("system", loaded.get("system", {}))
        return Wanted(file=self._file, labels=labels, qubes=qubes, system=properties)

    def _qube(self, name: str, loaded: Any) -> WantedQube:
        at = f"qubes.{name}"
        if _QUBE.fullmatch(name) is None:
            raise self._error(at, "not a name of a qube")
        table = self._table(at, loaded)
        self._known(at, table, _QUBE_KEYS)
        for key in ("class", "label", "template", "clone"):
            if key in table and not (isinstance(table[key], str) and table[key]):
                raise self._error(f"{at}.{key}", "a name is wanted")
        absent = self._state(at, table)
        properties = self._properties(f"{at}.properties", table.get("properties", {}))
        for key in properties:
            if key in _ELSEWHERE:
                raise self._error(f"{at}.properties.{key}", f"is {at}.{_ELSEWHERE[key]} here")
            if key in _FIXED:
                raise self._error(f"{at}.properties.{key}", "cannot be chosen")
        return WantedQube(
            name=name,
            absent=absent,
            klass=table.get("class"),
            label=table.get("label"),
            template=table.get("template"),
            clone=table.get("clone"),
            exact=self._flag(f"{at}.exact", table.get("exact", False)),
            properties=properties,
            features=self._features(at, table),
            tags=self._tags(f"{at}.tags", table["tags"]) if "tags" in table else None,
            notes=self._notes(f"{at}.notes", table["notes"]) if "notes" in table else None,
            firewall=(
                self._rules(f"{at}.firewall", table["firewall"]) if "firewall" in table else None
            ),
            volumes=self._volumes(f"{at}.volumes", table.get("volumes", {})),
        )

    def _state(self, at: str, table: Mapping[str, Any]) -> bool:
        state = table.get("state", "present")
        if state not in ("present", "absent"):
            raise self._error(f"{at}.state", 'is "present" or "absent"')
        if state == "absent" and len(table) > 1:
            raise self._error(f"{at}.state", "a qube that is to be absent has nothing else")
        return bool(state == "absent")

    def _properties(self, at: str, loaded: Any) -> Values:
        table = self._table(at, loaded)
        return {
            self._ascii(f"{at}.{name}", name): self._value(f"{at}.{name}", value, self._property)
            for name, value in table.items()
        }

    def _property(self, at: str, value: Any) -> str:
        if isinstance(value, (bool, int)):
            return str(value)
        if isinstance(value, str):
            return self._ascii(at, value)
        raise self._error(at, "a text, a number, true, false or { default = true } is wanted")

    def _features(self, at: str, table: Mapping[str, Any]) -> Values:
        found: Values = {}
        for name, value in self._table(f"{at}.features", table.get("features", {})).items():
            key = f"{at}.features.{name}"
            if _FEATURE.fullmatch(name) is None:
                raise self._error(key, "not a name of a feature")
            if name in MANAGED_FEATURES:
                raise self._error(key, "is the daemon's own")
            found[name] = self._value(key, value, self._feature)
        for name, value in self._table(f"{at}.services", table.get("services", {})).items():
            key, feature = f"{at}.services.{name}", SERVICE + name
            if feature in found:
                raise self._error(key, f"is given as {at}.features.{feature}, too")
            if _FEATURE.fullmatch(feature) is None:
                raise self._error(key, "not a name of a service")
            found[feature] = self._value(key, value, self._switch)
        if found.get("service.meminfo-writer") is not None:
            text = "is not kept by the daemon: set properties.maxmem instead"
            raise self._error(f"{at}.services.meminfo-writer", text)
        return found

    def _feature(self, at: str, value: Any) -> str:
        if isinstance(value, bool):
            return "1" if value else ""
        if isinstance(value, int):
            return str(value)
        if not isinstance(value, str) or not value.isascii() or not (value.isprintable()):
            raise self._error(at, "printable ASCII, true, false or { default = true } is wanted")
        return value

    def _switch(self, at: str, value: Any) -> str:
        return "1" if self._flag(at, value) else ""

    def _value(self, at: str, value: Any, read_one: Callable[[str, Any], str]) -> str | None:
        """A value, or None for { default = true }."""
        if isinstance(value, dict):
            if value != {"default": True}:
                raise self._error(at, "of tables there is only { default = true }")
            return None
        return read_one(at, value)

    def _tags(self, at: str, loaded: Any) -> frozenset[str]:
        for tag in (tags := self._texts(at, loaded)):
            if _TAG.fullmatch(tag) is None:
                raise self._error(at, f"not a tag: {tag!r}")
        return frozenset(tags)

    def _notes(self, at: str, text: Any) -> str:
        if not isinstance(text, str):
            raise self._error(at, "a text is wanted")
        for one in text:
            if one not in "\t\n" and unicodedata.category(one) in _INVISIBLE:
                raise self._error(at, f"a character that cannot be shown: {one!a}")
        return text

    def _rules(self, at: str, loaded: Any) -> tuple[Rule, ...]:
        rules = []
        for number, text in enumerate(self._texts(at, loaded)):
            try:
                rules.append(parse_rule(text))
            except ProtocolError as error:
                raise self._error(f"{at}[{number}]", str(error)) from None
        return tuple(rules)

    def _volumes(self, at: str, loaded: Any) -> dict[str, int]:
        found = {}
        for name, value in self._table(at, loaded).items():
            if isinstance(value, bool) or not isinstance(value, (int, str)):
                raise self._error(f"{at}.{name}", 'a size is wanted: bytes, or "10GiB"')
            try:
                found[name] = parse_size(str(value))
            except ValueError as error:
                raise self._error(f"{at}.{name}", str(error)) from None
        return found

    def _color(self, at: str, color: Any) -> str:
        if not isinstance(color, str) or _COLOR.fullmatch(color) is None:
            raise self._error(at, 'a colour is wanted: "0x" and six hexadecimal digits')
        return color

    def _flag(self, at: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._error(at, "true or false is wanted")
        return value

    def _ascii(self, at: str, text: str) -> str:
        if not text.isascii() or "\0" in text:
            raise self._error(at, "ASCII is wanted")
        return text

    def _texts(self, at: str, loaded: Any) -> list[str]:
        if not isinstance(loaded, list) or not all(isinstance(one, str) for one in loaded):
            raise self._error(at, "a list of texts is wanted")
        return loaded

    def _table(self, at: str, loaded: Any) -> dict[str, Any]:
        if not isinstance(loaded, dict):
            raise self._error(at, "a table is wanted")
        return loaded

    def _known(self, at: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                error = self._error(f"{at}.{key}".lstrip("."), "there is no such key")
                near = difflib.get_close_matches(key, known, 1)
                error.hint = f"Is {near[0]} meant?" if near else f"There are {', '.join(known)}."
                raise error

    def _error(self, at: str, what: str) -> DescriptionError:
        return DescriptionError(self._file, at, what)


_QUBE_KEYS = (
    "class", "clone", "exact", "features", "firewall", "label", "notes", "properties", "services",
    "state", "tags", "template", "volumes",
)  # fmt: skip
