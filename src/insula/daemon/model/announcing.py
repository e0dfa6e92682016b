"""What a qube says of itself, and what of it is believed (admin-api.md sections 4.14 and 7.3).

Everything here comes from inside the qube. A qube with a template has its template's word; only
what services it serves is its own to say.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date

from insula.daemon.model.changes import set_property
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import RefusedSilentlyError
from insula.daemon.model.features import drop_feature, put_feature
from insula.daemon.model.following import follow_feature
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System

_VALUE = re.compile(r"[A-Za-z0-9\-.,_= ]*", re.ASCII)
_TOOLS_VALUE = re.compile(r"[A-Za-z0-9]*", re.ASCII)
_OS_VERSION = re.compile(r"[0-9][0-9.-]*", re.ASCII)
_AGENT_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SYSTEMS = ("Linux", "Windows")
_ONCE = ("qrexec", "gui", "gui-emulated")
_ALWAYS = ("qubes-firewall", "vmexec")
_KINDS = ("supported-service.", "supported-feature.", "supported-rpc.")
_FROM_ANY = "supported-rpc."
_MODE_KINDS = ("boot-mode.kernelopts.", "boot-mode.name.", "boot-mode.default-user.")
_MOST_MODES = 64
_RESERVED_MODE = "default"
_WINDOWS = {
    "rpc-clipboard": "1",
    "stubdom-qrexec": "1",
    "audio-model": "ich6",
    "timezone": "localtime",
    "no-monitor-layout": "1",
}
_WINDOWS_PROPERTIES = {"maxmem": 0, "qrexec_timeout": 6000}
_TOLD = "features-request"


def checked_request(untrusted: Mapping[str, str], *, tools: bool = False) -> dict[str, str]:
    """What a qube asks for, if all of it is written as it has to be; tools: in the old form.

    Raises:
        RefusedSilentlyError: it is not.
    """
    pattern = _TOOLS_VALUE if tools else _VALUE
    for key, value in untrusted.items():
        if pattern.fullmatch(value) is None:
            raise RefusedSilentlyError(f"{key}: not a value that a qube may ask for")
    return dict(untrusted)


def take_request(edit: Edit, qube: Qube, untrusted: Mapping[str, str]) -> None:
    """Believe of a qube's request what may be believed."""
    edit.tell(qube, _TOLD, untrusted_features=dict(untrusted))
    kinds = _KINDS if qube.template is None else (_FROM_ANY,)
    for kind in kinds:
        _take_kind(edit, qube, kind, untrusted)
    if qube.template is not None:
        return
    had_agent = bool(qube.features.get("qrexec"))
    for name, accepts in _PLAIN.items():
        if name in untrusted and accepts(untrusted[name]):
            _put(edit, qube, name, untrusted[name])
    for name in (*_ONCE, *_ALWAYS):
        if untrusted.get(name) in ("0", "1") and not (name in _ONCE and name in qube.features):
            _put(edit, qube, name, _boolean(untrusted[name]))
    if untrusted.get("anon-timezone") == "1":
        _put(edit, qube, "anon-timezone", "1")
    _take_modes(edit, qube, untrusted)
    if not had_agent and qube.features.get("qrexec"):
        if qube.features.get("os") == "Windows":
            _furnish_windows(edit, qube)
        edit.tell(qube, "template-postinstall")


def note_updates(edit: Edit, qube: Qube, now: str, *, available: bool) -> None:
    """Note on a qube whether there are updates for it. now: as YYYY-MM-DD HH:MM:SS."""
    if qube.features.get("updates-available") and not available:
        put_feature(edit, qube, "last-update", now)
    put_feature(edit, qube, "updates-available", "1" if available else "")
    put_feature(edit, qube, "last-updates-check", now)


def updateable(system: System, qube: Qube) -> Qube | None:
    """The qube in which what a qube runs is updated: itself, or a template of its."""
    for one in (qube, *system.templates_of(qube)):
        if one.klass.has_own_root:
            return one
    return None


def _is_date(text: str) -> bool:
    if _DATE.fullmatch(text) is None:
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


_PLAIN: dict[str, Callable[[str], bool]] = {
    "os": lambda text: text in _SYSTEMS,
    "os-distribution": lambda _text: True,
    "os-distribution-like": lambda _text: True,
    "os-version": lambda text: _OS_VERSION.fullmatch(text) is not None,
    "os-eol": _is_date,
    "qubes-agent-version": lambda text: _AGENT_VERSION.fullmatch(text) is not None,
}


def _take_kind(edit: Edit, qube: Qube, kind: str, untrusted: Mapping[str, str]) -> None:
    """Features of a kind are those announced now; announcing none says nothing of them."""
    announced = {
        key
        for key, value in untrusted.items()
        if key.startswith(kind) and value == "1" and _NAME.fullmatch(key)
    }
    if not announced:
        return
    for name in sorted(announced):
        _put(edit, qube, name, "1")
    for name in sorted(qube.features):
        if name.startswith(kind) and name not in announced:
            drop_feature(edit, qube, name)


def _take_modes(edit: Edit, qube: Qube, untrusted: Mapping[str, str]) -> None:
    """Boot modes are replaced as a set."""
    found = {
        key: value
        for key, value in untrusted.items()
        if key.startswith(_MODE_KINDS) and _NAME.fullmatch(key)
    }
    modes = {key.removeprefix(_MODE_KINDS[0]) for key in found if key.startswith(_MODE_KINDS[0])}
    names = [value for key, value in found.items() if key.startswith(_MODE_KINDS[1])]
    if not 0 < len(modes) <= _MOST_MODES or _RESERVED_MODE in modes:
        return
    if len(set(names)) != len(names):
        return
    for name in sorted(qube.features):
        if name.startswith(_MODE_KINDS) and name not in found:
            drop_feature(edit, qube, name)
    for name, value in found.items():
        if name.split(".", 2)[2] in modes:
            _put(edit, qube, name, value)


def _furnish_windows(edit: Edit, qube: Qube) -> None:
    for name, value in _WINDOWS.items():
        if name not in qube.features:
            _put(edit, qube, name, value)
    for name, number in _WINDOWS_PROPERTIES.items():
        set_property(edit, qube, BY_CLASS[qube.klass][name], number)


def _put(edit: Edit, qube: Qube, name: str, value: str) -> None:
    if qube.features.get(name) != value:
        put_feature(edit, qube, name, value)
        follow_feature(edit, qube, name)


def _boolean(text: str) -> str:
    return "1" if text == "1" else ""
