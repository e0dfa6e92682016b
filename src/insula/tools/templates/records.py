"""What the update qube answers to qubes.TemplateSearch: untrusted, so looked at by the character.

Source of the format: qvm-tools.md section 9.1.
"""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from insula.protocol.errors import ProtocolError
from insula.tools.templates.versions import Named, Version

PREFIX = "qubes-template-"
MAX_ANSWER = 64 << 20  # bytes
_END = "|\n"
_FIELDS = 11
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)
_EPOCH = re.compile(r"[0-9]{1,10}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9._+~^]{1,128}", re.ASCII)
_REPOSITORY = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9_.:+-]*", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,19}", re.ASCII)
_LICENSE = re.compile(r"[A-Za-z0-9 ._+():,/-]*", re.ASCII)
_URL = re.compile(r"[!-{}~]*", re.ASCII)  # printable, no space and no |
_LINE = re.compile(r"[ -{}~]*", re.ASCII)
_TEXT = re.compile(r"[ -{}~\t\n]*", re.ASCII)
_MINUTE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,11}", re.ASCII)


class Package(NamedTuple):
    """A template in a repository."""

    name: str
    version: Version
    repository: str
    size: int
    built: datetime
    license: str
    url: str
    summary: str
    description: str

    @property
    def named(self) -> Named:
        """Its name and version."""
        return Named(self.name, self.version)

    @property
    def file_name(self) -> str:
        """What its file is called."""
        return f"{PREFIX}{self.name}-{self.version}.rpm"


def parse_answer(untrusted: bytes) -> list[Package]:
    """The packages of an answer.

    Raises:
        ProtocolError: a record, or a character in it, is not as it should be.
    """
    try:
        text = untrusted.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the list of templates is not ASCII") from None
    *records, rest = text.split(_END)
    if rest.strip():
        raise ProtocolError(f"the list of templates ends within a record: {rest[:80]!r}")
    return [_package(record) for record in records]


def _package(untrusted: str) -> Package:
    fields = untrusted.split("|")
    if len(fields) != _FIELDS:
        raise ProtocolError(f"a record has {_FIELDS} fields, this has {len(fields)}")
    name, epoch, version, release, repository, size, built, license_, url, summary, text = fields
    return Package(
        name=_checked("name", name.removeprefix(PREFIX), _NAME),
        version=Version(
            _checked("epoch", epoch, _EPOCH),
            _checked("version", version, _VERSION),
            _checked("release", release, _VERSION),
        ),
        repository=_checked("repository", repository, _REPOSITORY),
        size=int(_checked("size", size, _SIZE)),
        built=_time(built),
        license=_checked("license", license_, _LICENSE),
        url=_checked("url", url, _URL),
        summary=_checked("summary", summary, _LINE),
        description=_checked("description", text, _TEXT),
    )


def _checked(what: str, untrusted: str, allowed: re.Pattern[str]) -> str:
    if not allowed.fullmatch(untrusted):
        raise ProtocolError(f"not a template's {what}: {untrusted[:80]!r}")
    return untrusted


def _time(untrusted: str) -> datetime:
    """A time as a date with minutes, or as seconds."""
    try:
        if _SECONDS.fullmatch(untrusted):
            return datetime.fromtimestamp(int(untrusted), UTC)
        return datetime.strptime(
            _checked("buildtime", untrusted, _MINUTE), "%Y-%m-%d %H:%M"
        ).replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ProtocolError(f"not a template's buildtime: {untrusted[:80]!r}") from None
