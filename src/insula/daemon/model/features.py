"""Features and tags of qubes, and what they may be (admin-api.md sections 3.4 and 7)."""

import math
import re

from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    FeatureNotFoundError,
    RefusedSilentlyError,
    TagNotFoundError,
    ValueRefusedError,
)
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System

MEMINFO_WRITER = "service.meminfo-writer"
DEFERRED_NETVM = "deferred-netvm-original"  # on a qube that stands still: the netvm it had
_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_LONG_SERVICE = "app-dispvm."
_SERVICE_LENGTH, _CONFIG_LENGTH, _PERSIST_LENGTH = 48, 52, 54  # bytes of a name in QubesDB
_PERSISTED = re.compile(r"/.*|(file|dir):[^:]+:[^:]+:[0-7]{3,4}:/.*", re.ASCII)
_PRELOADING = ("qrexec", "supported-rpc.qubes.WaitForRunningSystem")
_MANAGED = frozenset(
    (
        DEFERRED_NETVM,
        "preload-dispvm",
        "preload-dispvm-completed",
        "preload-dispvm-in-progress",
    )
)
_GUARDED_TAG = "created-by-"


def check_managed(name: str) -> None:
    """Refuse a feature that is the daemon's own.

    Raises:
        RefusedSilentlyError: it is.
    """
    if name in _MANAGED:
        raise RefusedSilentlyError(f"{name} is managed by the daemon")


def check_written(name: str, value: str) -> None:
    """Refuse what no feature is.

    Raises:
        ValueRefusedError: its name or value has characters that features do not have.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueRefusedError(f"Not a name of a feature: {name!r}")
    if not value.isascii() or not value.isprintable():
        raise ValueRefusedError("A feature's value is printable ASCII")


def check_feature(system: System, qube: Qube, name: str, value: str) -> None:
    """Refuse a feature that could not do what it is for.

    Raises:
        ValueRefusedError: its name or value is not as it should be.
    """
    check_written(name, value)
    prefix, dot, rest = name.partition(".")
    match prefix + dot:
        case "service.":
            _check_service(name, rest)
        case "vm-config.":
            _check_key(name, rest, _CONFIG_LENGTH)
            if not rest[0].isalpha():
                raise ValueRefusedError(f"{name}: what follows vm-config. begins with a letter")
        case "custom-persist.":
            _check_key(name, rest, _PERSIST_LENGTH)
            if _PERSISTED.fullmatch(value) is None:
                raise ValueRefusedError(
                    f"{name} is an absolute path or file|dir:OWNER:GROUP:MODE:/PATH, not {value!r}"
                )
    _check_preloading(system, qube, name, value)


def put_feature(edit: Edit, qube: Qube, name: str, value: str) -> None:
    """Give a feature of a qube a value."""
    fields = {"feature": name, "value": value}
    if name in qube.features:
        fields["oldvalue"] = qube.features[name]
    edit.touch(qube).features[name] = value
    edit.tell(qube, f"domain-feature-pre-set:{name}", **fields)
    edit.tell(qube, f"domain-feature-set:{name}", **fields)


def drop_feature(edit: Edit, qube: Qube, name: str) -> None:
    """Take a feature away.

    Raises:
        FeatureNotFoundError: the qube has none of that name.
    """
    if name not in qube.features:
        raise FeatureNotFoundError(qube.name, name)
    del edit.touch(qube).features[name]
    edit.tell(qube, f"domain-feature-pre-delete:{name}", feature=name)
    edit.tell(qube, f"domain-feature-delete:{name}", feature=name)


def check_tag(tag: str) -> None:
    """Refuse what is no tag.

    Raises:
        RefusedSilentlyError: it is none.
    """
    if _TAG.fullmatch(tag) is None:
        raise RefusedSilentlyError(f"not a tag: {tag!r}")


def is_guarded(tag: str) -> bool:
    """Whether dom0 alone may set and remove a tag."""
    return tag.startswith(_GUARDED_TAG)


def add_tag(edit: Edit, qube: Qube, tag: str) -> None:
    """Give a qube a tag; nothing happens when it has it."""
    if tag not in qube.tags:
        edit.touch(qube).tags.add(tag)
        edit.tell(qube, f"domain-tag-add:{tag}", tag=tag)


def remove_tag(edit: Edit, qube: Qube, tag: str) -> None:
    """Take a tag away.

    Raises:
        TagNotFoundError: the qube has no such tag.
    """
    if tag not in qube.tags:
        raise TagNotFoundError(qube.name, tag)
    edit.touch(qube).tags.remove(tag)
    edit.tell(qube, f"domain-tag-delete:{tag}", tag=tag)


def tag_alone(edit: Edit, qube: Qube, prefix: str, wanted: str | None) -> None:
    """Let a qube have exactly one of the tags that begin so, or none."""
    for tag in sorted(qube.tags):
        if tag.startswith(prefix) and tag != wanted:
            remove_tag(edit, qube, tag)
    if wanted is not None:
        add_tag(edit, qube, wanted)


def _check_service(name: str, service: str) -> None:
    if service in ("", ".", ".."):
        raise ValueRefusedError(f"{name} names no service")
    if len(service) > _SERVICE_LENGTH and not service.startswith(_LONG_SERVICE):
        raise ValueRefusedError(f"{name}: a service's name has at most {_SERVICE_LENGTH} bytes")


def _check_key(name: str, key: str, longest: int) -> None:
    if not 0 < len(key) <= longest:
        raise ValueRefusedError(f"{name}: what follows the '.' has 1 to {longest} bytes")


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_preloading(system: System, qube: Qube, name: str, value: str) -> None:
    match name:
        case "preload-dispvm-max" | "preload-dispvm-threshold":
            if value and not value.isdigit():
                raise ValueRefusedError(f"{name} is a number, not {value!r}")
        case "preload-dispvm-delay":
            if value and not _is_finite(value):
                raise ValueRefusedError(f"{name} is a number of seconds, not {value!r}")
    if name == "preload-dispvm-max" and qube.klass is not QubeClass.ADMIN:
        for needed in _PRELOADING:
            if not system.feature(qube, needed):
                raise ValueRefusedError(f"Qube {qube.name} lacks the feature {needed}")
