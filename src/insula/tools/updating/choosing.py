"""Which qubes are updated."""

import argparse
import time
from collections.abc import Sequence

from insula.client import errors
from insula.client.app import App, Qube
from insula.tools.command import UsageError

STALE_DAYS = 7
_SKIP = "skip-update"
_DAY = 24 * 3600.0


def chosen(app: App, arguments: argparse.Namespace) -> list[Qube]:
    """The qubes that a command line means.

    Raises:
        UsageError: a name is of no qube, or of one in which nothing is installed.
    """
    able = {qube.name: qube for qube in app.domains if is_updateable(qube)}
    for name in (*arguments.targets, *arguments.skip):
        if name not in app.domains:
            raise UsageError(f"no such qube: {name!r}")
    for name in arguments.targets:
        if name not in able:
            raise UsageError(f"nothing is installed in {name} itself: update its template")
    everything = not (arguments.targets or arguments.templates or arguments.standalones)
    stale, available = arguments.update_if_stale, arguments.update_if_available
    if everything and not arguments.all and stale is None and not available:
        stale, available = STALE_DAYS, True
    found = []
    for name, qube in able.items():
        of_kind = arguments.templates if qube.klass == "TemplateVM" else arguments.standalones
        wanted = name in arguments.targets or (
            (everything or arguments.all or of_kind) and not qube.features.check(_SKIP)
        )
        if wanted and name not in arguments.skip and _is_due(qube, stale, available=available):
            found.append(qube)
    return found


def is_updateable(qube: Qube) -> bool:
    """Whether software is installed in the qube itself, and the qube is ours to start."""
    return qube.klass in ("TemplateVM", "StandaloneVM")


def users_with_old_root(app: App, templates: Sequence[str]) -> list[str]:
    """Qubes that run with what their template had before."""
    found = []
    for qube in app.domains:
        if qube.klass not in ("AppVM", "DispVM") or not qube.is_running():
            continue
        try:
            outdated = qube.volumes.named("root").is_outdated
        except errors.QubesException:
            continue  # It has ended meanwhile.
        if outdated and _root_of(qube) in templates:
            found.append(qube.name)
    return found


def _root_of(qube: Qube) -> str:
    """The template whose root a qube uses."""
    found: Qube | None = qube
    while found is not None and not is_updateable(found):
        found = found.template
    return "" if found is None else found.name


def _is_due(qube: Qube, stale: float | None, *, available: bool) -> bool:
    if stale is None and not available:
        return True
    if available and qube.features.check("updates-available"):
        return True
    return stale is not None and _days_since_check(qube) >= stale


def _days_since_check(qube: Qube) -> float:
    """Days since somebody looked for its updates; many, if nobody has."""
    text = qube.features.check("last-updates-check") or ""
    try:
        then = time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return float("inf")
    return (time.time() - then) / _DAY
