"""All rules together, found by what they are about."""

from collections.abc import Iterable

from insula.protocol.policy.rules import Rule
from insula.protocol.policy.system import UUID_PREFIX
from insula.protocol.policy.tokens import Kind, Token

_MOST_FOUND = 4096  # services and arguments whose rules are remembered


class Policy:
    """Rules in the order in which they are tried."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._of_any = tuple(rule for rule in self.rules if rule.service is None)
        self._services: dict[str, list[Rule]] = {}
        names = {rule.service for rule in self.rules if rule.service is not None}
        for rule in self.rules:
            if rule.service is not None:
                self._services.setdefault(rule.service, []).append(rule)
                continue
            for name in names:
                self._services.setdefault(name, []).append(rule)
        self._found: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._of_source: dict[tuple[str, str, str], tuple[Rule, ...]] = {}

    def about(self, service: str, argument: str) -> tuple[Rule, ...]:
        """The rules about a service called with an argument, in their order."""
        key = (service, argument)
        found = self._found.get(key)
        if found is None:
            ones = self._services.get(service, self._of_any)
            found = tuple(rule for rule in ones if rule.argument in (None, argument))
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[key] = found
        return found

    def about_calls_of(self, service: str, argument: str, source: str) -> tuple[Rule, ...]:
        """Of the rules about a service, those that do not name another source, in their order."""
        key = (service, argument, source)
        found = self._of_source.get(key)
        if found is None:
            ones = self.about(service, argument)
            found = tuple(rule for rule in ones if _may_be_about(rule.source, source))
            if len(self._of_source) >= _MOST_FOUND:
                self._of_source.clear()
            self._of_source[key] = found
        return found


def _may_be_about(token: Token, source: str) -> bool:
    """Whether a rule's source could be a qube of that name; a UUID could be anybody's."""
    if token.kind is not Kind.LITERAL or token.is_admin:
        return True
    return token.value == source or token.value.startswith(UUID_PREFIX)
