"""Which of a machine's apt sources are Debian's: both formats of sources.list(5), read and written.

A template is made of what Debian's archive key signed and nothing else: sources signed by other
keys are left out, and the kept ones name that key whatever they named before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

ARCHIVE_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
_COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<rest>\S.*)")


@dataclass(frozen=True, slots=True)
class Source:
    """A stanza of binary packages: every suite at every address."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""  # file names or a key as text; empty: any key that apt trusts


def parse_list(text: str) -> Iterator[Source]:
    """Sources in one-line format; what is not a whole one is passed over, as comments are."""
    for line in text.splitlines():
        found = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if found is None:
            continue
        options = dict(word.partition("=")[::2] for word in (found["options"] or "").split())
        match found["rest"].split():
            case [uri, suite, *components]:
                signed_by = options.get("signed-by", "")
                yield Source((uri,), (suite,), tuple(components), signed_by)


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources in deb822 format; disabled and incomplete stanzas are passed over."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines)):
        fields = _fields(stanza)
        enabled = fields.get("enabled", "yes").strip().lower() not in ("no", "false", "off", "0")
        uris, suites = fields.get("uris", "").split(), fields.get("suites", "").split()
        if enabled and "deb" in fields.get("types", "").split() and uris and suites:
            components = tuple(fields.get("components", "").split())
            yield Source(tuple(uris), tuple(suites), components, fields.get("signed-by", ""))


def _fields(stanza: str) -> dict[str, str]:
    """Names in lower case and values, continuation lines joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += "\n" + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        if name:
            fields[name] = value.strip()
    return fields


def debian_sources(sources: Iterator[Source], suite: str) -> tuple[Source, ...]:
    """Those that carry a Debian release, cut down to it, its updates and its security fixes."""
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    kept: dict[Source, None] = {}
    for source in sources:
        suites = tuple(name for name in source.suites if name.rstrip("/") in wanted)
        components = tuple(name for name in source.components if name in _COMPONENTS)
        if suites and "main" in components and _signed_by_debian(source.signed_by):
            kept[Source(source.uris, suites, components, ARCHIVE_KEY)] = None
    return tuple(kept)


def _signed_by_debian(signed_by: str) -> bool:
    """Whether nothing but Debian's archive keys is named."""
    names = re.split(r"[\s,]+", signed_by.strip())
    return all(name.rpartition("/")[2].startswith("debian-archive-") for name in names if name)


def render(sources: tuple[Source, ...]) -> str:
    """The sources as the text of a .sources file."""
    return "\n".join(
        "Types: deb\n"
        f"URIs: {' '.join(source.uris)}\n"
        f"Suites: {' '.join(source.suites)}\n"
        f"Components: {' '.join(source.components)}\n"
        f"Signed-By: {source.signed_by}\n"
        for source in sources
    )
