"""Disposables that were started ahead of their use, by the features that say so (8.4). No I/O."""

from collections.abc import Iterable

from insula.daemon.model.edit import Edit
from insula.daemon.model.features import drop_feature, put_feature
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System

MEMBERS = "preload-dispvm"  # on the template: names, in the order in which they are taken
IN_PROGRESS, COMPLETED = "preload-dispvm-in-progress", "preload-dispvm-completed"
LIMIT, DELAY, THRESHOLD = "preload-dispvm-max", "preload-dispvm-delay", "preload-dispvm-threshold"
READINESS = "supported-rpc.qubes.WaitForRunningSystem"
INTERNAL = "internal"
_DEFAULT_DELAY = 3.0  # seconds
_MOST = 1000  # a limit beyond is a slip


def members_of(template: Qube) -> list[str]:
    """Names of those that wait to be used."""
    return template.features.get(MEMBERS, "").split()


def is_preloaded(system: System, qube: Qube) -> bool:
    """Whether a disposable waits to be used."""
    template = system.find(qube.template)
    return template is not None and qube.name in members_of(template)


def limit_of(system: System, template: Qube) -> int:
    """How many disposables of a template are to wait."""
    if not template.properties.get("template_for_dispvms"):
        return 0
    if not system.feature(template, "qrexec") or not system.feature(template, READINESS):
        return 0
    features = template.features
    if LIMIT in system.dom0.features and system.properties.get("default_dispvm") == template.uuid:
        features = system.dom0.features
    return min(int(features.get(LIMIT) or 0), _MOST)


def delay_of(system: System, template: Qube) -> float:
    """Seconds after a use before there is a new one; negative: only once none is left."""
    for holder in (template, system.dom0):
        if found := holder.features.get(DELAY):
            return float(found)
    return _DEFAULT_DELAY


def memory_left(system: System, available: int) -> int:
    """Bytes of memory that may be used for them, of those available."""
    return available - (int(system.dom0.features.get(THRESHOLD) or 0) << 20)


def templates_with(system: System) -> list[Qube]:
    """Disposable templates that have members or are to have any."""
    return [
        qube
        for qube in system.qubes.values()
        if qube.klass in (QubeClass.APP, QubeClass.STANDALONE)
        and (MEMBERS in qube.features or limit_of(system, qube))
    ]


def set_members(edit: Edit, template: Qube, names: Iterable[str]) -> None:
    """Let these be the members of a template."""
    before, after = template.features.get(MEMBERS), " ".join(names)
    if after and after != before:
        put_feature(edit, template, MEMBERS, after)
    elif not after and before is not None:
        drop_feature(edit, template, MEMBERS)


def forget(edit: Edit, template: Qube, name: str) -> None:
    """Let one be no member any more."""
    set_members(edit, template, [one for one in members_of(template) if one != name])


def drop_marks(edit: Edit, template: Qube | None, qube: Qube) -> None:
    """Let a disposable be like any other of its template's."""
    for feature in (IN_PROGRESS, COMPLETED):
        if feature in qube.features:
            drop_feature(edit, qube, feature)
    inherited = None if template is None else template.features.get(INTERNAL)
    if inherited is None and INTERNAL in qube.features:
        drop_feature(edit, qube, INTERNAL)
    edit.tell(qube, "property-reset:is_preload", name="is_preload")
