"""qvm-firewall: what a qube may reach."""

import argparse
import time
from collections.abc import Sequence

from insula.client.app import App, Qube
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.firewall import Rule, parse_rule, parse_rules
from insula.tools import names
from insula.tools.command import Parser, UsageError, add_json, completed, print_json, run
from insula.tools.table import print_table

_HEADING = (
    "NO", "ACTION", "HOST", "PROTOCOL", "PORT(S)", "SPECIAL TARGET", "ICMP TYPE", "EXPIRE",
    "COMMENT",
)  # fmt: skip
_KEYS = (
    "action", "dsthost", "dst4", "dst6", "proto", "dstports", "icmptype", "specialtarget",
    "expire", "comment",
)  # fmt: skip
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_MISSING = "-"
_ACCEPT = Rule(action="accept")


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-firewall."""
    parser = Parser(
        "qvm-firewall",
        "Show and change what a qube may reach. The first rule that matches decides; where none "
        "does, nothing is let through.",
        examples={
            "qvm-firewall work": "show the rules, with their numbers",
            "qvm-firewall work add accept dsthost=example.org proto=tcp dstports=443": "let it "
            "reach one host more",
            "qvm-firewall work add --before 0 drop 10.0.0.0/8": "but nothing there",
            "qvm-firewall work add accept expire=+300": "everything, for five minutes",
            "qvm-firewall work del --rule-no 0": "take the first rule away",
        },
        notes=(
            "The words of a RULE are, in this order, action (accept or drop), dsthost, proto "
            "(tcp, udp, icmp), and dstports (N or N-M) or icmptype, or else KEY=VALUE with one of "
            f"the keys {', '.join(_KEYS)}. expire=+N means in N seconds.",
            "--raw and --reload stand before the action.",
        ),
    )
    names.add_one(parser)
    parser.add_argument("--raw", action="store_true", help="rules as they are kept")
    parser.add_argument("-r", "--reload", action="store_true", help="have them applied again")
    add_json(parser)
    actions = parser.add_commands(metavar="ACTION", required=False)
    listing = actions.add_parser("list", help="show the rules (the default)")
    listing.set_defaults(work=_list)
    add = actions.add_parser("add", help="add a rule, as the last one")
    add.add_argument("--before", metavar="N", type=int, help="before the rule with this number")
    _add_rule(add, "+")
    add.set_defaults(work=_add)
    delete = actions.add_parser("del", help="take a rule away")
    delete.add_argument("--rule-no", metavar="N", type=int, help="the one with this number")
    _add_rule(delete, "*")
    delete.set_defaults(work=_delete)
    reset = actions.add_parser("reset", help="leave one rule, which accepts everything")
    reset.set_defaults(work=lambda qube, _arguments: _keep(qube, [_ACCEPT]))
    parser.set_defaults(work=_list)
    return run(parser, _run, argv, prefix="Error: ")


def _add_rule(parser: argparse.ArgumentParser, nargs: str) -> None:
    rule = parser.add_argument("rule", metavar="RULE", nargs=nargs, help="words of a rule")
    words = ("accept", "drop", *(f"{key}=" for key in _KEYS))
    completed(rule, lambda _before: words)


def _run(arguments: argparse.Namespace) -> int:
    arguments.work(names.find_one(App(), arguments), arguments)
    return 0


def _rules(qube: Qube) -> list[Rule]:
    try:
        return parse_rules(qube.call("admin.vm.firewall.Get").decode())
    except ProtocolError as error:
        raise ReportableError(f"the daemon's rules cannot be read: {error}") from None


def _keep(qube: Qube, rules: Sequence[Rule]) -> None:
    payload = "".join(f"{_raw(rule)}\n" for rule in rules)
    qube.call("admin.vm.firewall.Set", payload=payload.encode())


def _list(qube: Qube, arguments: argparse.Namespace) -> None:
    rules = _rules(qube)
    if arguments.json:
        print_json([dict(_items(rule)) for rule in rules])
    elif arguments.raw:
        for rule in rules:
            print(_raw(rule))
    elif rules:
        print_table([_HEADING, *(_row(number, rule) for number, rule in enumerate(rules))])
    if arguments.reload:
        qube.call("admin.vm.firewall.Reload")


def _add(qube: Qube, arguments: argparse.Namespace) -> None:
    rule, rules = read_rule(arguments.rule), _rules(qube)
    at = len(rules) if arguments.before is None else arguments.before
    if not 0 <= at <= len(rules):
        raise UsageError(f"there is no rule {at}")
    _keep(qube, [*rules[:at], rule, *rules[at:]])


def _delete(qube: Qube, arguments: argparse.Namespace) -> None:
    if (arguments.rule_no is None) == (not arguments.rule):
        raise UsageError("give a rule or its number")
    rules = _rules(qube)
    if arguments.rule_no is None:
        rule = read_rule(arguments.rule)
        if rule not in rules:
            raise ReportableError(f"{qube} has no such rule: {_raw(rule)}")
        rules.remove(rule)
    elif 0 <= arguments.rule_no < len(rules):
        del rules[arguments.rule_no]
    else:
        raise UsageError(f"there is no rule {arguments.rule_no}")
    _keep(qube, rules)


def read_rule(words: Sequence[str]) -> Rule:
    """The rule that words on a command line stand for.

    Raises:
        UsageError: they are none.
    """
    fields: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            key, value = _next_key(fields), word
        if key not in _KEYS:
            raise UsageError(f"there is no {key!r} in a rule")
        key = "dsthost" if key in ("dst4", "dst6") else key
        if key in fields:
            raise UsageError(f"{key} is given twice")
        fields[key] = value
    if fields.get("dsthost") in _EVERYWHERE:
        del fields["dsthost"]
    if fields.get("expire", "").startswith("+"):
        fields["expire"] = str(_in_seconds(fields["expire"][1:]))
    fields |= {"comment": fields.pop("comment")} if "comment" in fields else {}  # It comes last.
    try:
        return parse_rule(" ".join("=".join(item) for item in fields.items()))
    except ProtocolError as error:
        raise UsageError(f"not a rule: {error}") from None


def _next_key(fields: dict[str, str]) -> str:
    """What a word without a key is for."""
    last = "icmptype" if fields.get("proto") == "icmp" else "dstports"
    found = next((key for key in ("action", "dsthost", "proto", last) if key not in fields), None)
    if found is None:
        raise UsageError("too many words for a rule")
    return found


def _in_seconds(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"not a number of seconds: {text!r}")
    return int(time.time()) + int(text)


def _items(rule: Rule) -> list[tuple[str, str]]:
    """Keys and values in the order in which clients have them."""
    found = [("action", rule.action)]
    if rule.proto is not None:
        found.append(("proto", rule.proto))
    if rule.host is not None:
        found.append(rule.host)
    if rule.ports is not None:
        found.append(("dstports", "{}-{}".format(*rule.ports)))
    for key in ("icmptype", "specialtarget", "expire", "comment"):
        value = getattr(rule, key)
        if value is not None:
            found.append((key, str(value)))
    return found


def _raw(rule: Rule) -> str:
    return " ".join("=".join(item) for item in _items(rule))


def _row(number: int, rule: Rule) -> tuple[str, ...]:
    first, last = rule.ports or (None, None)
    ports = str(first) if first == last else f"{first}-{last}"
    left = None if rule.expire is None else f"{rule.expire - int(time.time()):+}s"
    cells = (
        rule.action,
        rule.host and rule.host[1],
        rule.proto,
        ports if rule.ports is not None else None,
        rule.specialtarget,
        None if rule.icmptype is None else str(rule.icmptype),
        left,
        rule.comment,
    )
    return (str(number), *(cell or _MISSING for cell in cells))
