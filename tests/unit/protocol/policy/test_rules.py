"""Rules read and written; anything is a rule, a directive or an error of its own."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.policy.errors import PolicyError, PolicySyntaxError
from insula.protocol.policy.evaluation import Request, evaluate
from insula.protocol.policy.loading import Places, load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import Called, Rule, lines_of, parse_line, parse_old_line
from insula.protocol.policy.system import QubeInfo, SystemInfo

SYSTEM = SystemInfo((QubeInfo(name="dom0", klass="AdminVM"), QubeInfo(name="a", klass="AppVM")))
TOKENS = ("a", "*", "@anyvm", "@adminvm", "dom0", "@tag:t", "@type:AppVM", "@dispvm:a")
RULES = st.builds(
    lambda service, argument, source, target, action, further: " ".join(
        (service, argument if service != "*" else "*", source, target, action, *further)
    ),
    st.sampled_from(("*", "a.B", "c-d_e")),
    st.sampled_from(("*", "+", "+x+y")),
    st.sampled_from(TOKENS),
    st.sampled_from((*TOKENS, "@default", "@dispvm", "@dispvm:@tag:t")),
    st.sampled_from(("allow", "ask", "deny")),
    st.lists(
        st.sampled_from(("target=a", "user=u", "notify=yes", "notify=no", "autostart=no")),
        unique_by=lambda word: word.partition("=")[0],
    ),
)


class Memory:
    """Files by their paths."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def names(self, directory: str) -> list[str]:
        inside = f"{directory}/"
        if directory not in ("/etc", "/run", "/legacy"):
            raise FileNotFoundError(2, "No such file or directory")
        return [path.removeprefix(inside) for path in self._files if path.startswith(inside)]

    def text(self, path: str) -> str:
        return self._files[path]


@given(RULES)
def test_a_rule_is_written_as_it_is_read(line: str) -> None:
    try:
        rule = parse_line("f", 1, line)
    except PolicySyntaxError:
        return
    assert isinstance(rule, Rule)
    assert parse_line("f", 1, str(rule)) == rule


@given(st.text(), st.booleans())
def test_any_text_is_read_or_refused(text: str, old: bool) -> None:
    for number, line in lines_of(text):
        with suppress(PolicySyntaxError):
            if old:
                parse_old_line("f", number, line, Called("a", None))
            else:
                parse_line("f", number, line)


@given(st.lists(RULES), st.sampled_from((*TOKENS, "", "@default", "@dispvm", "@x")))
def test_a_verdict_is_always_the_same(lines: list[str], target: str) -> None:
    try:
        rules = load(Memory({"/etc/a.policy": "\n".join(lines)}), Places(("/etc",), "/legacy"))
    except PolicyError:
        return
    request = Request.of("a.B+x", "a", target)
    first, second = (evaluate(Policy(rules), SYSTEM, request) for _ in range(2))
    assert first == second
    linear = [one for one in rules if one.service in (None, "a.B") and one.argument in (None, "+x")]
    assert list(Policy(rules).about("a.B", "+x")) == linear


def test_files_that_include_each_other_are_refused() -> None:
    files = {"/etc/a.policy": "!include b.policy", "/etc/b.policy": "!include a.policy"}
    with pytest.raises(PolicyError) as refused:
        load(Memory(files), Places(("/etc",), "/legacy"))
    assert refused.value.kind == "recursion"


def test_a_missing_directory_is_no_policy() -> None:
    with pytest.raises(PolicyError, match="/nowhere cannot be read"):
        load(Memory({}), Places(("/nowhere",), "/legacy"))
