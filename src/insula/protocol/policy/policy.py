"""All rules together, found by what they are about."""

from collections.abc import Iterable

from insula.protocol.policy.rules import Rule

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
