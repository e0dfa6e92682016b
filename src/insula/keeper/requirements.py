"""What has to hold of a process in its jail, and the refusal of one of which it does not."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from insula.keeper.facts import what_is
from insula.keeper.jail import bound
from insula.protocol.errors import ReportableError
from insula.protocol.keeper import Facts, HeldDescriptor, JailKind

_NAMESPACES = frozenset(("user", "mnt", "pid", "net", "ipc", "uts"))
_FIRST_NUMBER = 3  # below are standard streams
_STREAMS = ("/dev/null ", "pipe:")
# What a program makes for itself: events, timers, its own pipes and connections, virtual machines.
_OWN_KINDS = (
    *("anon_inode:[event", "anon_inode:[timerfd]", "anon_inode:[signalfd]", "anon_inode:kvm-"),
    *("socket:", "pipe:"),
)
_DEVICES = frozenset(f"/dev/{name}" for name in ("null", "zero", "random", "urandom", "kvm"))
_MACHINE_ROOT = frozenset(("dev", "lib", "lib64", "proc", "usr"))
_OURS = 1  # system call filters: the jail's own
_AND_ITS_OWN = 2  # and the one that QEMU puts on itself


class JailError(ReportableError):
    """A process is not jailed as it has to be; it was not started, or was ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What has to hold of a process in its jail.

    uid: whom it has to run as; None means as we do, which then is not root. seccomp: it has to
    have put a filter on itself, above the jail's own. given: what its descriptors are, from
    `described`. kvm: it may use KVM, and have KVM's group.
    """

    uid: int | None
    seccomp: bool
    given: frozenset[str]
    kind: JailKind = JailKind.MACHINE
    kvm: bool = False


def described(descriptors: Sequence[int]) -> frozenset[str]:
    """What open descriptors of ours are, as /proc says."""
    return frozenset(what_is(Path("/proc/self/fd", str(one))) for one in descriptors)


def assert_jailed(facts: Facts, wanted: Requirements) -> None:
    """Refuse a process whose jail is not wholly in force.

    Raises:
        JailError: names everything that does not hold.
    """
    wrong = [*_privileges(facts, wanted), *_reach(facts, wanted)]
    if wrong:
        raise JailError("the jail is not in force: " + "; ".join(wrong))


def _privileges(facts: Facts, wanted: Requirements) -> list[str]:
    wrong = []
    uid = os.geteuid() if wanted.uid is None else wanted.uid
    if set(facts.uids) != {uid}:
        wrong.append(f"it runs as uid {facts.uids}, not {uid}")
    if 0 in facts.uids:
        wrong.append("it runs as root")
    if wanted.uid is not None:
        allowed = {wanted.uid} | ({_kvm_group()} if wanted.kvm else set())
        if not set(facts.gids) <= allowed:
            wrong.append(f"it has the groups {facts.gids}")
    if not facts.no_new_privs:
        wrong.append("it could gain privileges")
    if facts.seccomp != 2 or facts.seccomp_filters < _OURS:
        wrong.append("no system call filter is in force")
    elif wanted.seccomp and facts.seccomp_filters < _AND_ITS_OWN:
        wrong.append("its own system call filter is not in force")
    held = facts.capabilities
    if wanted.kind is not JailKind.UPLINK:  # It enters a namespace of its own, which fills this.
        held |= facts.bounding
    if held:
        wrong.append(f"it has capabilities {held:#x}")
    return wrong


def _reach(facts: Facts, wanted: Requirements) -> list[str]:
    wrong = []
    if missing := _NAMESPACES - set(facts.namespaces):
        wrong.append(f"it shares namespaces: {', '.join(sorted(missing))}")
    for held in facts.descriptors:
        if not _expected(held, wanted.given):
            wrong.append(f"it holds descriptor {held.number}, {held.what}")
        if held.reopens:
            wrong.append(f"it may only read descriptor {held.number} but could write {held.what}")
    if wanted.kind is JailKind.MACHINE:
        if more := set(facts.root_entries) - _MACHINE_ROOT:
            wrong.append(f"it sees {', '.join(sorted(more))}")
        places = {place for place, _ in facts.mounts if not place.startswith("/proc/")}
        if more := places - {"/", "/proc"} - _DEVICES - set(bound(wanted.kind)):
            wrong.append(f"it has mounted {', '.join(sorted(more))}")
    if wanted.kind is JailKind.UPLINK and facts.root_entries:
        wrong.append(f"it sees {', '.join(sorted(facts.root_entries))}")
    for place, writable in facts.mounts:
        if writable and place not in _DEVICES:
            wrong.append(f"it can write to {place}")
    return wrong


def _expected(held: HeldDescriptor, given: frozenset[str]) -> bool:
    if held.number < _FIRST_NUMBER:
        return held.what.startswith(_STREAMS)
    # By what it is, not by its number: QEMU moves those of its descriptor sets.
    known = {_identity(what) for what in given}
    return held.inside or _identity(held.what) in known or held.what.startswith(_OWN_KINDS)


def _identity(what: str) -> str:
    """A file by its device and inode, as its name is another in another mount; else all of it."""
    return what.rpartition(" ")[2] if what.startswith("/") else what


def _kvm_group() -> int:
    return Path("/dev/kvm").stat().st_gid
