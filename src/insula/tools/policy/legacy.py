"""Which file of the present format takes which old rule (qrexec-policy.md section 11)."""

from collections.abc import Callable, Iterable, Sequence

from insula.protocol.policy.rules import ALLOW, ASK, DENY, Rule
from insula.protocol.policy.tokens import Kind, Token

OTHERS = "30-user"
REPLACED = "50-config-input"  # written anew, not extended
_INPUT = ("qubes.InputKeyboard", "qubes.InputMouse", "qubes.InputTablet")
_REGISTER, _AUTHENTICATE = "policy.RegisterArgument", "+u2f.Authenticate"
_UPDATED = ("@type:TemplateVM", "@tag:whonix-updatevm")
_DISPOSABLES = (Kind.DISPOSABLE, Kind.DISPOSABLE_OF)
_NAMED = (Kind.LITERAL, Kind.ADMIN)


def text_form(rule: Rule) -> str:
    """A rule as it is written and compared: fields by tabs, all that the rule says."""
    called, argument, source, target, *action = str(rule).split(" ")
    return "\t".join((called, argument, source, target, " ".join(action)))


def to_convert(legacy: Iterable[Rule], present: Iterable[Rule]) -> dict[str, list[Rule]]:
    """By service, the rules of the old format that say something, in order.

    Left out are those that the present format has already, and what follows a rule that denies
    all calls.
    """
    known = {text_form(rule) for rule in present}
    found: dict[str, list[Rule]] = {}
    ended: set[str] = set()
    for rule in legacy:
        service = rule.service or "*"
        if service in ended or rule.is_implicit:
            continue
        if _denies_all(rule):
            ended.add(service)
        elif text_form(rule) not in known:
            found.setdefault(service, []).append(rule)
    return found


def by_file(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    """By name of a file without its suffix, the rules that go there."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        name, is_simple = _FILES.get(rule.service or "*", (OTHERS, _never))
        if not is_simple(rule, found.get(name, ())):
            name = OTHERS
        found.setdefault(name, []).append(rule)
    return found


def _denies_all(rule: Rule) -> bool:
    return (
        rule.action == DENY
        and rule.argument is None
        and rule.source.kind is Kind.ANY
        and rule.target.kind is Kind.ANY
    )


def _plain(*actions: str) -> "_Simple":
    def simple(rule: Rule, _before: Sequence[Rule]) -> bool:
        return rule.action in actions and str(rule).endswith(f" {rule.action}")

    return simple


def _never(_rule: Rule, _before: Sequence[Rule]) -> bool:
    return False


def _updates(rule: Rule, _before: Sequence[Rule]) -> bool:
    source, target = rule.source, rule.target
    return (
        rule.action == ALLOW
        and (source.kind is Kind.LITERAL or source.text in _UPDATED)
        and target.kind in (*_NAMED, Kind.DEFAULT)
    )


def _opening(rule: Rule, _before: Sequence[Rule]) -> bool:
    redirects = _redirects(rule)
    return rule.target.kind is Kind.DISPOSABLE and all(
        token.kind in _DISPOSABLES for token in redirects
    )


def _input(rule: Rule, before: Sequence[Rule]) -> bool:
    first = all(
        (rule.service, rule.source.text) != (other.service, other.source.text) for other in before
    )
    leads = (rule.target, *_redirects(rule))
    return first and rule.source.kind is Kind.LITERAL and all(token.is_admin for token in leads)


def _keys(rule: Rule, _before: Sequence[Rule]) -> bool:
    if rule.service == _REGISTER:
        return rule.argument == _AUTHENTICATE
    return rule.argument is None and rule.target.kind in _NAMED


def _redirects(rule: Rule) -> tuple[Token, ...]:
    return tuple(token for token in (rule.redirect, rule.default_target) if token is not None)


_Simple = Callable[[Rule, Sequence[Rule]], bool]
_FILES: dict[str, tuple[str, _Simple]] = {
    "qubes.ClipboardPaste": ("50-config-clipboard", _plain(ASK, DENY)),
    "qubes.Filecopy": ("50-config-filecopy", _plain(ASK, DENY, ALLOW)),
    "qubes.UpdatesProxy": ("50-config-updates", _updates),
    "qubes.OpenInVM": ("50-config-openinvm", _opening),
    "qubes.OpenURL": ("50-config-openurl", _opening),
    **dict.fromkeys(_INPUT, (REPLACED, _input)),
    **dict.fromkeys(("u2f.Authenticate", "u2f.Register", _REGISTER), ("50-config-u2f", _keys)),
}
