"""What the person's session is asked and told about calls (qrexec-wire.md section 11.6).

Two more messages are ours: a line to show, and the question whether a suspicious qube is to end.

It comes from dom0, which took names from qubes: everything that is shown has to be clean.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insula.protocol.errors import ProtocolError
from insula.protocol.policy.evaluation import Request, Verdict

ASK, NOTIFY = "policy.Ask", "policy.Notify"
TELL, SUSPICIOUS = "insula.Tell", "insula.Suspicious"
ENDS = b"end"  # the answer to Suspicious that has the qube ended
MAX_REQUEST = 4 << 20  # bytes
DENY = b"deny"
_ALLOW = "allow:"
RESOLUTIONS = ("allow", "deny", "fail")
_HEADER = re.compile(
    rb"(policy\.(?:Ask|Notify)|insula\.(?:Tell|Suspicious)) dom0(?: name dom0)?", re.ASCII
)
_NAME = re.compile(r"[A-Za-z0-9@_.:-]{1,80}", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9@_.+-]{1,255}", re.ASCII)
_ARGUMENT = re.compile(r"\+[A-Za-z0-9_.+-]{0,65000}", re.ASCII)
_LINE = re.compile(r"[ -~]{1,400}", re.ASCII)
_ICON = re.compile(r"[A-Za-z0-9_.-]{0,128}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question. argument: with its "+". icons: of all qubes, by their names."""

    source: str
    service: str
    argument: str
    targets: tuple[str, ...]
    default_target: str
    icons: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """What became of a call. resolution: allow, deny or fail."""

    resolution: str
    source: str
    service: str
    argument: str
    target: str


@dataclass(frozen=True, slots=True)
class Tell:
    """A line of dom0's own."""

    text: str


@dataclass(frozen=True, slots=True)
class Suspicious:
    """Whether a qube whose windows' messages no honest program sends is to end."""

    qube: str


def encode_tell(text: str) -> bytes:
    """A line to show."""
    return _encoded(TELL, {"text": text})


def encode_suspicious(qube: str) -> bytes:
    """The question whether a qube is to end."""
    return _encoded(SUSPICIOUS, {"qube": qube})


def encode_ask(verdict: Verdict, request: Request, icons: Mapping[str, str]) -> bytes:
    """What a verdict of ask has the person asked."""
    asked = {
        "source": verdict.source,
        "service": request.service,
        "argument": request.argument,
        "targets": list(verdict.targets),
        "default_target": verdict.default_target or "",
        "icons": dict(icons),
    }
    return _encoded(ASK, asked)


def encode_notify(resolution: str, verdict: Verdict, request: Request) -> bytes:
    """What the person is told of a call that was decided."""
    told = {
        "resolution": resolution,
        "source": request.source,
        "service": request.service,
        "argument": request.argument,
        "target": verdict.target or request.target,
    }
    return _encoded(NOTIFY, told)


def chosen(untrusted: bytes) -> str:
    """The target that an answer names; empty where it is a no."""
    answer = untrusted.decode("ascii", "replace")
    return answer.removeprefix(_ALLOW) if answer.startswith(_ALLOW) else ""


def _encoded(service: str, fields: Mapping[str, object]) -> bytes:
    return f"{service} dom0 name dom0\0".encode() + json.dumps(fields).encode()


def parse_request(received: bytes) -> Ask | Notify | Tell | Suspicious:
    """Read all that came on a connection.

    Raises:
        ProtocolError: it is none, or something in it is not to be shown.
    """
    header, separator, body = received.partition(b"\0")
    found = _HEADER.fullmatch(header)
    if not separator or found is None or len(received) > MAX_REQUEST:
        raise ProtocolError("no request")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ProtocolError("no object")
    match found[1].decode("ascii"):
        case "policy.Ask":
            return _ask(fields)
        case "policy.Notify":
            return _notify(fields)
        case "insula.Tell":
            return Tell(_clean(fields.get("text"), _LINE))
    return Suspicious(_clean(fields.get("qube"), _NAME))


def _ask(fields: dict[str, Any]) -> Ask:
    icons, targets = fields.get("icons"), fields.get("targets")
    if not isinstance(icons, dict) or not isinstance(targets, list) or not targets:
        raise ProtocolError("a question without targets or icons")
    default = fields.get("default_target", "")
    return Ask(
        source=_clean(fields.get("source"), _NAME),
        service=_clean(fields.get("service"), _SERVICE),
        argument=_clean(fields.get("argument") or "+", _ARGUMENT),
        targets=tuple(_clean(target, _NAME) for target in targets),
        default_target=_clean(default, _NAME) if default else "",
        icons={_clean(name, _NAME): _clean(icon, _ICON) for name, icon in icons.items()},
    )


def _notify(fields: dict[str, Any]) -> Notify:
    resolution = fields.get("resolution")
    if resolution not in RESOLUTIONS:
        raise ProtocolError(f"a resolution of {resolution!r}")
    return Notify(
        resolution=resolution,
        source=_clean(fields.get("source"), _NAME),
        service=_clean(fields.get("service"), _SERVICE),
        argument=_clean(fields.get("argument") or "+", _ARGUMENT),
        target=_clean(fields.get("target") or "@default", _NAME),
    )


def _clean(value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ProtocolError(f"not clean: {str(value)[:80]!r}")
    return value
