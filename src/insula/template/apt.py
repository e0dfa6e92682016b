"""The machine's own apt configuration, which a template's packages come through."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from insula.protocol.errors import ReportableError
from insula.template.sources import (
    Source,
    debian_sources,
    parse_deb822,
    parse_list,
)

# How to reach an archive; other options of the machine are not a template's business.
_TRANSPORT = ("acquire::http", "acquire::check-", "acquire::force", "acquire::retries")


class NoDebianSourceError(ReportableError):
    """The machine's apt has no Debian archive that a template could be made from."""

    def __init__(self, suite: str) -> None:
        super().__init__(f"apt on this machine has no source for Debian {suite}")
        self.hint = (
            f"Put a line such as 'deb MIRROR {suite} main' into a file below "
            "/etc/apt/sources.list.d, for a mirror that Debian's archive key signs."
        )


def machine_sources(suite: str) -> tuple[Source, ...]:
    """The Debian sources of this machine for a release.

    Raises:
        NoDebianSourceError: it has none.
    """
    found = debian_sources(_all_sources(), suite)
    if not any(suite in source.suites for source in found):
        raise NoDebianSourceError(suite)
    return found


def _all_sources() -> Iterator[Source]:
    """Every source of this machine, in apt's order."""
    keys = ("Dir::Etc::sourcelist/f", "Dir::Etc::sourceparts/d")
    shell = _apt_config("shell", *(word for key in keys for word in (key.partition("/")[0], key)))
    main, parts = (Path(word.partition("=")[2]) for word in shlex.split(shell))
    paths = [main] if main.is_file() else []
    if parts.is_dir():
        paths += sorted(parts.iterdir())
    for path in paths:
        if path.suffix == ".list":
            yield from parse_list(path.read_text(errors="replace"))
        elif path.suffix == ".sources":
            yield from parse_deb822(path.read_text(errors="replace"))


def machine_transport() -> list[str]:
    """Lines of apt.conf that say how this machine reaches archives: proxies, certificates."""
    return transport_lines(_apt_config("dump"))


def transport_lines(dump: str) -> list[str]:
    """Those lines of what `apt-config dump` prints that say how to reach an archive."""
    return [
        line
        for line in dump.splitlines()
        if line.lower().startswith(_TRANSPORT) and not line.endswith(' "";')
    ]


def _apt_config(*arguments: str) -> str:
    return subprocess.run(
        ["apt-config", *arguments], check=True, capture_output=True, text=True
    ).stdout
