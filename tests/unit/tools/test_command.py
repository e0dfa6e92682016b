"""Options, errors and names that all commands share."""

import json
import os
import re
import subprocess
import sys

import pytest

from insula.client.app import App
from insula.tools import log, qvm_check, qvm_features, qvm_ls, qvm_power, qvm_run, qvm_shutdown
from insula.tools.command import Parser, UsageError, parser_of
from insula.tools.command import run as run_command
from insula.tools.names import expand
from tests.unit.tools.conftest import Main, Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError


@pytest.mark.parametrize(
    ("main", "words", "prefix"),
    [
        (qvm_ls.main, [], "Error: "),
        (qvm_power.start, ["work"], "Error: "),
        (qvm_power.kill, ["work"], "Error: "),
        (qvm_shutdown.main, ["work"], "qvm-shutdown: error: "),
        (qvm_features.tags, ["work"], "qvm-tags: error: "),
        (qvm_run.main, ["work", "ls"], "qvm-run: error: "),
    ],
)
def test_without_a_daemon_a_command_says_how_to_start_it(
    run: Run, main: Main, words: list[str], prefix: str
) -> None:
    done = run(main, *words)
    assert (done.code, done.out) == (1, "")
    first, second = done.err.splitlines()
    assert first.startswith(f"{prefix}the daemon does not answer at ")
    assert second == "Start it with: insula up"


@pytest.mark.parametrize(
    "words",
    [[], ["--all", "work"], ["work", "--exclude", "vault"], ["no-such"], ["--no-such-option"]],
)
def test_what_cannot_be_meant_is_a_usage_error(
    daemon: FakeDaemon, run: Run, words: list[str]
) -> None:
    daemon.add(FakeQube("work"))
    done = run(qvm_power.start, *words)
    assert done.code == 2
    assert done.err.startswith("usage: qvm-start ")
    assert "\nqvm-start: error: " in done.err
    assert not daemon.asked("admin.vm.Start")


def test_a_refusal_is_shown_with_its_hint(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("work"))
    refusal = RefusedError("QubesVMError", "work: 100% full\nMake room first.")
    daemon.refusals["admin.vm.tag.List", "work"] = refusal
    done = run(qvm_features.tags, "work")
    assert (done.code, done.err) == (1, "qvm-tags: error: work: 100% full\nMake room first.\n")


def test_no_answer_points_to_the_daemons_log(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("work"))
    daemon.silent.add(("admin.vm.tag.List", "work"))
    done = run(qvm_features.tags, "work")
    assert done.code == 1
    assert "insulad.log" in done.err


def test_help_and_version_are_no_errors(run: Run) -> None:
    assert run(qvm_ls.main, "--help").out.startswith("usage: qvm-ls ")
    done = run(qvm_ls.main, "--version")
    assert done.code == 0
    assert done.out.startswith("qvm-ls (")


def test_long_options_may_be_shortened(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("work", state="Running"))
    assert run(qvm_power.start, "--skip", "work").code == 0


def test_a_reader_that_leaves_early_is_no_traceback(daemon: FakeDaemon) -> None:
    for number in range(300):
        daemon.add(FakeQube(f"qube{number}"))
    listing = [
        sys.executable,
        "-c",
        "from insula.tools.qvm_ls import main; raise SystemExit(main())",
    ]
    with subprocess.Popen(
        listing, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.usefixtures("daemon")
def test_patterns_stand_for_names_and_repeated_names_count_once(daemon: FakeDaemon) -> None:
    for name in ("work", "work-mail", "vault"):
        daemon.add(FakeQube(name))
    known = list(App().domains)
    assert expand(known, ["wor[k]*", "work", "d?m0"]) == ["work", "work-mail", "dom0"]
    assert expand(known, ["none*"]) == []
    with pytest.raises(UsageError, match="no-such"):
        expand(known, ["no-such"])


def test_all_is_all_but_dom0_and_the_excluded(daemon: FakeDaemon, run: Run) -> None:
    for name in ("work", "work-mail", "vault"):
        daemon.add(FakeQube(name))
    assert run(qvm_power.start, "--all", "--exclude", "work*").code == 0
    assert daemon.asked("admin.vm.Start") == [("vault", "", b"")]


def test_check_tells_by_its_exit_code(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("work", state="Running"))
    daemon.add(FakeQube("vault", state="Paused"))
    daemon.add(FakeQube("old", klass="TemplateVM"))
    done = run(qvm_check.main, "work", "vault")
    assert (done.code, done.out, done.err) == (
        0, "", "qvm-check: work: exists\nqvm-check: vault: exists\n",
    )  # fmt: skip
    assert run(qvm_check.main, "--running", "work", "old").code == 3
    assert run(qvm_check.main, "--running", "--paused", "work").code == 1
    assert run(qvm_check.main, "--paused", "vault").code == 0
    assert run(qvm_check.main, "--template", "old").code == 0
    assert run(qvm_check.main, "--networked", "old").code == 1
    assert run(qvm_check.main, "--all").code == 0
    assert run(qvm_check.main, "-q", "--all", "--exclude", "old", "--networked").code == 1
    assert run(qvm_check.main, "--all", "--exclude", "no-such").code == 2
    done = run(qvm_check.main, "-q", "work", "no-such")
    assert (done.code, done.err) == (1, "")
    done = run(qvm_check.main, "no-*")
    assert done.code == 1
    assert "warning: no such qube: 'no-*'" in done.err
    assert run(qvm_check.main).code == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], r"work: not now\n"),
        (["-v", "-q"], r"work: not now\n"),
        (["-q"], ""),
        (["-v"], r"[-0-9]+ [:0-9]+ \[\d+ test_command\.tell:\d+\] work: not now\n"),
    ],
)
def test_levels_of_what_is_said(
    capfd: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    def tell(_arguments: object) -> int:
        log.say("work", "not now")
        return 0

    assert run_command(Parser("qvm-x", "Do."), tell, words) == 0
    assert re.fullmatch(line, capfd.readouterr().err)


def test_calls_are_told_where_everything_is_said(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("work"))
    assert "app: admin.vm.tag.List+ of work, 0 bytes" in run(qvm_features.tags, "-v", "work").err
    assert run(qvm_features.tags, "work").err == ""


def test_warnings_are_bare_where_little_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    for level, lines in ((0, "text\n"), (1, "app: text\n")):
        log.set_level(level)
        log.warn("app", "text")
        assert capfd.readouterr().err == lines


def parser_with_commands() -> Parser:
    parser = Parser("qvm-x", "Do.", default_command="list")
    commands = parser.add_commands(dest="command")
    for name, aliases in (("list", ["ls", "l"]), ("info", [])):
        command = commands.add_parser(name, aliases=aliases, help=f"{name} it")
        command.add_argument("--full", action="store_true")
        command.add_argument("qubes", nargs="*")
    return parser


@pytest.mark.parametrize(
    ("words", "command", "qubes"),
    [
        ([], "list", []), (["ls", "a"], "ls", ["a"]), (["a", "b"], "list", ["a", "b"]),
        (["-v", "--full"], "list", []), (["-vq", "info", "x"], "info", ["x"]),
        (["--verb", "--qui", "info", "x"], "info", ["x"]), (["--fu", "info"], "list", ["info"]),
        (["--", "info"], "list", ["info"]),
    ],
)  # fmt: skip
def test_a_sub_command_can_be_the_default(words: list[str], command: str, qubes: list[str]) -> None:
    found = parser_with_commands().parse(words)
    assert (found.command, found.qubes) == (command, qubes)


@pytest.mark.parametrize(
    ("words", "values", "options"),
    [
        (["a", "--need", "x", "b"], ["a", "b"], "x"),
        (["--need=x", "--", "a", "--need"], ["a", "--need"], "x"),
        (["a", "--ne", "x", "-1", "--", "-q", "--"], ["a", "-1", "-q", "--"], "x"),
        (["--need", "x"], [], "x"),
        (["a"], None, None), (["a", "--need", "x", "--none"], None, None), ([], None, None),
    ],
)  # fmt: skip
def test_options_stand_anywhere_before_two_dashes(
    words: list[str], values: list[str] | None, options: str | None
) -> None:
    parser = Parser("qvm-x", "Do.")
    parser.add_argument("values", nargs="*")
    parser.add_argument("--need", required=True)
    if values is None:
        with pytest.raises(SystemExit):
            parser.parse(words)
        return
    found = parser.parse(words)
    assert (found.values, found.need, found.quiet) == (values, options, 0)
    assert parser.parse(words).need == options


@pytest.mark.parametrize(
    ("words", "verbose", "quiet"),
    [
        (["-v", "list", "--verbose"], 2, 0), (["ls", "-qq", "a"], 0, 2),
        (["list", "--quiet"], 0, 1), (["list", "--force-root", "a"], 0, 0),
        (["list", "a", "--", "-q"], 0, 0),
    ],
)  # fmt: skip
def test_how_much_is_said_may_be_told_after_a_sub_command(
    words: list[str], verbose: int, quiet: int
) -> None:
    found = parser_with_commands().parse(words)
    assert (found.verbose, found.quiet) == (verbose, quiet)


def test_a_word_too_many_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser("qvm-x", "Do.", default_command="list")
    parser.add_commands().add_parser("list", help="list it")
    with pytest.raises(SystemExit):
        parser.parse(["nothing"])
    assert capsys.readouterr().err.endswith("qvm-x: error: unrecognized arguments: nothing\n")


def test_help_ends_in_a_usage_line_for_each_sub_command() -> None:
    lines = parser_with_commands().format_help().splitlines()
    assert [line for line in lines if line.startswith("usage: ")] == [
        "usage: qvm-x [-h] [-v] [-q] [--version] COMMAND ...",
        "usage: qvm-x list [-h] [--full] [qubes ...]",
        "usage: qvm-x info [-h] [--full] [qubes ...]",
    ]


def test_a_plain_parser_has_no_options_but_help() -> None:
    parser = Parser("x", "Do.", plain=True)
    assert "-v" not in parser.format_help()
    assert run_command(parser, lambda arguments: int(arguments.verbose), []) == 0


def test_a_commands_parser_can_be_had_without_running_it() -> None:
    assert parser_of(qvm_ls.main).prog == "qvm-ls"
    with pytest.raises(TypeError, match="does not call run"):
        parser_of(len)


def test_everything_can_be_read_by_programs_where_there_is_json(
    daemon: FakeDaemon, run: Run
) -> None:
    for name in ("work", "vault"):
        daemon.add(FakeQube(name, state="Running" if name == "work" else "Halted"))
    done = run(qvm_check.main, "--json", "--running", "work", "vault", "none")
    assert json.loads(done.out) == {"matching": ["work"], "others": ["vault"], "unknown": ["none"]}
