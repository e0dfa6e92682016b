"""Lines of a policy file: rules and directives (qrexec-policy.md sections 2, 4, 5 and 9)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from insula.protocol.policy.errors import PolicySyntaxError
from insula.protocol.policy.tokens import (
    REDIRECTS,
    SOURCES,
    TARGETS,
    Kind,
    Token,
    TokenError,
    parse_token,
)

ALLOW, DENY, ASK = "allow", "deny", "ask"
_SERVICE = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_ARGUMENT = re.compile(r"\+[A-Za-z0-9+._-]*", re.ASCII)
_BOOLEANS = {"yes": True, "no": False}
_PARAMETERS = {
    ALLOW: ("target", "user", "notify", "autostart"),
    ASK: ("target", "default_target", "user", "notify", "autostart"),
    DENY: ("notify",),
}
_FIELDS, _OLD_FIELDS = 5, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. service, argument: None is any; line: None where no line says it.

    redirect: the target= of the rule. user: None is the target's default.
    """

    file: str
    line: int | None
    service: str | None
    argument: str | None
    source: Token
    target: Token
    action: str
    redirect: Token | None = None
    default_target: Token | None = None
    user: str | None = None
    notify: bool = False
    autostart: bool = True

    @property
    def is_implicit(self) -> bool:
        """Whether it follows a legacy file, and no line says it."""
        return self.line is None

    def __str__(self) -> str:
        """The rule as it is written."""
        words = [
            self.service or "*",
            "*" if self.argument is None else self.argument,
            self.source.text,
            self.target.text,
            self.action,
        ]
        if self.redirect is not None:
            words.append(f"target={self.redirect.text}")
        if self.default_target is not None:
            words.append(f"default_target={self.default_target.text}")
        if self.user is not None:
            words.append(f"user={self.user}")
        if self.notify != (self.action == DENY):
            words.append(f"notify={'yes' if self.notify else 'no'}")
        if not self.autostart:
            words.append("autostart=no")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Directive:
    """A line that has others read in its place: its first word, and those behind it."""

    line: int
    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Called:
    """What the rules of an old-syntax file are about; None is any."""

    service: str | None
    argument: str | None


def lines_of(text: str) -> list[tuple[int, str]]:
    """Lines that say something, with their numbers; white space around them is gone."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    stripped = ((number, line.strip()) for number, line in enumerate(unified.split("\n"), 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def parse_line(file: str, number: int, line: str) -> Rule | Directive:
    """A line in the new syntax.

    Raises:
        PolicySyntaxError: it is none.
    """
    words = line.split()
    if line.startswith("!"):
        return Directive(number, words[0], tuple(words[1:]))
    if len(words) < _FIELDS:
        text = f"a rule has service, argument, source, target and action: {len(words)} fields"
        raise PolicySyntaxError(file, number, text)
    called = parse_called(file, number, words[0], words[1])
    return _rule(file, number, called, words[2:])


def parse_old_line(file: str, number: int, line: str, called: Called) -> Rule | Directive:
    """A line in the old syntax, in a file about one service.

    Raises:
        PolicySyntaxError: it is none.
    """
    line = line.replace("$include:", "!include ").replace("$", "@").replace(",", " ")
    words = line.split()
    if line.startswith("!"):
        return Directive(number, words[0], tuple(words[1:]))
    if len(words) < _OLD_FIELDS:
        text = f"a rule has source, target and action: {len(words)} fields"
        raise PolicySyntaxError(file, number, text)
    return _rule(file, number, called, words)


def parse_called(file: str, number: int, service: str, argument: str) -> Called:
    """Service and argument of a rule.

    Raises:
        PolicySyntaxError: they are none.
    """
    if service != "*" and _SERVICE.fullmatch(service) is None:
        raise PolicySyntaxError(file, number, f"not a service: {service!r}")
    if argument != "*" and _ARGUMENT.fullmatch(argument) is None:
        raise PolicySyntaxError(file, number, f"not an argument: {argument!r}; it begins with +")
    if service == "*" and argument != "*":
        raise PolicySyntaxError(file, number, "with service * the argument is * as well")
    return Called(None if service == "*" else service, None if argument == "*" else argument)


def _rule(file: str, number: int, called: Called, words: list[str]) -> Rule:
    """From source, target, action and parameters."""
    source, target, action, *rest = words
    try:
        source_token = parse_token(source, SOURCES)
        target_token = parse_token(target, TARGETS)
        parameters = _parameters(action, rest)
        redirect = _token(parameters, "target")
        default_target = _token(parameters, "default_target")
    except (TokenError, ValueError) as error:
        raise PolicySyntaxError(file, number, str(error)) from None
    if action == ALLOW and target_token.kind is Kind.DEFAULT and redirect is None:
        raise PolicySyntaxError(file, number, "allow to @default needs target=")
    return Rule(
        file=file,
        line=number,
        service=called.service,
        argument=called.argument,
        source=source_token,
        target=target_token,
        action=action,
        redirect=redirect,
        default_target=default_target,
        user=parameters.get("user"),
        notify=_BOOLEANS[parameters.get("notify", "yes" if action == DENY else "no")],
        autostart=_BOOLEANS[parameters.get("autostart", "yes")],
    )


def _parameters(action: str, words: list[str]) -> dict[str, str]:
    known = _PARAMETERS.get(action)
    if known is None:
        raise ValueError(f"not an action: {action!r}; it is allow, deny or ask")
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"not a parameter: {word!r}")
        if name in found:
            raise ValueError(f"{name}= is given twice")
        if name not in known:
            raise ValueError(f"{action} has no {name}=")
        if name in ("notify", "autostart") and value not in _BOOLEANS:
            raise ValueError(f"{name}= is yes or no, not {value!r}")
        found[name] = value
    return found


def _token(parameters: Mapping[str, str], name: str) -> Token | None:
    return parse_token(parameters[name], REDIRECTS) if name in parameters else None


ParseLine = Callable[[str, int, str], Rule | Directive]
