"""Tokens that stand for qubes: what they may be, what they match, what they expand to.

Source: qrexec-policy.md sections 3 and 6.7.
"""

from dataclasses import dataclass
from enum import Enum

from insula.protocol.policy.system import ADMIN, QubeInfo, SystemInfo, is_admin

DISPOSABLE = "@dispvm"
DISPOSABLE_OF = "@dispvm:"
DEFAULT = "@default"
ADMIN_KEYWORD = "@adminvm"


class Kind(Enum):
    """Forms of tokens."""

    LITERAL = "a qube's name or UUID"
    ALL = "*"
    ANY = "@anyvm"
    ADMIN = ADMIN_KEYWORD
    DEFAULT = DEFAULT
    DISPOSABLE = DISPOSABLE
    DISPOSABLE_OF = "@dispvm:NAME"
    DISPOSABLE_TAGGED = "@dispvm:@tag:TAG"
    TAG = "@tag:TAG"
    TYPE = "@type:CLASS"


_KEYWORDS = {
    kind.value: kind for kind in (Kind.ALL, Kind.ANY, Kind.ADMIN, Kind.DEFAULT, Kind.DISPOSABLE)
}
# The longest first: each begins like the one behind it.
_PREFIXES = (
    ("@dispvm:@tag:", Kind.DISPOSABLE_TAGGED),
    (DISPOSABLE_OF, Kind.DISPOSABLE_OF),
    ("@tag:", Kind.TAG),
    ("@type:", Kind.TYPE),
)
SOURCES = frozenset(Kind) - {Kind.DEFAULT, Kind.DISPOSABLE}
TARGETS = frozenset(Kind)
REDIRECTS = frozenset((Kind.LITERAL, Kind.ADMIN, Kind.DISPOSABLE, Kind.DISPOSABLE_OF))
REQUESTS = REDIRECTS | {Kind.DEFAULT}


class TokenError(ValueError):
    """No token, or none that may stand there."""


@dataclass(frozen=True, slots=True)
class Token:
    """text: as it was written. value: what follows a prefix, or a literal."""

    kind: Kind
    text: str
    value: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether it is the admin domain, in any spelling."""
        return self.kind is Kind.ADMIN or (self.kind is Kind.LITERAL and is_admin(self.value))


def parse_token(text: str, allowed: frozenset[Kind]) -> Token:
    """A token of one of the kinds allowed.

    Raises:
        TokenError: it is none.
    """
    token = _parse(text)
    if token.kind not in allowed:
        raise TokenError(f"{text!r} may not stand here")
    return token


def _parse(text: str) -> Token:
    if not text:
        raise TokenError("a qube has to be named")
    if (kind := _KEYWORDS.get(text)) is not None:
        return Token(kind, text)
    if not text.startswith("@"):
        return Token(Kind.LITERAL, text, text)
    for prefix, kind in _PREFIXES:
        if text.startswith(prefix):
            value = text.removeprefix(prefix)
            if not value or value.startswith("@"):
                raise TokenError(f"{text!r} lacks what follows {prefix}")
            return Token(kind, text, value)
    raise TokenError(f"unknown token {text!r}")


@dataclass(frozen=True, slots=True)
class Requested:
    """A target as a caller asked for it, once it is known what it means. text: its spelling.

    qube: the one that is meant; base: the disposable template of a new disposable. Without either
    it is @default or @dispvm.
    """

    text: str
    qube: QubeInfo | None = None
    base: QubeInfo | None = None

    @property
    def is_admin(self) -> bool:
        return self.qube is not None and self.qube.name == ADMIN


def matches_source(token: Token, source: str, system: SystemInfo) -> bool:
    """Whether a rule's source is a qube."""
    if token.is_admin:
        return source == ADMIN
    found = system.qubes.get(source)
    match token.kind:
        case Kind.ALL:
            matched = True
        case Kind.ANY:
            matched = source != ADMIN
        case Kind.LITERAL:
            matched = token.value == source or (found is not None and _is(token.value, found))
        case Kind.TAG:
            matched = found is not None and token.value in found.tags
        case Kind.TYPE:
            matched = found is not None and token.value == found.klass
        case _:
            matched = False
    return matched


def matches_target(token: Token, requested: Requested, source: str, system: SystemInfo) -> bool:
    """Whether a rule's target is what was asked for."""
    if token.is_admin:
        return requested.is_admin
    qube = requested.qube
    match token.kind:
        case Kind.ALL:
            matched = True
        case Kind.ANY:
            matched = not requested.is_admin
        case Kind.LITERAL:
            matched = qube is not None and _is(token.value, qube)
        case Kind.TAG | Kind.TYPE:
            # Nor is dom0 matched so, where it was not called by its name.
            named = qube is not None and requested.text != ADMIN_KEYWORD
            matched = named and qube is not None and _is_kind(token, qube)
        case Kind.DISPOSABLE_OF | Kind.DISPOSABLE_TAGGED:
            matched = _matches_disposable(token, requested, source, system)
        case _:
            matched = requested.text == token.text
    return matched


def expand(token: Token, system: SystemInfo) -> set[str]:
    """All targets that a token stands for in a list to choose from."""
    qubes = system.qubes
    found: set[str] = set()
    match token.kind:
        case Kind.LITERAL:
            named = system.find(token.value)
            found = set() if named is None else {named.name}
        case Kind.ALL | Kind.ANY:
            found = set(qubes) - ({ADMIN} if token.kind is Kind.ANY else set())
            found |= {DISPOSABLE_OF + name for name in system.bases()} | {DISPOSABLE}
        case Kind.ADMIN | Kind.DISPOSABLE:
            found = {token.text}
        case Kind.TAG | Kind.TYPE:
            found = {name for name, qube in qubes.items() if _is_kind(token, qube)}
        case Kind.DISPOSABLE_OF:
            bases = (qubes[name] for name in system.bases())
            found = {DISPOSABLE_OF + base.name for base in bases if _is(token.value, base)}
        case Kind.DISPOSABLE_TAGGED:
            tagged = (name for name in system.bases() if token.value in qubes[name].tags)
            found = {DISPOSABLE_OF + name for name in tagged}
    return found


def _matches_disposable(
    token: Token, requested: Requested, source: str, system: SystemInfo
) -> bool:
    """Whether a rule about disposables of a kind is about the one that was asked for."""
    base = requested.base
    if requested.text == DISPOSABLE:
        name = system.default_base(source)
        if token.kind is Kind.DISPOSABLE_OF:
            return name is not None and token.value == name
        base = None if name is None else system.qubes.get(name)
    if base is None:
        return False
    if token.kind is Kind.DISPOSABLE_OF:
        return _is(token.value, base)
    return base.template_for_dispvms and token.value in base.tags


def _is(literal: str, qube: QubeInfo) -> bool:
    return literal in (qube.name, f"uuid:{qube.uuid}")


def _is_kind(token: Token, qube: QubeInfo) -> bool:
    return token.value == qube.klass if token.kind is Kind.TYPE else token.value in qube.tags
