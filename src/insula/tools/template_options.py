"""The command line of qvm-template (qvm-tools.md section 9.1)."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from insula.tools.command import Parser, completed

RELEASE = "4.3"  # the release of Qubes whose templates are looked for
DEFAULT_FILES = "/etc/qubes/repo-templates/*.repo"
KEYRING = "/etc/qubes/repo-templates/keys/RPM-GPG-KEY-qubes-{}-primary"
_RETRIES = 5
_NOTES = (
    "Global options may stand before or after the command. A SPEC is a glob on NAME, NAME-VERSION, "
    "NAME-VERSION-RELEASE or NAME-EPOCH:VERSION[-RELEASE]; one that ends in .rpm is a file of this "
    "host.",
    "The update qube is not trusted: what it lists is looked at by the character, and a package is "
    "only opened once rpmkeys has found it signed with the key of its repository. The programs "
    "rpm, rpmkeys, rpm2cpio and cpio are needed for that. Packages are used as they are signed; "
    "they are not rewritten before.",
    "Only one qvm-template of an instance changes something at a time; its lock lies beside the "
    "instance's sockets. To build a template on this host instead, see insula template.",
)


def build_parser() -> Parser:
    """The parser, which gathers what may be repeated in lists of its own."""
    choices: list[tuple[str, str]] = []
    files: list[str] = []
    parser = Parser(
        "qvm-template",
        "Find, install and remove templates of packages.",
        notes=_NOTES,
        examples={
            "qvm-template list --available": "what there is",
            "qvm-template install fedora-42-minimal": "download and install one",
            "qvm-template upgrade 'fedora-*'": "install newer versions, after asking",
            "qvm-template remove --disassoc fedora-40": "remove one that is still in use",
        },
        exit_codes={
            1: "a failure, or a question answered with no",
            2: "a usage error, an unknown template or one that no package looks after, or nothing "
            "to list",
        },
    )
    _add_global(parser, choices, files, own=True)
    commands = parser.add_commands(dest="command")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        _add_global(added, choices, files, own=False)
        return added

    for name, text in (
        ("install", "Install the newest version; what is installed is passed over."),
        ("reinstall", "Install the same version again, over what was changed."),
        ("downgrade", "Install the next lower version."),
        ("upgrade", "Install the newest version, where it is a higher one."),
    ):
        add = command(name, text)
        if name == "install":
            completed(
                add.add_argument("--pool", metavar="POOL", help="pool of new templates"), "pools"
            )
        add.add_argument("--allow-pv", action="store_true", help="let it ask for mode pv")
        add.add_argument("--skip-start", action="store_true", help="no first start")
        _add_download(add)
        _add_specs(add, "+")
    add = command("download", "Download packages, and do not install them.")
    _add_download(add)
    _add_specs(add, "+")
    for name, text in (("list", "List templates."), ("info", "Show all that is known of them.")):
        _add_listing(command(name, text))
    add = command("search", "Look for words in names and summaries; all have to be found.")
    add.add_argument("--all", action="store_true", help="in descriptions and URLs, too; any word")
    add.add_argument("patterns", metavar="PATTERN", nargs="+", help="a word")
    add = command("remove", "Remove templates.")
    add.add_argument(
        "--disassoc", action="store_true", help="give their qubes a dummy as template first"
    )
    _add_names(add)
    _add_names(command("purge", "Remove templates and every qube that is made from them."))
    command("clean", "Empty the cache directory.")
    add = command("repolist", "List repositories.")
    which = add.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="all of them")
    which.add_argument("--enabled", action="store_true", help="those in use (the default)")
    which.add_argument("--disabled", action="store_true", help="the others")
    add.add_argument("repositories", metavar="REPO", nargs="*", help="only these, by id or name")
    command("migrate-from-rpmdb", "Take over templates that rpm installed; for root alone.")
    return parser


def _add_global(
    parser: argparse.ArgumentParser,
    choices: list[tuple[str, str]],
    files: list[str],
    *,
    own: bool,
) -> None:
    """Options that every command has; own: of the whole, which alone sets what they are without."""
    group = parser.add_argument_group("global options")

    def add(*options: str, default: object = None, **further: Any) -> argparse.Action:
        return group.add_argument(
            *options, default=default if own else argparse.SUPPRESS, **further
        )

    group.add_argument(
        "--repo-files", metavar="GLOB", action=_Gather, into=files, default=files,
        help=f"files of repositories; may be repeated (default {DEFAULT_FILES})",
    )  # fmt: skip
    keyring = add(
        "--keyring", metavar="FILE", type=Path,
        help="key of packages whose repository names none",
    )  # fmt: skip
    completed(keyring, "files")
    updatevm = add("--updatevm", metavar="QUBE", help="who downloads; empty: this host")
    completed(updatevm, "qubes")
    for option, text in (
        ("--enablerepo", "use this repository, too"),
        ("--disablerepo", "do not use this repository"),
        ("--repoid", "use this repository alone"),
    ):
        group.add_argument(
            option, metavar="ID", action=_Choose, into=choices, dest="choices", default=choices,
            help=f"{text}; may be repeated",
        )  # fmt: skip
    add("--releasever", metavar="VER", default=RELEASE, help=f"release (default {RELEASE})")
    add("--refresh", action="store_true", default=False, help="ask for new lists first")
    cachedir = add(
        "--cachedir", metavar="DIR", type=Path, default=_cachedir(),
        help="where packages are kept (default $XDG_CACHE_HOME/qvm-template)",
    )  # fmt: skip
    completed(cachedir, "directories")
    add("--keep-cache", action="store_true", default=False, help="keep packages")
    add("--yes", action="store_true", default=False, help="do not ask")


def _cachedir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "qvm-template")


def _add_download(parser: argparse.ArgumentParser) -> None:
    directory = parser.add_argument(
        "--downloaddir", metavar="DIR", type=Path, default=Path(), help="where to (default: here)"
    )
    completed(directory, "directories")
    parser.add_argument(
        "--retries", metavar="N", type=int, default=_RETRIES, help=f"tries (default {_RETRIES})"
    )
    parser.add_argument(
        "--nogpgcheck", action="store_true",
        help="trust files of this host unsigned; changes nothing for what is downloaded",
    )  # fmt: skip


def _add_specs(parser: argparse.ArgumentParser, nargs: str) -> None:
    parser.add_argument("specs", metavar="SPEC", nargs=nargs, help="which templates")


def _add_names(parser: argparse.ArgumentParser) -> None:
    names = parser.add_argument("names", metavar="NAME", nargs="+", help="name of a template")
    completed(names, "templates")


def _add_listing(parser: argparse.ArgumentParser) -> None:
    for option, text in (
        ("--all", "what is installed and what is available (the default)"),
        ("--installed", "what is installed"),
        ("--available", "what is available"),
        ("--extras", "what is installed and in no repository"),
        ("--upgrades", "newer versions of what is installed"),
        ("--all-versions", "all versions, not the newest alone"),
    ):
        parser.add_argument(option, action="store_true", help=text)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--machine-readable", action="store_true", help="fields joined by |")
    form.add_argument("--machine-readable-json", action="store_true", help="as JSON")
    _add_specs(parser, "*")


class _Gather(argparse.Action):
    """Adds a value to a list that the parsers of all commands share."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, into: list[Any], **further: Any
    ):
        super().__init__(option_strings, dest, **further)
        self._into = into

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        _option: str | None = None,
    ) -> None:
        self._into.append(self._value(values))
        setattr(namespace, self.dest, self._into)

    def _value(self, given: object) -> object:
        return given


class _Choose(_Gather):
    """Adds the option with its value, in their order."""

    def _value(self, given: object) -> object:
        return self.option_strings[0], given
