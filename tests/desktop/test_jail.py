"""A viewer's jail: what it shows and holds, and that a viewer does nothing before it was judged."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from insula.daemon.lifecycle import viewers
from insula.daemon.lifecycle.viewers import ViewerError, viewer_name
from insula.keeper.client import JailError, Requirements
from insula.protocol.keeper import Facts
from tests.desktop.host import ROOT, UID, Host
from tests.desktop.joined import Joined, XServer, make_region, wait_for

MOST_PRIVATE = 12 * 1024  # KiB


@pytest.fixture
def silent(host: Host) -> Iterator[tuple[UUID, socket.socket]]:
    """A qube whose window port accepts and says nothing."""
    uuid = uuid4()
    region = make_region()
    host.call(host.keeper.hold(f"pixels/qube-{uuid}", region))
    with host.listening(uuid) as listener:
        listener.settimeout(10)
        yield uuid, listener
    host.call(host.viewers.close(uuid))
    host.forget_pixels(uuid)
    os.close(region)


def test_the_facts_of_a_viewers_jail(joined: Joined) -> None:
    facts = joined.host.call(joined.host.keeper.verify(viewer_name(joined.uuid)))
    assert set(facts.root_entries) == {"dev", "insula", "lib", "lib64", "proc", "usr"}
    assert facts.capabilities == 0
    assert facts.no_new_privs
    assert facts.seccomp == 2
    assert set(facts.uids) == {UID if ROOT else os.geteuid()}
    assert {"user", "mnt", "pid", "net", "ipc", "uts"} <= set(facts.namespaces)
    writable = {place for place, written in facts.mounts if written}
    assert writable <= {
        "/proc",
        *(f"/dev/{name}" for name in ("null", "zero", "random", "urandom")),
    }


def test_a_viewer_holds_what_it_was_given_and_the_segment_of_its_own(joined: Joined) -> None:
    facts = joined.host.call(joined.host.keeper.verify(viewer_name(joined.uuid)))
    held = [one.what for one in facts.descriptors if one.number > 2]
    kinds = sorted(what.split(":")[0] for what in held)
    assert set(kinds) == {"/memfd", "socket"}
    assert kinds.count("socket") == 2  # the X server's and the qube's


def test_a_viewer_sees_no_network_no_home_and_no_other_process(joined: Joined) -> None:
    inside = Path(f"/proc/{joined.viewer.pid}")
    assert (inside / "net/dev").read_text().count(":") == 1  # the loopback of an empty namespace
    assert not (inside / "root/home").exists()
    assert not (inside / "root/tmp").exists()
    assert (inside / "status").read_text().count("NSpid") == 1
    assert not list((inside / "root/insula").glob("insula/daemon"))


def test_an_idle_viewer_is_small(joined: Joined) -> None:
    lines = Path(f"/proc/{joined.viewer.pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    assert sizes["Private_Dirty:"] + sizes["Private_Clean:"] < MOST_PRIVATE


def test_a_viewer_that_is_not_jailed_wholly_never_speaks(
    host: Host,
    desktop: XServer,
    silent: tuple[UUID, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uuid, listener = silent

    def refuse(_facts: Facts, _wanted: Requirements) -> None:
        raise JailError("the jail is not in force")

    monkeypatch.setattr(viewers, "assert_jailed", refuse)
    with pytest.raises(JailError):
        host.open(uuid, desktop.display)
    channel, _ = listener.accept()
    with channel:
        assert channel.recv(100) == b""
    assert viewer_name(uuid) not in host.call(host.keeper.list())


def test_a_jail_that_shows_more_is_refused(
    host: Host,
    desktop: XServer,
    silent: tuple[UUID, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uuid, _ = silent
    monkeypatch.setattr(viewers, "_ROOT", frozenset(("dev", "lib", "lib64", "proc", "usr")))
    with pytest.raises(JailError, match="insula"):
        host.open(uuid, desktop.display)


def test_a_qube_that_does_not_run_has_no_viewer(host: Host, desktop: XServer) -> None:
    with pytest.raises(ViewerError, match="not running"):
        host.open(uuid4(), desktop.display)


def test_a_second_viewer_replaces_the_first(
    host: Host, desktop: XServer, silent: tuple[UUID, socket.socket]
) -> None:
    uuid, listener = silent
    first = host.open(uuid, desktop.display)
    before, _ = listener.accept()
    second = host.open(uuid, desktop.display)
    after, _ = listener.accept()
    with before, after:
        assert first.pid != second.pid
        assert not Path(f"/proc/{first.pid}").exists()
        assert Path(f"/proc/{second.pid}").exists()
        os.close(first.pidfd)
        os.close(second.pidfd)


def test_viewers_that_ended_are_forgotten(
    host: Host, desktop: XServer, silent: tuple[UUID, socket.socket], joined: Joined
) -> None:
    uuid, _ = silent
    ended = host.open(uuid, desktop.display)
    ended.kill()
    wait_for(lambda: host.call(host.keeper.list())[viewer_name(uuid)].exit is not None, "its end")
    joined.open_again()
    assert viewer_name(uuid) not in host.call(host.keeper.list())
    assert set(host.call(host.viewers.pids())) == {joined.uuid}
    os.close(ended.pidfd)


def test_a_viewer_that_hoards_memory_is_the_one_that_ends(joined: Joined) -> None:
    limits = Path(f"/proc/{joined.viewer.pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(line.split()[3]) <= 1024**3
