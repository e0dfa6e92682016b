"""Firewall rules in a few words."""

import time
from collections.abc import Sequence

from insula.protocol.firewall import Rule

ANYTHING, NOTHING = "anything", "nothing"
_MOST = 4  # rules that are told one by one
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def in_short(rules: Sequence[Rule], now: float) -> str:
    """What rules let through: the first that matches decides, and the rest is dropped."""
    said: list[tuple[str, str]] = []
    for rule in rules:
        if rule.expired(now):
            continue
        what = _what(rule)
        if what == ANYTHING and rule.expire is None:
            return _joined(said, rule.action)
        said.append((rule.action, what + _until(rule)))
    return _joined(said, "drop")


def _joined(said: list[tuple[str, str]], rest: str) -> str:
    """rest: the action of all that none of these is about."""
    while said and said[-1][0] == rest and "until" not in said[-1][1]:
        said = said[:-1]  # What follows says the same.
    words = [what if action == "accept" else f"not {what}" for action, what in said]
    if len(words) > _MOST:
        words = [*words[: _MOST - 1], f"{len(words) - _MOST + 1} rules more"]
    if not words:
        return ANYTHING if rest == "accept" else NOTHING
    return ", ".join(words) + (", else anything" if rest == "accept" else "")


def _what(rule: Rule) -> str:
    host = "" if rule.host is None or rule.host[1] in _EVERYWHERE else rule.host[1]
    words = [host.removesuffix("/32").removesuffix("/128")]
    if rule.specialtarget is not None:
        words.append(rule.specialtarget.upper())
    if rule.proto is not None:
        words.append(rule.proto)
    if rule.ports is not None:
        first, last = rule.ports
        words.append(str(first) if first == last else f"{first}-{last}")
    if rule.icmptype is not None:
        words.append(f"type {rule.icmptype}")
    return " ".join(filter(None, words)) or ANYTHING


def _until(rule: Rule) -> str:
    if rule.expire is None:
        return ""
    try:
        return time.strftime(" until %Y-%m-%d %H:%M", time.localtime(rule.expire))
    except (OverflowError, ValueError, OSError):
        return " until the end of time"
