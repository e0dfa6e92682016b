"""Policies: any text is rules, or an error of theirs; any call on them has a verdict."""

from contextlib import suppress

from insula.protocol.policy.answer import answer_lines, queried
from insula.protocol.policy.errors import PolicyError, PolicySyntaxError
from insula.protocol.policy.evaluation import Request, evaluate
from insula.protocol.policy.explaining import explain
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import Called, Rule, lines_of, parse_line, parse_old_line
from insula.protocol.policy.system import QubeInfo, SystemInfo

_SYSTEM = SystemInfo(
    (
        QubeInfo(name="dom0", klass="AdminVM"),
        QubeInfo(name="a", klass="AppVM", guivm="dom0", default_dispvm="b"),
        QubeInfo(name="b", klass="AppVM", guivm="dom0", template_for_dispvms=True),
    )
)


def fuzz(data: bytes) -> None:
    """One input: a target, then a file in both syntaxes."""
    target, _, text = data.decode("utf-8", "replace").partition("\n")
    rules = []
    for number, line in lines_of(text):
        with suppress(PolicySyntaxError):
            parsed = parse_line("f", number, line)
            if isinstance(parsed, Rule):
                assert parse_line("f", number, str(parsed)) == parsed
                rules.append(parsed)
        with suppress(PolicyError):
            parse_old_line("f", number, line, Called("s", None))
    policy = Policy(rules)
    for source in ("a", "dom0"):
        request = Request.of("s+x", source, target)
        verdict = evaluate(policy, _SYSTEM, request)
        assert verdict.outcome in ("allow", "deny", "ask", "error")
        assert answer_lines(verdict, _SYSTEM, request)
        queried(verdict, assume_yes=True)
        assert explain(policy, _SYSTEM, request).verdict == verdict
