"""What `list`, `info` and `search` of qvm-template show (qvm-tools.md section 9.1)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from insula.tools.command import print_json
from insula.tools.sizes import human_size
from insula.tools.table import print_table
from insula.tools.templates.installed import TIME, Installed
from insula.tools.templates.records import Package
from insula.tools.templates.versions import Version

_HEADINGS = {
    "installed": "Installed Templates",
    "available": "Available Templates",
    "extra": "Extra Templates",
    "upgradable": "Available Upgrades",
}


class Entry(NamedTuple):
    """A template under one of the four headings. Everything is text; description with lines."""

    status: str
    name: str
    version: Version
    repository: str
    size: str
    buildtime: str
    installtime: str
    license: str
    url: str
    summary: str
    description: str


def of_package(package: Package, status: str) -> Entry:
    """A template in a repository."""
    return Entry(
        status, package.name, package.version, package.repository, str(package.size),
        package.built.strftime(TIME), "", package.license, package.url, package.summary,
        package.description,
    )  # fmt: skip


def of_installed(one: Installed, status: str = "installed") -> Entry:
    """A template of this system. Its size is what its root volume takes."""
    fields = one.fields
    size = str(one.qube.volumes["root"].usage) if "root" in one.qube.volumes else "0"
    return Entry(
        status, one.qube.name, one.named.version, fields["reponame"], size, fields["buildtime"],
        fields["installtime"], fields["license"], fields["url"], fields["summary"],
        fields["description"].replace("|", "\n"),
    )  # fmt: skip


def entries(
    installed: Sequence[Installed],
    available: Sequence[Package],
    known: Sequence[Installed],
    groups: Iterable[str],
) -> list[Entry]:
    """The entries of the groups asked for; known: all installed ones, whatever is asked for."""
    versions = {one.qube.name: one.named.version for one in known}
    offered = {package.name for package in available}
    found = {
        "installed": [of_installed(one) for one in installed],
        "available": [of_package(one, "available") for one in available],
        "extra": [of_installed(one, "extra") for one in installed if one.qube.name not in offered],
        "upgradable": [
            of_package(one, "upgradable")
            for one in available
            if one.name in versions and one.version > versions[one.name]
        ],
    }
    return [entry for group in groups for entry in found[group]]


def newest(packages: Iterable[Package]) -> list[Package]:
    """The newest version of each, by name."""
    found: dict[str, Package] = {}
    for package in sorted(packages, key=lambda one: (one.name, one.version)):
        found[package.name] = package
    return list(found.values())


def show_list(shown: Sequence[Entry]) -> None:
    """Names and versions, under headings."""
    widths = [max(map(len, column)) for column in zip(*map(_row, shown), strict=True)]
    for status, heading in _HEADINGS.items():
        rows = [_row(entry) for entry in shown if entry.status == status]
        if rows:
            print(heading)
            # Columns are as wide in all groups.
            print_table([(*map(str.ljust, row[:2], widths), row[2]) for row in rows])


def _row(entry: Entry) -> list[str]:
    return [entry.name, str(entry.version), entry.repository]


def show_info(shown: Sequence[Entry]) -> None:
    """All that is known of each, under headings."""
    for status, heading in _HEADINGS.items():
        rows = [row for entry in shown if entry.status == status for row in _info_rows(entry)]
        if rows:
            print(heading)
            print_table(rows)


def _info_rows(entry: Entry) -> list[tuple[str, str, str]]:
    pairs = [
        ("Name", entry.name),
        ("Epoch", entry.version.epoch),
        ("Version", entry.version.version),
        ("Release", entry.version.release),
        ("Size", human_size(int(entry.size))),
        ("Repository", entry.repository),
        ("Buildtime", entry.buildtime),
    ]
    if entry.installtime:
        pairs.append(("Install time", entry.installtime))
    pairs += [("URL", entry.url), ("License", entry.license), ("Summary", entry.summary)]
    first, *others = entry.description.split("\n")
    pairs.append(("Description", first))
    pairs += [("", line) for line in others]
    return [*((key, ":", value) for key, value in pairs), ("", "", "")]


def show_raw(shown: Sequence[Entry], *, everything: bool) -> None:
    """A line for each, for programs."""
    for entry in shown:
        if everything:
            version = entry.version
            fields = [
                entry.status, entry.name, version.epoch, version.version, version.release,
                entry.repository, entry.size, entry.buildtime, entry.installtime, entry.license,
                entry.url, entry.summary, entry.description.replace("\n", "|"),
            ]  # fmt: skip
        else:
            fields = [entry.status, *_row(entry)]
        print("|".join(fields))


def show_json(shown: Sequence[Entry], *, everything: bool) -> None:
    """An object of lists, by status."""
    found: dict[str, list[dict[str, str]]] = {}
    for entry in shown:
        version = entry.version
        told = {"name": entry.name, "evr": str(version), "reponame": entry.repository}
        if everything:
            told = {
                "name": entry.name,
                "epoch": version.epoch,
                "version": version.version,
                "release": version.release,
                "reponame": entry.repository,
                "size": entry.size,
                "buildtime": entry.buildtime,
                "installtime": entry.installtime,
                "license": entry.license,
                "url": entry.url,
                "summary": entry.summary,
                "description": entry.description,
            }
        found.setdefault(entry.status, []).append(told)
    print_json(found)


# By field: what it counts, so that a match in the name is worth more than all others together.
_WEIGHTS = {"Name": 8, "Summary": 4, "Description": 2, "URL": 1}
_EXACT = 16


def search(packages: Sequence[Package], patterns: Sequence[str], *, everywhere: bool) -> bool:
    """Show the packages that patterns are found in, best first; False when there is none."""
    groups: dict[tuple[int, str], list[Package]] = {}
    for package in packages:
        texts = {"Name": package.name, "Summary": package.summary}
        if everywhere:
            texts |= {"Description": package.description, "URL": package.url}
        hits = {
            pattern: {field for field, text in texts.items() if pattern.lower() in text.lower()}
            for pattern in patterns
        }
        enough = any if everywhere else all
        if not enough(hits.values()):
            continue
        fields = [field for field in texts if any(field in found for found in hits.values())]
        exact = package.name in patterns
        weight = sum(_WEIGHTS[field] for field in fields) + (_EXACT if exact else 0)
        verb = "Exactly Matched" if exact else "Matched"
        heading = f"=== {' & '.join(fields)} {verb}: {', '.join(patterns)} ==="
        groups.setdefault((-weight, heading), []).append(package)
    for (_, heading), found in sorted(groups.items()):
        print(heading)
        for package in sorted(found, key=lambda one: one.name):
            print(f"{package.name} : {package.summary}")
    return bool(groups)
