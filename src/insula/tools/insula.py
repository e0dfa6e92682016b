"""The `insula` command: an instance's start and end, what holds on this host, templates."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from insula.client.local_socket import request
from insula.tools.command import Parser, completed, run

_MIB = 1 << 20
EXIT_TO_DO = 3  # of apply --plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; prints errors with their way out. Returns the exit code."""
    return run(_parser(), lambda arguments: int(arguments.run(arguments)), argv)


def _parser() -> Parser:
    parser = Parser(
        "insula",
        "Run an instance of Insula.",
        examples={
            "insula up": "start the instance, and show windows on this display",
            "insula init": "make the usual qubes",
            "source <(insula completion bash)": "let this shell complete all commands",
            "insula export system.toml": "describe the system in a file",
            "insula apply --plan system.toml": "what would have to change for it to be so again",
        },
        exit_codes={EXIT_TO_DO: "apply --plan: there is something to do"},
    )
    commands = parser.add_commands()

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    add = command("up", "Start the daemon and wait until it answers; harmless when it runs.")
    add.add_argument(
        "--foreground", action="store_true", help="be the daemon, as the systemd unit wants it"
    )
    add.set_defaults(run=_up)
    add = command("down", "Stop all qubes and the daemon.")
    add.add_argument("--kill", action="store_true", help="do not ask the qubes first")
    add.set_defaults(run=_down)
    add = command("status", "Show the engine, its warnings and what is running.")
    add.add_argument("--json", action="store_true", help="as JSON")
    add.set_defaults(run=_status)
    add = command("doctor", "Look at what this host can do, and say how to mend what it lacks.")
    add.add_argument("--json", action="store_true", help="as JSON")
    add.set_defaults(run=_doctor)
    add = command("session", "Show the windows of all qubes on this display until interrupted.")
    add.set_defaults(run=_session)
    add = command(
        "clipboard",
        "Put text from standard input where Ctrl+Shift+V in a qube's window takes it from. It goes"
        " into one qube, as the policy for qubes.ClipboardPaste allows, and is wiped then.",
    )
    add.add_argument("--clear", action="store_true", help="forget what is there instead")
    add.set_defaults(run=_clipboard)
    add = command("menu", "Show a window from which applications of any qube are started.")
    add.add_argument("--stay", action="store_true", help="leave it open after one was started")
    add.set_defaults(run=_menu)
    add = command("unit", "Print a systemd user unit that starts the instance at login.")
    add.add_argument("--install", action="store_true", help="put it in its place instead")
    add.set_defaults(run=_unit)
    add = command("completion", "Print what a shell reads to complete all commands.")
    add.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    add.set_defaults(run=_completion)
    _add_init(command)
    add = command("net", "Show which qube reaches what of the network, and through whom.")
    add.add_argument("--json", action="store_true", help="as JSON")
    add.set_defaults(run=_net)
    _add_descriptions(command)
    _add_policy(command)
    _add_blast(command)
    add = command("template", "Build templates.")
    kinds = add.add_subparsers(required=True, metavar="ACTION")
    build = kinds.add_parser("build", help="build a template and its snapshot")
    build.add_argument("name", help="recipe, for instance debian-12")
    build.add_argument("--no-snapshot", action="store_true", help="leave the snapshot for later")
    build.set_defaults(run=_template_build)
    return parser


def _add_init(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    add = command(
        "init",
        "Make the qubes that a system usually begins with, as far as they are missing: sys-net and"
        " sys-firewall for the network, default-dvm for disposables, personal, work, untrusted and"
        " vault, which has no network; and set default_netvm, default_dispvm, updatevm and clockvm"
        " where nobody has. What is there stays as it is; what was made once and then removed or"
        " changed is left so.",
    )
    text = "make this one alone, even if it was removed before; may be repeated"
    add.add_argument("name", metavar="NAME", nargs="*", help=text)
    text = (
        "also sys-whonix, a gateway into the Tor network, with anon-whonix and disposables of"
        " anon-dvm behind it; they use the same template, which needs Debian's package tor:"
        " debian-12 has it. This is not the Whonix system: it makes connections anonymous, and"
        " does nothing about what programs themselves tell"
    )
    add.add_argument("--whonix", action="store_true", help=text)
    text = "have the template's own updates come through sys-whonix, too (tag whonix-updatevm)"
    add.add_argument("--whonix-updates", action="store_true", help=text)
    text = "template of all that is made; default: that of new qubes"
    completed(add.add_argument("--template", metavar="NAME", help=text), "qubes")
    add.set_defaults(run=_init)


def _add_descriptions(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    add = command("apply", "Bring the system to what a file describes; the plan is shown first.")
    text = "a description, in TOML; - for standard input"
    completed(add.add_argument("file", metavar="FILE", help=text), "files")
    text = f"stop after the plan; exit code {EXIT_TO_DO} when there is something to do"
    add.add_argument("--plan", action="store_true", help=text)
    text = "remove qubes that FILE does not mention, with all their data"
    add.add_argument("--remove", action="store_true", help=text)
    add.add_argument("--json", action="store_true", help="the plan as JSON")
    add.set_defaults(run=_apply)
    add = command("export", "Write a file that describes the system, for apply.")
    text = "default: standard output"
    file = add.add_argument("file", metavar="FILE", nargs="?", default="-", help=text)
    completed(file, "files")
    add.set_defaults(run=_export)


def _add_policy(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    add = command("policy", "Look at a policy, and try it before it is installed.")
    kinds = add.add_subparsers(required=True, metavar="ACTION")
    text = "Say what becomes of a call, by which rule, and what was passed over."
    explain = kinds.add_parser("explain", help=text, description=text)
    explain.add_argument("service", metavar="SERVICE[+ARG]", help="what is called")
    for name, text in (("source", "who calls"), ("target", "what is called for, or a keyword")):
        completed(explain.add_argument(name, metavar=name.upper(), help=text), "qubes")
    for option, text in (
        ("--policy-dir", "where the policy lies, if it is not that of the running system"),
        ("--legacy-dir", "with --policy-dir: where that of the old format lies"),
    ):
        place = explain.add_argument(option, metavar="DIR", type=Path, help=text)
        completed(place, "directories")
    text = "a system to try it on, as in policy cases, instead of the running one"
    completed(explain.add_argument("--system", metavar="FILE", type=Path, help=text), "files")
    explain.add_argument("--all", action="store_true", help="show rules of other services, too")
    explain.add_argument("--json", action="store_true", help="as JSON")
    explain.set_defaults(run=_policy_explain)
    text = "Run tests of policies: calls, and what is to become of them."
    test = kinds.add_parser("test", help=text, description=text)
    text = "systems and cases, in JSON"
    completed(test.add_argument("file", metavar="CASES", type=Path, help=text), "files")
    test.add_argument("--json", action="store_true", help="what became of each call, as JSON")
    test.set_defaults(run=_policy_test)


def _add_blast(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    add = command("blast", "Show what a qube could reach once it was taken over.")
    completed(add.add_argument("qube", metavar="QUBE", nargs="?", help="which qube"), "qubes")
    for option, name, text in (
        ("--from", "source", "with --to: the qube that was taken over"),
        ("--to", "target", "show the shortest chain of rules that leads there"),
    ):
        action = add.add_argument(option, dest=name, metavar="QUBE", help=text)
        completed(action, "qubes")
    text = "where the policy lies, if it is not that of the running system"
    place = add.add_argument("--policy-dir", metavar="DIR", type=Path, help=text)
    completed(place, "directories")
    text = "a system to look at, as in policy cases, instead of the running one"
    completed(add.add_argument("--system", metavar="FILE", type=Path, help=text), "files")
    text = "write a picture there"
    completed(add.add_argument("--svg", metavar="FILE", type=Path, help=text), "files")
    add.add_argument("--json", action="store_true", help="as JSON")
    add.set_defaults(run=_blast)


def _blast(arguments: argparse.Namespace) -> int:
    from insula.tools.policy.blast import run as blast  # noqa: PLC0415

    return blast(arguments)


def _policy_explain(arguments: argparse.Namespace) -> int:
    from insula.tools.policy.explain import run as explain  # noqa: PLC0415

    return explain(arguments)


def _policy_test(arguments: argparse.Namespace) -> int:
    from insula.tools.policy.trying import run as try_it  # noqa: PLC0415

    return try_it(arguments)


def _up(arguments: argparse.Namespace) -> int:
    # Each command loads what it needs alone.
    from insula.tools.up import DidNotStartError, serve, show_windows, up  # noqa: PLC0415

    if arguments.foreground:
        serve()
    if up():
        print("insula is up")
    else:
        print("insula was up already")
    warning = request("status").get("warning")
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    if display := os.environ.get("DISPLAY"):
        try:
            show_windows(display)
        except DidNotStartError as error:
            print(f"warning: {error}", file=sys.stderr)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from insula.tools.up import down  # noqa: PLC0415

    print("insula is down" if down(kill=arguments.kill) else "insula was not up")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    status = request("status")
    if arguments.json:
        print(json.dumps(status, indent=2))
        return 0
    print(f"engine     {status['engine']}")
    if status.get("warning"):
        print(f"warning    {status['warning']}")
    print(f"home       {status['home']}")
    print(f"sockets    {status['run']}")
    print(f"snapshots  {status['snapshots']} made, {status['building']} being made")
    print(f"qubes      {len(status['running'])} running")
    for qube in status["running"]:
        own, shared = (qube[kind] // _MIB for kind in ("private", "shared"))
        print(f"           {qube['name']}: {own} MiB of its own, {shared} MiB shared")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from insula.tools.doctor.report import report  # noqa: PLC0415

    return report(as_json=arguments.json)


def _clipboard(arguments: argparse.Namespace) -> int:
    from insula.client import instance  # noqa: PLC0415
    from insula.desktop.clipboard import Clipboard, amount  # noqa: PLC0415
    from insula.protocol.errors import ReportableError  # noqa: PLC0415
    from insula.protocol.viewing import MAX_RAW  # noqa: PLC0415

    clipboard = Clipboard(instance.run(), lambda _source, _target: False)
    if arguments.clear:
        clipboard.clear()
        return 0
    text = sys.stdin.buffer.read(MAX_RAW + 1)
    if not 0 < len(text) <= MAX_RAW:
        what = "no text" if not text else f"text of more than {amount(MAX_RAW)}"
        raise ReportableError(f"{what} on standard input")
    clipboard.put("dom0", text)
    print(f"{amount(len(text))} to be pasted by Ctrl+Shift+V in a qube's window.")
    return 0


def _menu(arguments: argparse.Namespace) -> int:
    words = ["--stay"] if arguments.stay else []
    os.execv(sys.executable, [sys.executable, "-m", "insula.launcher", *words])


def _session(_arguments: argparse.Namespace) -> int:
    os.execv(sys.executable, [sys.executable, "-m", "insula.desktop.session"])


def _unit(arguments: argparse.Namespace) -> int:
    from insula.tools.unit import install, own_command, unit_text  # noqa: PLC0415

    if not arguments.install:
        print(unit_text(own_command()), end="")
        return 0
    print(f"{install()} is written. Enable it with:")
    print("systemctl --user enable --now insula")
    print("loginctl enable-linger  # to keep qubes when the last session ends")
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    from insula.tools.complete import script  # noqa: PLC0415

    print(script(arguments.shell), end="")
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from insula.tools.init.command import run as init  # noqa: PLC0415

    return init(arguments)


def _net(arguments: argparse.Namespace) -> int:
    from insula.tools.net.command import run as net  # noqa: PLC0415

    return net(arguments)


def _apply(arguments: argparse.Namespace) -> int:
    from insula.tools.apply.command import apply  # noqa: PLC0415

    return apply(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from insula.tools.apply.command import write  # noqa: PLC0415

    return write(arguments)


def _template_build(arguments: argparse.Namespace) -> int:
    words = [sys.executable, "-m", "insula.template", "build", arguments.name]
    if arguments.no_snapshot:
        words.append("--no-snapshot")
    os.execv(sys.executable, words)


if __name__ == "__main__":
    sys.exit(main())
