"""The usual qubes and what the system's properties name them for (network-firewall.md 11)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NET, FIREWALL, DISPOSABLES = "sys-net", "sys-firewall", "default-dvm"
GATEWAY, ANONYMOUS, ANONYMOUS_DISPOSABLES = "sys-whonix", "anon-whonix", "anon-dvm"


@dataclass(frozen=True, slots=True)
class Role:
    """A qube as it is made. A property is none where its value is empty; services are switched."""

    name: str
    label: str
    properties: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, bool] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    firewall: tuple[str, ...] = ()


def _provider(name: str, label: str, netvm: str, **services: bool) -> Role:
    properties = {"netvm": netvm, "provides_network": "True", "autostart": "True"}
    switched = {name.replace("_", "-"): on for name, on in services.items()}
    return Role(name, label, properties, {"servicevm": "1"}, switched)


def _anonymous(name: str, **properties: str) -> Role:
    set_ = {"netvm": GATEWAY, "default_dispvm": ANONYMOUS_DISPOSABLES, **properties}
    # Tor is a service of the gateway, and its clients' rules are about what passes it: should it
    # ever be without its own rules, theirs still let nothing by.
    rules = ("action=drop",)
    return Role(name, "red", set_, {"anon-timezone": "1"}, tags=("anon-vm",), firewall=rules)


# Each after those that it refers to; a qube may refer to itself.
USUAL = (
    _provider(NET, "red", "", clocksync=True),
    _provider(FIREWALL, "green", NET),
    Role(DISPOSABLES, "red", {"template_for_dispvms": "True"}),
    Role("personal", "yellow"),
    Role("work", "blue"),
    Role("untrusted", "red"),
    Role("vault", "black", {"netvm": "", "start_mode": "unshared"}),
)
ANONYMISING = (
    Role(
        GATEWAY,
        "black",
        {"netvm": FIREWALL, "provides_network": "True", "default_dispvm": ""},
        {"servicevm": "1", "anon-timezone": "1"},
        {"tor-gateway": True, "qubes-updates-proxy": True},
        ("anon-gateway",),
    ),
    _anonymous(ANONYMOUS_DISPOSABLES, template_for_dispvms="True"),
    _anonymous(ANONYMOUS),
)
SYSTEM = {
    "default_netvm": FIREWALL,
    "default_dispvm": DISPOSABLES,
    "updatevm": FIREWALL,
    "clockvm": NET,
}
