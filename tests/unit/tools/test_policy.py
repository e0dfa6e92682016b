"""insula policy explain and test, qubes-policy-lint and qrexec-policy-graph."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from insula.tools import policy_graph, policy_lint
from insula.tools.insula import main as insula
from tests.unit.tools.conftest import Done, Run

CASES = Path("tests/unit/protocol/policy/policy-cases.json")
POLICY = (
    "acme.Other * * @anyvm allow\n"
    "acme.Ping * work vault deny\n"
    "acme.Ping * work @anyvm allow target=vault user=me notify=yes\n"
    "acme.Ask * work @anyvm ask default_target=vault\n"
)


class Explain:
    """The command on a policy and a system of the test's."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run, self.folder = run, folder
        self.file = folder / "policy.d" / "30-user.policy"
        self.file.parent.mkdir()
        self.file.write_text(POLICY)
        system = json.loads(CASES.read_text())["systems"]["home"]
        (folder / "system.json").write_text(json.dumps(system))

    def __call__(self, *words: str) -> Done:
        places = ["--policy-dir", str(self.file.parent), "--legacy-dir", str(self.folder / "old")]
        system = ["--system", str(self.folder / "system.json")]
        return self._run(insula, "policy", "explain", *places, *system, *words)


@pytest.fixture
def explain(run: Run, tmp_path: Path) -> Explain:
    return Explain(run, tmp_path)


def test_a_decision_is_told_with_its_rule_and_what_was_passed_over(explain: Explain) -> None:
    done = explain("acme.Ping+x", "work", "mail")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "allow: it goes to vault as me",
        f"by {explain.file}:3: acme.Ping * work @anyvm allow target=vault user=me notify=yes",
        "passed over:",
        f"  {explain.file}:2: acme.Ping * work vault deny (another target)",
        "and 1 rules about other services (--all shows them)",
        f"beware: {explain.file}:3 sends the call to vault, which {explain.file}:2 denies: "
        "a redirect is not looked at again",
    ]
    everything = explain("--all", "acme.Ping", "work", "mail").out
    assert "acme.Other * * @anyvm allow (another service)" in everything


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["acme.Ping", "work", "vault"], 0, "deny: the rule says so"),
        (["acme.None", "work", "vault"], 0, "deny: no rule is about it"),
        (["acme.Ping", "work", "@tag:x"], 1, "error: the target is no qube and no keyword"),
        (["acme.Ask", "work", "@default"], 0, "ask: offered are @dispvm:plain-dvm, "),
    ],
)
def test_each_outcome_is_told(explain: Explain, words: list[str], code: int, line: str) -> None:
    done = explain(*words)
    assert (done.code, done.out.startswith(line)) == (code, True)
    assert (words[0] == "acme.Ask") == done.out.splitlines()[0].endswith("; vault first")


def test_programs_can_read_it(explain: Explain) -> None:
    found = json.loads(explain("--json", "acme.Ping", "work", "mail").out)
    assert {name: found[name] for name in ("outcome", "target", "user", "notify", "autostart")} == {
        "outcome": "allow", "target": "vault", "user": "me", "notify": True, "autostart": True,
    }  # fmt: skip
    assert found["rule"] == {"file": str(explain.file), "line": 3}
    assert [(one["line"], one["why"]) for one in found["skipped"]] == [
        (1, "another service"), (2, "another target"),
    ]  # fmt: skip
    assert (found["targets"], found["default_target"], found["error"]) == ([], None, None)
    asked = json.loads(explain("--json", "acme.Ask", "work", "@default").out)
    assert (asked["outcome"], asked["default_target"]) == ("ask", "vault")
    assert "mail" in asked["targets"]
    refused = json.loads(explain("--json", "acme.None", "work", "mail").out)
    assert (refused["outcome"], refused["rule"], refused["user"]) == ("deny", None, None)


def test_a_policy_that_cannot_be_read_refuses_everything(explain: Explain) -> None:
    explain.file.write_text(POLICY + "bad line\n")
    done = explain("acme.Ping", "work", "mail")
    assert (done.code, done.out.splitlines()) == (
        1, ["error: everything is refused, for the policy cannot be read"],
    )  # fmt: skip
    assert f"{explain.file}:5: " in done.err
    found = json.loads(explain("--json", "acme.Ping", "work", "mail").out)
    assert (found["outcome"], found["rule"]) == ("error", {"file": str(explain.file), "line": 5})
    assert "2 fields" in found["error"]
    explain.file.write_text("!compat-4.0\n")
    assert explain("acme.Ping", "work", "mail").code == 1


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"a": 1}', '{"a": {}}', '"a"'])
def test_a_system_that_is_none_is_named(explain: Explain, content: str | None) -> None:
    path = explain.folder / "system.json"
    path.unlink() if content is None else path.write_text(content)
    done = explain("acme.Ping", "work", "mail")
    assert (done.code, done.out) == (1, "")
    assert str(path) in done.err


def test_a_system_can_be_one_that_the_daemon_told(explain: Explain) -> None:
    path = explain.folder / "system.json"
    qubes: dict[str, Any] = json.loads(path.read_text())
    domains = {name: {**fields, "type": fields["class"]} for name, fields in qubes.items()}
    path.write_text(json.dumps({"domains": domains}))
    assert explain("acme.Ping", "work", "mail").out.startswith("allow: it goes to vault")


def test_all_cases_end_as_expected(run: Run) -> None:
    done = run(insula, "policy", "test", str(CASES))
    assert (done.code, done.out) == (0, "144 cases, 0 failed\n")


def cases(tmp_path: Path, **change: object) -> str:
    loaded = json.loads(CASES.read_text())
    case = loaded["cases"][0] | change
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"systems": loaded["systems"], "cases": [case]}))
    return str(path)


def test_what_ends_otherwise_is_shown(run: Run, tmp_path: Path) -> None:
    expected = {"outcome": "deny", "reason": "rule"}
    path = cases(tmp_path, note="my note", expected=expected)
    done = run(insula, "policy", "test", path)
    assert done.code == 1
    assert done.out.splitlines() == [
        "order-01: my note",
        "  outcome: expected 'deny', is 'allow'",
        "  reason: expected 'rule', is None",
        "1 cases, 1 failed",
    ]
    done = run(insula, "policy", "test", "--json", path)
    assert (done.code, json.loads(done.out)) == (
        1, [{"id": "order-01", "actual": {"outcome": "allow"}}],
    )  # fmt: skip
    (whole,) = json.loads(run(insula, "policy", "test", "--json", cases(tmp_path, expected={})).out)
    assert whole["actual"]["rule"] == {"file": "etc/30-user.policy", "line": 1}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", "etc/../../x"])
def test_cases_stay_in_their_folder(run: Run, tmp_path: Path, name: str) -> None:
    done = run(insula, "policy", "test", cases(tmp_path, files={name: "x"}))
    assert (done.code, "outside of its folder" in done.err) == (1, True)


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"systems": {}, "cases": [{}]}'])
def test_what_is_no_list_of_cases(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "cases").write_text(content)
    done = run(insula, "policy", "test", str(tmp_path / "cases"))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("insula: error: ")


BAD = {
    "a b": "2 fields",
    "a * work vault permit": "not an action",
    "a x work vault allow": "not an argument",
    "!include": "takes 1 words, not 0",
    "!include /etc/x": "neither in",
    "!include a/b": "neither in",
    "!include include/../x": "neither in",
    "!include-dir a b": "takes 1 words, not 2",
    "!include-service a * /x": "neither in",
    "!include-service a x y": "not an argument",
    "!compat-4.0 x": "takes 0 words",
    "!other": "unknown: !other",
    "a * $anyvm vault allow": "$anyvm is a keyword of the old syntax",
}
GOOD = (
    "# a comment\n\na * work vault allow\n!include x\n!include include/x\n!include-dir /any/where\n"
    "!include-service a * include/x\n!compat-4.0\n"
)


@pytest.mark.parametrize("line", BAD)
def test_lines_that_cannot_be_read_are_shown(run: Run, tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.policy"
    path.write_text(GOOD + line + "\n")
    done = run(policy_lint.main, str(path))
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith(f"{path}:9: error: ")
    assert BAD[line] in done.out
    assert run(policy_lint.main, "-s", str(path)).out == f"{done.out.rstrip()}: {line}\n"


def test_files_without_errors_are_silence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text(GOOD)
    (tmp_path / "old").write_text("$anyvm $anyvm ask,default_target=vault\n$include:x\n")
    done = run(policy_lint.main, str(tmp_path / "a"), str(tmp_path / "a"))
    assert (done.code, done.out) == (0, "")
    assert run(policy_lint.main, "--include-service", str(tmp_path / "old")).code == 0
    assert run(policy_lint.main, str(tmp_path / "old")).code == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("bad\n"))
    assert run(policy_lint.main, "-").out.startswith("-:1: error: ")


def test_the_first_file_with_errors_is_the_last_that_is_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("x\ny\n")
    done = run(policy_lint.main, str(tmp_path / "bad"), str(tmp_path / "none"))
    assert (done.code, len(done.out.splitlines())) == (1, 2)
    done = run(policy_lint.main, str(tmp_path / "none"), str(tmp_path / "bad"))
    assert (done.code, done.out) == (
        1, f"{tmp_path}/none:0: error: File does not exist.\n",
    )  # fmt: skip
    (tmp_path / "binary").write_bytes(b"\xff")
    assert run(policy_lint.main, str(tmp_path / "binary")).out.startswith(f"{tmp_path}/binary:0: ")
    words = ["-i", str(tmp_path / "old")]
    (tmp_path / "old").write_text("!include-dir x\na b\n")
    assert len(run(policy_lint.main, *words).out.splitlines()) == 2


SYSTEM = {
    "dom0": {"class": "AdminVM", "uuid": "", "guivm": None},
    "work": {"class": "AppVM", "uuid": "1", "default_dispvm": "dvm"},
    "vault": {"class": "AppVM", "uuid": "2"},
    "dvm": {"class": "AppVM", "uuid": "3", "template_for_dispvms": True},
}
RULES = (
    "b.Ping +x work vault allow user=me\n"
    "b.Ping * work vault allow\n"
    "b.Ping * vault @default allow target=work\n"
    "a.Ask * work vault ask default_target=vault\n"
    "a.Disp * work @dispvm allow\n"
    "* * work vault deny\n"
    "* * work dvm allow\n"
)


class Graph:
    """The edges that the command draws, and what it draws around them."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run, self.folder = run, folder
        (folder / "p").mkdir()
        (folder / "p" / "30-user.policy").write_text(RULES)
        (folder / "system.json").write_text(json.dumps(SYSTEM))

    def __call__(self, *words: str) -> list[str]:
        options = ["--policy-dir", str(self.folder / "p")]
        system = ["--system-info", str(self.folder / "system.json")]
        done = self._run(policy_graph.main, *options, *system, *words)
        assert (done.code, done.err) == (0, "")
        first, *edges, last = done.out.splitlines()
        assert (first, last) == ("digraph g {", "}")
        return edges


@pytest.fixture
def graph(run: Run, tmp_path: Path) -> Graph:
    return Graph(run, tmp_path)


def test_who_may_call_whom_is_drawn(graph: Graph) -> None:
    assert graph("--source", "work", "vault", "--service", "a.Disp", "b.Ping") == [
        '  "work" -> "dvm" [label="a.Disp" color=red];',
        '  "work" -> "@dispvm" [label="a.Disp" color=red];',
        '  "work" -> "vault" [label="b.Ping" color=red];',
        '  "work" -> "dvm" [label="b.Ping" color=red];',
        '  "vault" -> "work" [label="b.Ping" color=red];',
    ]


def test_a_rule_for_all_services_is_one_of_its_own(graph: Graph) -> None:
    assert graph("--service", "None") == ['  "work" -> "dvm" [label="None" color=red];']


def test_what_is_asked_for_is_drawn_on_request(graph: Graph) -> None:
    words = ["--service", "a.Ask", "--target", "vault"]
    assert graph(*words) == []
    assert graph(*words, "--include-ask") == ['  "work" -> "vault" [label="a.Ask" color=orange];']
    label = "a.Ask ask default_target=vault"
    assert graph(*words, "--full-output") == [
        f'  "work" -> "vault" [label="{label}" color=orange];'
    ]


def test_labels_can_be_whole_or_left_out(graph: Graph) -> None:
    assert graph("--service", "b.Ping+x", "--full-output", "--target", "vault", "@default") == [
        '  "work" -> "vault" [label="b.Ping+x allow user=me" color=red];',
        '  "vault" -> "work" [label="b.Ping allow target=work" color=red];',
    ]
    assert graph("--skip-labels", "--target", "vault", "dvm") == [
        '  "work" -> "dvm" [color=red];',
        '  "work" -> "vault" [color=red];',
    ]


def test_the_graph_can_go_to_a_file(graph: Graph, run: Run) -> None:
    options = ["--policy-dir", str(graph.folder / "p")]
    options += ["--system-info", str(graph.folder / "system.json")]
    done = run(policy_graph.main, *options, "--output", str(graph.folder / "out"))
    assert (done.code, done.out) == (0, "")
    assert (graph.folder / "out").read_text().startswith("digraph g {\n")
    assert run(policy_graph.main, *options, "--output", str(graph.folder)).code == 1
    (graph.folder / "p" / "30-user.policy").write_text('a * work vault allow user=a"b\\\n')
    (edge,) = graph("--full-output")
    assert edge == '  "work" -> "vault" [label="a allow user=a\\"b\\\\" color=red];'
    (graph.folder / "p" / "30-user.policy").write_text("bad\n")
    assert run(policy_graph.main, *options).code == 1
