"""Templates that were installed from packages, which their features tell (qvm-tools.md 9.1)."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from insula.client.app import App, Qube
from insula.tools.templates.records import Package
from insula.tools.templates.versions import Named, Version

TIME = "%Y-%m-%d %H:%M:%S"
_PREFIX = "template-"
_FIELDS = (
    "name", "epoch", "version", "release", "reponame", "buildtime", "installtime", "license",
    "url", "summary", "description",
)  # fmt: skip


class Installed(NamedTuple):
    """A template of this system and what it was installed from. fields: all of them, as text."""

    qube: Qube
    fields: dict[str, str]

    @property
    def named(self) -> Named:
        """Its name and version."""
        epoch, version, release = (self.fields[one] for one in ("epoch", "version", "release"))
        return Named(self.qube.name, Version(epoch if epoch.isdecimal() else "0", version, release))


def is_managed(qube: Qube) -> bool:
    """Whether a qube is one that packages look after."""
    return qube.features.get(f"{_PREFIX}name") == qube.name


def managed(app: App) -> list[Installed]:
    """All of them."""
    return [
        Installed(qube, {field: qube.features.get(_PREFIX + field, "") for field in _FIELDS})
        for qube in app.domains
        if qube.klass == "TemplateVM" and is_managed(qube)
    ]


def matching(known: Iterable[Installed], specs: Iterable[str]) -> list[Installed]:
    """Those that a spec stands for; all of them without one."""
    wanted = list(specs)
    return [one for one in known if not wanted or any(map(one.named.matches, wanted))]


def mark(qube: Qube, package: Package) -> None:
    """Tell by features what a template was installed from."""
    fields = {
        "name": package.name,
        "epoch": package.version.epoch,
        "version": package.version.version,
        "release": package.version.release,
        "reponame": package.repository,
        "buildtime": package.built.strftime(TIME),
        "installtime": datetime.now(UTC).strftime(TIME),
        "license": package.license,
        "url": package.url,
        "summary": package.summary,
        "description": package.description.replace("\t", " ").replace("\n", "|"),
    }
    for field, value in fields.items():
        qube.features[_PREFIX + field] = value
