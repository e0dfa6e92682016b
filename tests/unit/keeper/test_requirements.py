"""A process is refused for each thing that does not hold of its jail."""

from dataclasses import replace
from typing import Any

import pytest

from insula.keeper.jail import bound
from insula.keeper.requirements import JailError, Requirements, assert_jailed
from insula.protocol.keeper import Facts, HeldDescriptor, JailKind

UID = 764_000_016
DISK = "/home/alice/root.qcow2 fe00:77"
WANTED = Requirements(uid=UID, seccomp=True, given=frozenset((DISK, "socket:[5] 9:5")))


def held(number: int, what: str, *, inside: bool = False, reopens: bool = False) -> HeldDescriptor:
    return HeldDescriptor(number=number, what=what, inside=inside, reopens=reopens)


JAILED = Facts(
    uids=(UID,) * 4,
    gids=(UID,),
    no_new_privs=True,
    seccomp=2,
    seccomp_filters=2,
    capabilities=0,
    bounding=0,
    namespaces=("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"),
    descriptors=(
        held(0, "/dev/null 6:3"),
        held(1, "pipe:[1] f:1"),
        held(2, "pipe:[1] f:1"),
        held(3, "anon_inode:[eventfd] 10:1030"),
        held(10, "socket:[5] 9:5"),
        held(11, "/root.qcow2 fe00:77"),
        held(12, "/usr/share/seabios/bios-256k.bin fe00:9", inside=True),
    ),
    root_entries=("dev", "lib", "lib64", "proc", "usr"),
    mounts=(
        *(("/", False), ("/proc", False), ("/proc/sys", False), ("/dev/null", True)),
        *((place, False) for place in bound(JailKind.MACHINE)),
    ),
)


def test_a_jail_that_is_in_force_is_accepted() -> None:
    assert_jailed(JAILED, WANTED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uids": (0, 0, 0, 0)}, "it runs as root"),
        ({"uids": (UID, UID, UID, 0)}, "it runs as root"),
        ({"uids": (UID, UID + 16, UID, UID)}, "it runs as uid"),
        ({"gids": (UID, 0)}, "it has the groups"),
        ({"gids": (UID, 27)}, "it has the groups"),
        ({"no_new_privs": False}, "could gain privileges"),
        ({"seccomp": 0, "seccomp_filters": 0}, "no system call filter"),
        ({"seccomp": 1}, "no system call filter"),
        ({"seccomp_filters": 0}, "no system call filter"),
        ({"seccomp_filters": 1}, "its own system call filter"),
        ({"capabilities": 1 << 21}, "it has capabilities 0x200000"),
        ({"bounding": 1 << 21}, "it has capabilities 0x200000"),
        ({"root_entries": (*JAILED.root_entries, "home")}, "it sees home"),
        ({"mounts": (*JAILED.mounts, ("/usr/share", False))}, "it has mounted /usr/share"),
        ({"mounts": (*JAILED.mounts, ("/proc/sys", True))}, "it can write to /proc/sys"),
        ({"mounts": (("/", True), *JAILED.mounts[1:])}, "it can write to /"),
        *(
            ({"namespaces": tuple(set(JAILED.namespaces) - {one})}, f"it shares namespaces: {one}")
            for one in ("user", "mnt", "pid", "net", "ipc", "uts")
        ),
    ],
)
def test_each_missing_wall_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(JailError, match=said):
        assert_jailed(replace(JAILED, **change), WANTED)


@pytest.mark.parametrize(
    "more",
    [
        held(13, "/home/alice/other.qcow2 fe00:78"),
        held(13, "/home/alice/root.qcow2 fe01:77"),
        held(13, "/memfd:insula-golden (deleted) 1:88"),
        held(13, "anon_inode:[io_uring] 10:1030"),
        held(13, "anon_inode:[userfaultfd] 10:1030"),
        held(13, "anon_inode:bpf-prog 10:1030"),
        held(13, "/dev/kmsg 6:11"),
        held(13, "/dev/pts/3 18:6"),
        held(0, "/dev/pts/3 18:6"),
        held(2, "/home/alice/log fe00:5"),
        held(11, DISK, reopens=True),
    ],
)
def test_a_descriptor_beyond_the_list_is_refused(more: HeldDescriptor) -> None:
    with pytest.raises(JailError, match=r"it holds descriptor|it may only read descriptor"):
        assert_jailed(replace(JAILED, descriptors=(*JAILED.descriptors, more)), WANTED)


def test_everything_that_is_wrong_is_named() -> None:
    wrong = replace(JAILED, no_new_privs=False, capabilities=1, seccomp_filters=1)
    with pytest.raises(JailError, match=r"could gain privileges; its own .*; it has capabilities"):
        assert_jailed(wrong, WANTED)


def test_what_only_a_machine_needs_is_not_asked_of_a_viewer() -> None:
    viewer = replace(
        JAILED,
        seccomp_filters=1,
        root_entries=(*JAILED.root_entries, "etc"),
        mounts=(*JAILED.mounts, ("/usr/share/fonts", False)),
    )
    assert_jailed(viewer, replace(WANTED, kind=JailKind.VIEWER, seccomp=False))
    with pytest.raises(JailError):
        assert_jailed(viewer, WANTED)


UPLINK = replace(WANTED, kind=JailKind.UPLINK, seccomp=False)
PASST = replace(
    JAILED,
    bounding=0xFFFF,
    root_entries=(),
    mounts=(("/", False),),
)


def test_an_uplink_sees_nothing() -> None:
    assert_jailed(PASST, UPLINK)
    with pytest.raises(JailError, match="it sees etc"):
        assert_jailed(replace(PASST, root_entries=("etc",)), UPLINK)
    shared = tuple(name for name in PASST.namespaces if name != "net")
    with pytest.raises(JailError, match="it shares namespaces: net"):
        assert_jailed(replace(PASST, namespaces=shared), UPLINK)
