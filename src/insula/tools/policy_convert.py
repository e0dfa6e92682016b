"""qrexec-legacy-convert: the old format's files as files of the present one (section 11)."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from insula.client.policy_reading import places_of, read_system
from insula.protocol.errors import ReportableError
from insula.protocol.policy.loading import SUFFIX, Places, load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import Rule
from insula.protocol.policy.system import SystemInfo
from insula.qrexec.policy_store import PolicyReader
from insula.tools.command import Parser, run
from insula.tools.policy.legacy import REPLACED, by_file, text_form, to_convert
from insula.tools.policy_graph import full_graph

_HEADER = "# Converted from files of the old format, by qrexec-legacy-convert.\n"
_BACKUP, _DONE = ".bak", ".rpmsave"
_LEFT_OUT = (_DONE, ".rpmnew", ".swp")
_NO = ("n", "N")


def main(argv: Sequence[str] | None = None) -> int:
    """qrexec-legacy-convert."""
    parser = Parser(
        "qrexec-legacy-convert",
        "Turn policy files of the old format into files of the present one.",
        examples={"qrexec-legacy-convert": "convert all"},
        notes=(
            "What was there is kept: old files as NAME.rpmsave, changed ones as NAME.policy.bak.",
            "If the policy means something else afterwards, you are asked whether to go back.",
        ),
    )
    return run(parser, _run, argv)


def _run(_arguments: argparse.Namespace) -> int:
    system, _ = read_system(None)
    places = places_of(None)
    before, rules = _graph(places, system)
    legacy = [rule for rule in rules if _is_legacy(rule, places)]
    present = [rule for rule in rules if not _is_legacy(rule, places)]
    changes = Changes()
    try:
        for service_rules in by_file_of_all(legacy, present).items():
            changes.extend(Path(places.directories[-1]), *service_rules)
        for path in _legacy_files(Path(places.legacy)):
            changes.set_aside(path)
        after, _ = _graph(places, system)
    except BaseException:
        changes.undo()
        raise
    if after == before:
        print(f"{len(changes.written)} files written, {len(changes.renamed)} set aside.")
        return 0
    print("The policy means something else now.", "Before:", before, "Now:", after, sep="\n")
    print("Go back to how it was? [Y/n] ", end="", flush=True)
    if sys.stdin.readline().strip() in _NO:
        return 0
    changes.undo()
    print("It is as it was.")
    return 1


def by_file_of_all(legacy: Sequence[Rule], present: Sequence[Rule]) -> dict[str, list[Rule]]:
    """By name of a file, all rules that go there."""
    converted = to_convert(legacy, present)
    return by_file(rule for rules in converted.values() for rule in rules)


class Changes:
    """What was done to files, and how to undo it."""

    def __init__(self) -> None:
        self.written: dict[Path, bytes | None] = {}
        self.renamed: dict[Path, Path] = {}
        self._copies: list[Path] = []

    def extend(self, directory: Path, name: str, rules: Sequence[Rule]) -> None:
        """Put rules before what a file has; what it had stays beside it."""
        path = directory / f"{name}{SUFFIX}"
        old = path.read_bytes() if path.exists() else None
        if old is not None:
            copy = _free(path, _BACKUP)
            self._copies.append(copy)
            copy.write_bytes(old)
        kept = b"" if old is None or name == REPLACED else old
        text = _HEADER + "".join(f"{text_form(rule)}\n" for rule in rules)
        self.written[path] = old
        _write(path, text.encode() + kept)

    def set_aside(self, path: Path) -> None:
        """Rename a file so that it is read no more."""
        aside = _free(path, _DONE)
        path.rename(aside)
        self.renamed[path] = aside

    def undo(self) -> None:
        """Make all as it was."""
        for path, aside in self.renamed.items():
            aside.rename(path)
        for path, old in self.written.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                _write(path, old)
        for copy in self._copies:
            copy.unlink(missing_ok=True)


def _graph(places: Places, system: SystemInfo) -> tuple[str, Sequence[Rule]]:
    policy = Policy(load(PolicyReader(), places))
    return full_graph(policy, system), policy.rules


def _is_legacy(rule: Rule, places: Places) -> bool:
    return Path(places.legacy) in Path(rule.file).parents


def _legacy_files(directory: Path) -> list[Path]:
    try:
        return sorted(
            path
            for path in directory.iterdir()
            if path.is_file() and not path.name.startswith(".") and path.suffix not in _LEFT_OUT
        )
    except OSError as error:
        raise ReportableError(f"{directory} cannot be read: {error.strerror}") from None


def _free(path: Path, suffix: str) -> Path:
    """The path with a suffix, repeated until there is nothing of that name."""
    while path.exists():
        path = path.with_name(path.name + suffix)
    return path


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)  # noqa: PTH105


if __name__ == "__main__":
    sys.exit(main())
