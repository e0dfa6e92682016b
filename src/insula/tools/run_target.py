"""Where qvm-run runs a command: a named qube, several, or a new disposable."""

import argparse
import os

from insula.client import admin, errors, instance
from insula.protocol.admin import parse_listed_qubes, parse_property_answer
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError

_DISPOSABLE = "@dispvm"


class NoDisposableTemplateError(ReportableError):
    """Nothing says what a disposable is to be made of."""

    exit_code = 255

    def __init__(self) -> None:
        super().__init__("there is no default template of disposables")
        self.hint = "Set one with: qubes-prefs default_dispvm NAME"


class Target:
    """One place to run in. name: as calls and messages have it; state: None for a disposable."""

    def __init__(self, name: str, state: str | None = None) -> None:
        self.name = name
        self.state = state
        self._asked = "" if self.disposable else name

    @property
    def disposable(self) -> bool:
        """Whether the qube is made for this run."""
        return self.name.startswith(_DISPOSABLE)

    def feature(self, name: str) -> str | None:
        """A feature of the qube or of its template; None when it is not set."""
        try:
            method = "admin.vm.feature.CheckWithTemplate"
            return admin.call(self._qube_to_ask(), method, name).decode()
        except errors.QubesFeatureNotFoundError:
            return None
        except errors.QubesDaemonAccessError:
            if not instance.in_qube():
                raise
            return None  # It is not ours to know.

    def property(self, name: str) -> str:
        """A property as text, empty when it has no value."""
        content = admin.call(self._qube_to_ask(), "admin.vm.property.Get", name).decode()
        return parse_property_answer(content).value

    def wants_session(self) -> bool:
        """Whether its windows are shown here, so that a command has to wait for its session."""
        return (
            bool(os.environ.get("DISPLAY"))
            and self.feature("gui") != ""
            and bool(self.property("guivm"))
        )

    def _qube_to_ask(self) -> str:
        """The qube itself; for a disposable the one it is made from."""
        if not self._asked:
            self._asked = self.name.partition(":")[2] or _default_dispvm()
        return self._asked


def targets(arguments: argparse.Namespace) -> list[Target]:
    """Where to run.

    Raises:
        UsageError: there is no such qube.
    """
    if arguments.dispvm is not None:
        name = f"{_DISPOSABLE}:{arguments.dispvm}" if arguments.dispvm else _DISPOSABLE
        return [Target(name)]
    if arguments.qube is None:
        return _all(arguments)
    try:
        content = admin.call(arguments.qube, "admin.vm.List").decode()
    except (errors.QubesVMNotFoundError, errors.QubesValueError):
        return [_by_pattern(arguments)]
    return [Target(listed.name, listed.state) for listed in parse_listed_qubes(content)]


def _default_dispvm() -> str:
    content = admin.ask_dom0("admin.property.Get", "default_dispvm").decode()
    name = parse_property_answer(content).value
    if not name:
        raise NoDisposableTemplateError
    return name


def _by_pattern(arguments: argparse.Namespace) -> Target:
    from insula.client.app import App  # noqa: PLC0415 - a plain name needs less
    from insula.tools import names  # noqa: PLC0415

    qube = names.find_one(App(cache=True), arguments)
    return Target(qube.name, qube.state)


def _all(arguments: argparse.Namespace) -> list[Target]:
    """All qubes that run, are not paused and not internal."""
    from insula.client.app import App  # noqa: PLC0415
    from insula.tools import names  # noqa: PLC0415

    app = App(cache=True)
    excluded = {qube.name for qube in names.expand(app.domains, arguments.exclude)}
    return [
        Target(qube.name, qube.state)
        for qube in app.domains
        if qube.state == "Running"
        and qube.klass != "AdminVM"
        and qube.name not in excluded
        and not qube.features.get("internal")
    ]


def check_exists(target: Target) -> None:
    """Make sure that what a disposable is to be made of is there.

    Raises:
        UsageError: it is not.
    """
    base = target.name.partition(":")[2]
    if base:
        try:
            admin.call(base, "admin.vm.List")
        except errors.QubesVMNotFoundError as error:
            raise UsageError(str(error)) from None
