"""What a starting qube is told of itself: its QubesDB (in-qube.md section 1.3)."""

import base64
import hashlib
import os
import re
from pathlib import Path
from uuid import UUID

from insula.daemon.lifecycle import network_keys
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System

_SERVICE = re.compile(r"[^/]{1,48}")
_DISPOSED_OF = "app-dispvm."  # and an application, whose documents are opened in disposables
_CONFIG = re.compile(r"[A-Za-z].{0,51}")
_PERSIST_KEY = 54  # characters
_LOCALTIME = Path("/etc/localtime")
_ZONES = "zoneinfo/"
_PERSISTENCE = {
    QubeClass.TEMPLATE: "full",
    QubeClass.STANDALONE: "full",
    QubeClass.DISPOSABLE: "none",
}


def entries(system: System, qube: Qube) -> dict[str, str]:
    """All keys and values at a start."""

    def value(name: str) -> object:
        return value_of(system, qube, name)

    template = system.find(qube.template)
    return {
        "/name": qube.name,
        "/type": str(qube.klass),
        "/qubes-vm-type": _role(qube, networked=value("netvm") is not None),
        "/default-user": _default_user(system, qube),
        "/qubes-vm-updateable": str(value("updateable")),
        "/qubes-vm-persistence": _PERSISTENCE.get(qube.klass, "rw-only"),
        "/qubes-debug-mode": "1" if value("debug") else "0",
        "/qubes-base-template": template.name if template is not None else "",
        "/qubes-random-seed": base64.b64encode(os.urandom(64)).decode(),
        **_time_zone(system, qube),
        **_gui(system, qube),
        **network_keys.entries(system, qube),
        **_services(qube, balloons=value("maxmem") != 0),
        **_configured(qube),
        "/qubes-block-devices": "",
        "/qubes-usb-devices": "",
        "/qubes-iptables-error": "",
    }


def shows_windows(system: System, qube: Qube) -> bool:
    """Whether the qube has a window agent, whose windows somebody shows."""
    if not isinstance(value_of(system, qube, "guivm"), UUID):
        return False
    return bool(system.feature(qube, "gui", ""))


def _role(qube: Qube, *, networked: bool) -> str:
    if qube.klass is QubeClass.TEMPLATE:
        return "TemplateVM"
    if qube.properties.get("provides_network"):
        return "ProxyVM" if networked else "NetVM"
    return "AppVM"


def _default_user(system: System, qube: Qube) -> str:
    mode = value_of(system, qube, "bootmode")
    of_mode = system.feature(qube, f"boot-mode.default-user.{mode}")
    return of_mode or str(value_of(system, qube, "default_user"))


def _gui(system: System, qube: Qube) -> dict[str, str]:
    """Who shows the qube's windows and plays its sound, and how."""
    found = {"/qubes-gui-enabled": str(shows_windows(system, qube))}
    for name, key in (("guivm", "/qubes-gui-domain-xid"), ("audiovm", "/qubes-audio-domain-xid")):
        value = value_of(system, qube, name)
        other = system.find(value) if isinstance(value, UUID) else None
        if other is not None:
            found[key] = "0" if other is system.dom0 else str(other.xid)
        if name == "guivm" and other is not None and other is not qube:
            found["/keyboard-layout"] = str(value_of(system, qube, "keyboard_layout"))
    for feature in ("gui-videoram-min", "gui-videoram-overhead"):
        size = system.feature(qube, feature, system.dom0.features.get(feature))
        if size:
            found[f"/qubes-{feature}"] = size
    if qube.features.get("service.guivm"):
        found["/guivm-windows-prefix"] = qube.features.get("guivm-windows-prefix", "GuiVM")
    return found


def _time_zone(system: System, qube: Qube) -> dict[str, str]:
    if system.feature(qube, "anon-timezone"):
        return {}
    _, found, zone = str(_LOCALTIME.resolve()).partition(_ZONES)
    return {"/qubes-timezone": zone} if found else {}


def _services(qube: Qube, *, balloons: bool) -> dict[str, str]:
    services = {"/qubes-service/meminfo-writer": "1" if balloons else "0"}
    for feature, value in qube.features.items():
        prefix, dot, name = feature.partition(".")
        if prefix == "service" and dot and _SERVICE.fullmatch(name) and name not in (".", ".."):
            services[f"/qubes-service/{name}"] = "1" if value else "0"
        elif prefix == "service" and value and name.startswith(_DISPOSED_OF):
            application = name.removeprefix(_DISPOSED_OF)
            services[f"/hash-app-dispvm/{_hashed(application)}"] = application
    if "check-updates" in qube.features:
        wanted = "1" if qube.features["check-updates"] else "0"
        services["/qubes-service/qubes-update-check"] = wanted
    return services


def _hashed(application: str) -> str:
    """A name for an application whose own is too long for a key."""
    digest = hashlib.sha256(application.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _configured(qube: Qube) -> dict[str, str]:
    found = {}
    for feature, value in qube.features.items():
        prefix, dot, name = feature.partition(".")
        if prefix == "vm-config" and dot and _CONFIG.fullmatch(name):
            found[f"/vm-config/{name}"] = value
        elif prefix == "custom-persist" and dot and 0 < len(name) <= _PERSIST_KEY:
            found[f"/persist/{name}"] = value
    return found
