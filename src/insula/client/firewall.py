"""A qube's firewall rules as objects."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from insula.client.errors import QubesDaemonCommunicationError, QubesValueError
from insula.protocol.errors import ProtocolError
from insula.protocol.firewall import Rule, parse_rule, parse_rules

if TYPE_CHECKING:
    from insula.client.qube import Qube


class Firewall:
    """The rules of one qube."""

    def __init__(self, qube: "Qube") -> None:
        self._qube = qube

    @property
    def rules(self) -> list[Rule]:
        """The rules that hold now; what none of them is about is dropped.

        They are set as a whole, as rules or as their text: `action=accept dsthost=example.org`.

        Raises:
            QubesValueError: a text is not a rule.
            QubesDaemonAccessError: the qube has none, as dom0.
        """
        content = self._qube.call("admin.vm.firewall.Get").decode("ascii")
        try:
            return parse_rules(content)
        except ProtocolError as error:
            raise QubesDaemonCommunicationError(f"firewall of {self._qube}: {error}") from None

    @rules.setter
    def rules(self, rules: Iterable[Rule | str]) -> None:
        try:
            parsed = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
        except ProtocolError as error:
            raise QubesValueError(str(error)) from None
        text = "".join(f"{rule}\n" for rule in parsed)
        self._qube.call("admin.vm.firewall.Set", payload=text.encode("ascii"))

    def reload(self) -> None:
        """Have the rules enforced anew."""
        self._qube.call("admin.vm.firewall.Reload")
