"""Repositories of templates, as files on this host describe them, and what an update qube is told.

The formats: qvm-tools.md section 9.1.
"""

import base64
import configparser
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from insula.protocol.errors import ReportableError

KEYS = "/etc/qubes/repo-templates/keys/"
_FILE = "file://"
_BEGIN, _END = "###!Q!BEGIN-QUBES-WRAPPER!Q!###", "###!Q!END-QUBES-WRAPPER!Q!###"
_FALSE = ("0", "no", "false", "off")
Choice = tuple[str, str]  # --enablerepo, --disablerepo or --repoid, and its ID


class Repository(NamedTuple):
    """A repository. keys: the files that packages of it are signed with one of."""

    id: str
    name: str
    enabled: bool
    keys: tuple[Path, ...]


def read_files(patterns: Sequence[str]) -> str:
    """The text of all repository files.

    Raises:
        ReportableError: one cannot be read.
    """
    texts = []
    for pattern in patterns:
        for name in sorted(glob.glob(pattern)):  # noqa: PTH207 - patterns may be absolute
            try:
                text = Path(name).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ReportableError(f"{name} cannot be read: {error}") from None
            texts.append(text if text.endswith("\n") else text + "\n")
    return "".join(texts)


def parse(text: str, releasever: str, choices: Sequence[Choice]) -> list[Repository]:
    """The repositories of a text, switched on and off as chosen.

    Raises:
        ReportableError: it is no repository file.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ReportableError(f"the repository files cannot be read: {error}") from None
    found = []
    for section in parser.sections():
        values = {
            key: value.replace("$releasever", releasever) for key, value in parser.items(section)
        }
        keys = [word for word in values.get("gpgkey", "").split() if word.startswith(_FILE)]
        found.append(
            Repository(
                id=section,
                name=values.get("name", section),
                enabled=_chosen(section, values.get("enabled", "1"), choices),
                keys=tuple(Path(word.removeprefix(_FILE)) for word in keys),
            )
        )
    return found


def _chosen(name: str, enabled: str, choices: Sequence[Choice]) -> bool:
    """Whether a repository is used: the last choice that names it decides."""
    on = enabled.strip().lower() not in _FALSE
    if any(option == "--repoid" for option, _ in choices):
        on = False
    for option, given in choices:
        if given in (name, "*"):
            on = option != "--disablerepo"
    return on


def request(
    text: str,
    package: str,
    *,
    releasever: str,
    refresh: bool,
    choices: Sequence[Choice],
) -> bytes:
    """What goes to qubes.TemplateSearch and qubes.TemplateDownload.

    Raises:
        ReportableError: a value cannot be part of it.
    """
    lines = [f"{option}={given}" for option, given in choices]
    if refresh:
        lines.append("--refresh")
    lines += [f"--releasever={releasever}", package]
    for line in lines:
        if not line.isprintable() or line == "---":
            raise ReportableError(f"not for a list of templates: {line!r}")
    wrapped = "".join(_wrapped(_key_files(text, releasever)))
    return ("\n".join([*lines, "---\n"]) + text + wrapped).encode()


def _key_files(text: str, releasever: str) -> list[Path]:
    keys = (key for repository in parse(text, releasever, ()) for key in repository.keys)
    return [key for key in dict.fromkeys(keys) if str(key).startswith(KEYS) and key.is_file()]


def _wrapped(keys: Sequence[Path]) -> Iterator[str]:
    if keys:
        yield f"{_BEGIN}\n"
        for key in keys:
            yield f"#{key}\n#{base64.b64encode(key.read_bytes()).decode()}\n"
        yield f"{_END}\n"
