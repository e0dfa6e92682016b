"""qvm-template: templates of packages, from repositories that a qube looks at for us."""

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from insula.client import errors, instance
from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError, run, say, show
from insula.tools.table import print_table
from insula.tools.template_options import build_parser
from insula.tools.templates import installing, listing, removal
from insula.tools.templates.installed import Installed, is_managed, managed, mark, matching
from insula.tools.templates.records import Package
from insula.tools.templates.repositories import Repository, parse, read_files
from insula.tools.templates.update_qube import UpdateQube
from insula.tools.templates.versions import Version

_PROGRAM = "qvm-template"
_PREFIX = "ERROR: "
_LOCK = "qvm-template.lock"
_LOCAL = ".rpm"
_CHANGING = frozenset(
    ("install", "reinstall", "downgrade", "upgrade", "download", "remove", "purge", "clean",
     "migrate-from-rpmdb")
)  # fmt: skip


class NothingFoundError(UsageError):
    """There is nothing to show."""


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-template."""
    return run(build_parser(), _run, argv, prefix=_PREFIX)


def _run(arguments: argparse.Namespace) -> int:
    work = {
        "install": _install,
        "reinstall": _overwrite,
        "downgrade": _overwrite,
        "upgrade": _overwrite,
        "download": _download,
        "list": _list,
        "info": _list,
        "search": _search,
        "remove": _remove,
        "purge": _remove,
        "clean": _clean,
        "repolist": _repolist,
        "migrate-from-rpmdb": _migrate,
    }[arguments.command]
    if arguments.command not in _CHANGING:
        return work(_Work(arguments))
    with _alone():
        return work(_Work(arguments))


@contextmanager
def _alone() -> Iterator[None]:
    """One of them at a time."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/tmp")
    path = (Path(runtime) if instance.in_qube() else instance.run()) / _LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise errors.DaemonNotRunningError(str(path.parent)) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ReportableError("another qvm-template is at work") from None
    finally:
        os.close(lock)


class _Work:
    """What the commands share: the options, and what is worked out from them when it is needed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.app = App()
        self._text: str | None = None
        self._update_qube: UpdateQube | None = None

    @property
    def text(self) -> str:
        """All repository files."""
        if self._text is None:
            from insula.tools.template_options import DEFAULT_FILES  # noqa: PLC0415

            self._text = read_files(self.arguments.repo_files or [DEFAULT_FILES])
        return self._text

    def repositories(self) -> list[Repository]:
        """All repositories."""
        return parse(self.text, self.arguments.releasever, self.arguments.choices)

    @property
    def update_qube(self) -> UpdateQube:
        """Who searches and downloads."""
        if self._update_qube is None:
            name = self.arguments.updatevm
            if name is None:
                name = self.app.get("updatevm").value
            self._update_qube = UpdateQube(
                name,
                self.text,
                releasever=self.arguments.releasever,
                refresh=self.arguments.refresh,
                choices=self.arguments.choices,
            )
        return self._update_qube

    def keys(self, repository: str) -> list[Path]:
        """What packages of a repository are signed with."""
        for one in self.repositories():
            if one.id == repository and one.keys:
                return list(one.keys)
        from insula.tools.template_options import KEYRING  # noqa: PLC0415

        default = Path(KEYRING.format(self.arguments.releasever))
        return [self.arguments.keyring or default]

    def found(self, spec: str) -> list[Package]:
        """The packages that a spec stands for.

        Raises:
            UsageError: there is none.
        """
        packages = self.update_qube.search(spec)
        if not packages:
            raise UsageError(f"there is no template {spec!r}")
        return packages

    def installed(self) -> dict[str, Installed]:
        """Templates of this system that packages look after, by name."""
        return {one.qube.name: one for one in managed(self.app)}

    def fetch(self, package: Package, directory: Path) -> Path:
        """Download a package."""
        retries = self.arguments.retries
        keys = self.keys(package.repository)
        return installing.download(self.update_qube, package, directory, keys, retries)

    def install(self, package: Package, path: Path | None = None) -> None:
        """Make a template of a package, which is downloaded where no path is given."""
        self.arguments.cachedir.mkdir(parents=True, exist_ok=True)
        got = path or self.fetch(package, self._place())
        installing.install(self.app, package, got, self.arguments)
        if (
            path is None
            and not self.arguments.keep_cache
            and self._place() == self.arguments.cachedir
        ):
            got.unlink()

    def _place(self) -> Path:
        """Where packages that are to be installed are downloaded to."""
        given: Path = self.arguments.downloaddir
        cache: Path = self.arguments.cachedir
        return cache if given == Path() else given


def _local(work: _Work, spec: str) -> Package:
    checked = not work.arguments.nogpgcheck
    return installing.local_package(Path(spec), work.keys(""), checked=checked)


def _install(work: _Work) -> int:
    known = work.installed()
    chosen: list[tuple[Package, Path | None]] = []
    for spec in work.arguments.specs:
        if spec.endswith(_LOCAL):
            chosen.append((_local(work, spec), Path(spec)))
        else:
            chosen += [(package, None) for package in listing.newest(work.found(spec))]
    for package, path in chosen:
        if package.name in known:
            say(_PROGRAM, f"{package.name} is installed already; see reinstall and upgrade")
        else:
            work.install(package, path)
    return 0


def _overwrite(work: _Work) -> int:
    """reinstall, downgrade, upgrade: another package for what is installed."""
    known = work.installed()
    chosen: list[tuple[Package, Path | None]] = []
    for spec in work.arguments.specs:
        if spec.endswith(_LOCAL):
            package = _local(work, spec)
            _expect_known(package.name, known)
            if _suits(work.arguments.command, package.version, known[package.name].named.version):
                chosen.append((package, Path(spec)))
            continue
        mine = matching(known.values(), [spec])
        if not mine:
            offered = {package.name for package in work.update_qube.search(spec)}
            mine = [one for name, one in known.items() if name in offered]
        if not mine:
            raise UsageError(f"no template {spec!r} is installed by qvm-template")
        for one in mine:
            replacement = _replacement(work, one, spec)
            if replacement is not None:
                chosen.append((replacement, None))
    if chosen and not work.arguments.yes:
        installing.confirm_overwriting([package for package, _ in chosen])
    for package, path in chosen:
        work.install(package, path)
    return 0


def _expect_known(name: str, known: dict[str, Installed]) -> None:
    if name not in known:
        raise UsageError(f"no template {name!r} is installed by qvm-template")


def _suits(command: str, offered: Version, mine: Version) -> bool:
    if command == "reinstall":
        return offered == mine
    return offered > mine if command == "upgrade" else offered < mine


def _replacement(work: _Work, one: Installed, spec: str) -> Package | None:
    """The package that the command wants in the place of one; None, and told, without any."""
    command, mine = work.arguments.command, one.named.version
    found = [
        package
        for package in work.update_qube.search(one.qube.name)
        if package.name == one.qube.name and _suits(command, package.version, mine)
    ]
    if found:
        # A spec may name the version that is wanted, or the one that is there.
        named = [package for package in found if package.named.matches(spec)]
        return max(named or found, key=lambda package: package.version)
    text = {"reinstall": "package of", "downgrade": "version below", "upgrade": "version above"}[
        command
    ]
    say(_PROGRAM, f"{one.qube}: there is no {text} {mine}")
    return None


def _download(work: _Work) -> int:
    packages = [one for spec in work.arguments.specs for one in listing.newest(work.found(spec))]
    for package in packages:
        work.fetch(package, work.arguments.downloaddir)
    return 0


def _list(work: _Work) -> int:
    given = work.arguments
    groups = [
        group
        for group, wanted in (
            ("installed", given.installed), ("available", given.available),
            ("extra", given.extras), ("upgradable", given.upgrades),
        )
        if wanted
    ]  # fmt: skip
    if given.all or not groups:
        groups = [*dict.fromkeys(("installed", "available", *groups))]
    known = list(work.installed().values())
    available = []
    if groups != ["installed"]:
        found = [one for spec in given.specs or ["*"] for one in work.update_qube.search(spec)]
        available = found if given.all_versions else listing.newest(found)
    shown = listing.entries(matching(known, given.specs), available, known, groups)
    if not shown:
        raise NothingFoundError("there is nothing to list")
    everything = given.command == "info"
    if given.machine_readable:
        listing.show_raw(shown, everything=everything)
    elif given.machine_readable_json:
        listing.show_json(shown, everything=everything)
    elif everything:
        listing.show_info(shown)
    else:
        listing.show_list(shown)
    return 0


def _search(work: _Work) -> int:
    packages = listing.newest(work.update_qube.search("*"))
    if not listing.search(packages, work.arguments.patterns, everywhere=work.arguments.all):
        say(_PROGRAM, "nothing was found")
    return 0


def _remove(work: _Work) -> int:
    given = work.arguments
    qubes = []
    for name in dict.fromkeys(given.names):
        if name not in work.app.domains:
            raise UsageError(f"no such qube: {name!r}")
        qube = work.app.domains[name]
        if not is_managed(qube):
            raise UsageError(f"{name} was not installed by qvm-template; see qvm-remove")
        qubes.append(qube)
    if given.command == "purge":
        removal.purge(work.app, qubes, ask=not given.yes)
    else:
        removal.remove(work.app, qubes, disassociate=given.disassoc, ask=not given.yes)
    return 0


def _clean(work: _Work) -> int:
    installing.empty(work.arguments.cachedir)
    return 0


def _repolist(work: _Work) -> int:
    given = work.arguments
    rows = [
        (one.id, one.name, "enabled" if one.enabled else "disabled")
        for one in work.repositories()
        if (given.all or one.enabled != given.disabled)
        and (
            not given.repositories
            or any(
                fnmatchcase(text, wanted)
                for text in (one.id, one.name)
                for wanted in given.repositories
            )
        )
    ]
    print_table(rows)
    return 0


def _migrate(work: _Work) -> int:
    """Take over templates that rpm's database knows, and have it forget them."""
    if os.geteuid() != 0:
        raise ReportableError("only root can take over what rpm installed")
    from insula.tools.templates.rpmdb import forget, installed_templates  # noqa: PLC0415

    code = 0
    for package in installed_templates():
        if package.name not in work.app.domains:
            continue
        try:
            qube = work.app.domains[package.name]
            mark(qube, package)
            qube.set("installed_by_rpm", False)
            forget(package)
        except ReportableError as error:
            code = show(error, f"{_PREFIX}{package.name}: ")
    return code


if __name__ == "__main__":
    sys.exit(main())
