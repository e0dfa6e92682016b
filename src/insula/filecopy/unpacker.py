"""qfile-unpacker: receive a copy on standard input, reply on standard output (filecopy.md 7)."""

import errno
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from insula.filecopy.confining import (
    confine,
    drop_privileges,
    own_process,
    sync_file_system,
)
from insula.filecopy.receiving import BadTimesError, Receiver, Rules

_INCOMING = "QubesIncoming"
_USAGE = (
    "usage: qfile-unpacker [--allow-all-names|--no-allow-all-names]\n"
    "           [--allow-unsafe-symlinks|--no-allow-unsafe-symlinks] [-v|--verbose]\n"
    "           [-w BYTES|--wait-for-space=BYTES] [UID [DIRECTORY]]"
)
_EXIT_FAILED = 1


class UsageError(Exception):
    """The words are none that the command takes."""


@dataclass(frozen=True, slots=True)
class Options:
    """uid: as whom files are made. directory: into which; None for the caller's own incoming."""

    rules: Rules
    uid: int
    directory: str | None


def parse(words: Sequence[str]) -> Options:
    """Read the words, in the form of today or the older one.

    Raises:
        UsageError: they are neither.
    """
    if len(words) >= 2 and words[0][:1].isdigit():
        return _parse_older(words)
    rules, rest = Rules(), list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if word.startswith("-w") and word != "-w":
            rules = replace(rules, spare=_number(word[2:]))
        elif word in ("-w", "--wait-for-space"):
            if not rest:
                raise UsageError(f"{word} takes a number of bytes")
            rules = replace(rules, spare=_number(rest.pop(0)))
        elif name == "--wait-for-space" and equals:
            rules = replace(rules, spare=_number(value))
        elif word in _FLAGS:
            rules = _FLAGS[word](rules)
        elif word in ("-v", "--verbose"):
            rules = replace(rules, told=_say)
        else:
            raise UsageError(f"unknown option {word}")
    if len(rest) > 2:
        raise UsageError("too many words")
    uid = _number(rest[0]) if rest and rest[0] else os.getuid()
    return Options(rules, uid, rest[1] if len(rest) > 1 else None)


_FLAGS: dict[str, Callable[[Rules], Rules]] = {
    "--allow-all-names": partial(replace, any_names=True),
    "--no-allow-all-names": partial(replace, any_names=False),
    "--allow-unsafe-symlinks": partial(replace, unsafe_links=True),
    "--no-allow-unsafe-symlinks": partial(replace, unsafe_links=False),
}


def _parse_older(words: Sequence[str]) -> Options:
    rules, rest = Rules(), list(words[2:])
    while rest:
        word = rest.pop(0)
        if word == "-v":
            rules = replace(rules, told=_say)
        elif word == "-w":
            spare = _number(rest.pop(0)) if rest and rest[0].isdigit() else 1
            rules = replace(rules, spare=spare)
        else:
            raise UsageError(f"unknown option {word}")
    return Options(rules, _number(words[0]), words[1])


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{text!r} is no number")
    return int(text)


def _say(name: bytes) -> None:
    print(os.fsdecode(name), file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """Receive one copy; exits with the error number of its reply."""
    try:
        options = parse(sys.argv[1:] if words is None else words)
    except UsageError as error:
        print(f"qfile-unpacker: {error}\n{_USAGE}", file=sys.stderr)
        return _EXIT_FAILED
    if os.getuid() not in (0, options.uid):
        print("qfile-unpacker: files of another user can be made by root alone", file=sys.stderr)
        return _EXIT_FAILED
    rules = replace(
        options.rules,
        max_files=_limit("UPDATES_MAX_FILES"),
        max_bytes=_limit("UPDATES_MAX_BYTES"),
    )
    try:
        _become(options.uid)
        top = _open(options)
        return _receive(top, rules)
    except (OSError, KeyError) as error:
        print(f"qfile-unpacker: {error}", file=sys.stderr)
        return _EXIT_FAILED


def _limit(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _become(uid: int) -> None:
    """Have files made as a user; what root may do beyond that is given up once confined."""
    if os.getuid() == uid:
        return
    user = pwd.getpwuid(uid)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(uid, uid, uid)
    own_process()


def _open(options: Options) -> int:
    """The directory into which files go; that of a source is made if it is not there."""
    if options.directory is not None:
        return os.open(options.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    source = os.environ.get("QREXEC_REMOTE_DOMAIN", "")
    if source in ("", ".", "..") or "/" in source:
        raise OSError(errno.EINVAL, f"not a qube's name: {source!r}")
    place = Path(pwd.getpwuid(options.uid).pw_dir, _INCOMING)
    place.mkdir(mode=0o700, exist_ok=True)
    place = place / source
    place.mkdir(mode=0o700, exist_ok=True)
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _receive(top: int, rules: Rules) -> int:
    # By the process's own descriptors a finished file gets its name; there is no /proc inside.
    processes = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        confine(top)
        if os.geteuid():
            drop_privileges()
        top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        # Every name is opened without following links in any case.
        print(f"qfile-unpacker: not confined to its directory: {error}", file=sys.stderr)
    try:
        reply = Receiver(0, top, processes, rules).receive()
    except BadTimesError:
        return _EXIT_FAILED
    if reply.code == 0:
        try:
            sync_file_system(top)
        except OSError as error:
            reply = reply._replace(code=error.errno or errno.EIO)
    if reply.code:
        os.close(0)
    data = reply.encode()
    while data:
        data = data[os.write(1, data) :]
    return reply.code & 0xFF


if __name__ == "__main__":
    sys.exit(main())
