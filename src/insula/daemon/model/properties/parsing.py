"""From a payload's text to a property's value (admin-api.md section 3.1)."""

import ipaddress
import re
import string
from collections.abc import Callable

from insula.daemon.model.errors import (
    PropertyValueError,
    QubeNotFoundError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.definition import Kind, Parse
from insula.daemon.model.qube import Qube, QubeClass, Value, check_name
from insula.daemon.model.system import System

_TRUE = frozenset(("1", "yes", "true", "on"))
_FALSE = frozenset(("0", "no", "false", "off"))
_PRINTABLE = frozenset(string.printable)
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", re.ASCII)
_BY_INDEX = "label-"
_INTERFACE = 7  # characters of an interface code
_INTERFACE_CODE = re.compile(r"[bump*][0-9a-f*]{6}", re.ASCII)


def check_kind(system: System, qube: Qube, kind: Kind, text: str) -> None:
    """Refuse what no property of a kind could be, before it matters which property it is.

    Raises:
        ReportableError: it is of another kind.
    """
    match kind:
        case "bool":
            boolean(system, qube, text)
        case "int":
            _number(text)
        case "label":
            label(system, qube, text)
        case "vm" if text:
            check_name(text)
        case "str" if not set(text) <= _PRINTABLE:
            raise ValueRefusedError("The value holds characters that are not printable ASCII")


def boolean(_system: System, _qube: Qube, text: str) -> bool:
    return truth(text)


def truth(text: str) -> bool:
    """A truth value (admin-api.md section 3.1).

    Raises:
        ValueRefusedError: it is none.
    """
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueRefusedError(f"Not a boolean: {text!r}. It is True or False")


def integer(lowest: int | None = None) -> Parse:
    """Whole numbers, from lowest on where that is given."""

    def parse(_system: System, _qube: Qube, text: str) -> int:
        number = _number(text)
        if lowest is not None and number < lowest:
            raise PropertyValueError(f"The value must be at least {lowest}, {number} is less")
        return number

    return parse


def string_of(
    pattern: str | None = None, *, longest: int | None = None, also: Callable[[str], str] = str
) -> Parse:
    """Printable ASCII text that matches a pattern; also: what becomes of it."""
    compiled = None if pattern is None else re.compile(pattern, re.ASCII)

    def parse(_system: System, _qube: Qube, text: str) -> str:
        if longest is not None and len(text) > longest:
            raise PropertyValueError(f"The value may have at most {longest} characters")
        found = also(text)
        if compiled is not None and compiled.fullmatch(found) is None:
            raise PropertyValueError(f"The value has to match {pattern}, {text!r} does not")
        return found

    return parse


def qube_named(*, none: bool, accepts: Callable[[Qube], str | None] | None = None) -> Parse:
    """A reference to a qube. accepts says why one is not acceptable, or None when it is."""

    def parse(system: System, _qube: Qube, text: str) -> Value:
        if not text:
            if not none:
                raise PropertyValueError("A qube has to be named")
            return None
        check_name(text)
        try:
            found = system.named(text)
        except QubeNotFoundError as error:
            raise PropertyValueError(str(error)) from error
        if found.klass is QubeClass.REMOTE:
            raise PropertyValueError(f"Qube {text} is on another system and cannot be used here")
        if accepts is not None and (why := accepts(found)) is not None:
            raise PropertyValueError(f"Qube {text} {why}")
        return found.uuid

    return parse


def address(version: int) -> Parse:
    """An IP address of that version."""

    def parse(_system: System, _qube: Qube, text: str) -> str:
        try:
            found = ipaddress.ip_address(text)
        except ValueError:
            raise ValueRefusedError(f"Not an IP address: {text!r}") from None
        if found.version != version:
            raise ValueRefusedError(f"Not an IPv{version} address: {text}")
        return str(found)

    return parse


def mac(_system: System, _qube: Qube, text: str) -> str:
    if _MAC.fullmatch(text.lower()) is None:
        raise RefusedSilentlyError(f"not a MAC address: {text!r}")
    return text.lower()


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueRefusedError(f"Not a number: {text[:80]!r}") from None


def label(system: System, _qube: Qube, text: str) -> str:
    """A label by name, index or `label-INDEX`."""
    index = text.removeprefix(_BY_INDEX)
    by_index = text not in system.labels and text != index and index.isdigit()
    return system.label(index if by_index else text).name


def kernel(system: System, _qube: Qube, text: str) -> str:
    """A kernel of the pool, or nothing: what lies in the qube boots it."""
    if text and text not in system.kernels:
        known = ", ".join(sorted(system.kernels)) or "none"
        raise PropertyValueError(f"No such kernel: {text!r}. Installed: {known}")
    return text


def interfaces(_system: System, _qube: Qube, text: str) -> str:
    """Interface codes of devices, sorted and each once."""
    codes = [text[at : at + _INTERFACE] for at in range(0, len(text), _INTERFACE)]
    for code in codes:
        if _INTERFACE_CODE.fullmatch(code) is None:
            raise PropertyValueError(f"Not an interface of a device: {code!r}")
    return "".join(sorted(set(codes)))


def nothing(_system: System, _qube: Qube, _text: str) -> Value:
    """Of properties that are computed."""
    raise PropertyValueError("The property is read-only")
