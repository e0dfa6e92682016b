"""What may die at any moment, and what then: daemon, machines, room on the disk."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from insula.protocol.admin import encode_request
from tests.vm.events import Listener
from tests.vm.instance import Instance, wait_for


@pytest.fixture
def qubes(instance: Instance) -> Iterator[tuple[str, str]]:
    """Two running app qubes."""
    names = ("one", "two")
    for name in names:
        instance.say("qvm-create", "--label", "green", name)
        instance.say("qvm-start", name)
    yield names
    for name in names:
        instance.command("qvm-kill", name)
        instance.say("qvm-remove", "--force", name)


def test_all_goes_on_when_the_daemon_is_killed(instance: Instance, qubes: tuple[str, str]) -> None:
    with instance.running("qvm-run", "-p", "-q", qubes[0], "cat; exit 5") as open_call:
        _echo(open_call, b"before\n")
        pids = _pids(instance)
        os.kill(instance.status()["pid"], signal.SIGKILL)
        _echo(open_call, b"while nobody is there\n")
        instance.up()
        assert _pids(instance) == pids
        for name in qubes:
            assert instance.say("qvm-run", "-p", name, "hostname") == f"{name}\n"
        _echo(open_call, b"after\n")
        out, _ = open_call.communicate(timeout=30)
        assert (out, open_call.returncode) == (b"", 5)
    instance.say("qvm-shutdown", "--wait", qubes[0])


def _echo(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    assert process.stdout.readline() == line


def _pids(instance: Instance) -> dict[str, int]:
    return {qube["name"]: qube["pid"] for qube in instance.status()["running"]}


def test_a_qube_whose_start_outlives_the_daemon_is_up_or_gone(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "green", "begun")
    try:
        pid = instance.status()["pid"]
        with Listener(instance) as events, instance.running("qvm-start", "begun") as starting:
            events.wait("begun", "domain-spawn")
            os.kill(pid, signal.SIGKILL)
            starting.communicate(timeout=60)
            assert starting.returncode == 1
        instance.up()
        # It was told all it needs: it may come up by itself. Nothing in between is kept.
        wait_for(lambda: _state(instance, "begun") in ("Running", "Halted"), "its fate")
        if _state(instance, "begun") == "Halted":
            assert not _machines_of(instance, "begun")
        assert instance.say("qvm-run", "-p", "begun", "echo again") == "again\n"
        instance.say("qvm-kill", "begun")
        assert not _machines_of(instance, "begun")
    finally:
        instance.say("qvm-remove", "--force", "begun")


def _state(instance: Instance, name: str) -> str:
    return instance.say("qvm-ls", "--raw-data", "--fields", "state", name).strip()


def _machines_of(instance: Instance, name: str) -> list[int]:
    """Processes of both layers of a qube's machine."""
    uuid = instance.say("qvm-prefs", name, "uuid").strip().encode()
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"qube-" + uuid in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def test_a_killed_machine_is_told_of_and_leaves_nothing(
    instance: Instance, qubes: tuple[str, str]
) -> None:
    name = qubes[1]
    with instance.running("qvm-run", "-p", "-q", name, "cat") as open_call:
        _echo(open_call, b"up\n")
        with Listener(instance) as events:
            os.kill(_pids(instance)[name], signal.SIGKILL)
            events.wait(name, "domain-stopped")
            events.wait(name, "domain-shutdown")
        open_call.communicate(timeout=30)
        assert open_call.returncode == 255
    assert "Halted" in instance.say("qvm-ls", "--raw-data", name)
    assert not _machines_of(instance, name)
    assert instance.say("qvm-run", "-p", name, "echo back") == "back\n"


def test_a_killed_disposable_is_removed(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "red", "dvm-faults")
    instance.say("qvm-prefs", "dvm-faults", "template_for_dispvms", "True")
    words = ("qvm-run", "-p", "-q", "--dispvm=dvm-faults", "hostname; cat")
    with instance.running(*words) as process:
        assert process.stdout is not None
        name = process.stdout.readline().decode().strip()
        with Listener(instance) as events:
            os.kill(_pids(instance)[name], signal.SIGKILL)
            events.wait("", "domain-delete", vm=name)
        process.communicate(timeout=30)
        assert process.returncode == 255
    assert name not in instance.say("qvm-ls", "--raw-list")
    instance.remove("dvm-faults")


def test_no_room_on_the_disk_is_said_and_loses_nothing(
    instance: Instance, qubes: tuple[str, str]
) -> None:
    name = qubes[0]
    instance.say("qvm-run", "-p", name, "echo kept > note")
    instance.say("qvm-shutdown", "--wait", name)
    with _no_room(instance.home / "volatile", instance.status()["pid"]):
        failed = instance.command("qvm-start", name)
        assert failed.returncode == 1
        assert b"no space left" in failed.stderr
        assert b"volatile" in failed.stderr
        assert "Halted" in instance.say("qvm-ls", "--raw-data", name)
        assert instance.say("qvm-run", "-p", qubes[1], "echo unharmed") == "unharmed\n"
    assert instance.say("qvm-run", "-p", name, "cat note") == "kept\n"


@contextmanager
def _no_room(place: Path, pid: int) -> Iterator[None]:
    """A full file system at place for the length of the block, where a process sees it."""
    options = f"size=8k,mode=700,uid={os.getuid()},gid={os.getgid()}"
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    there = [*as_root, "nsenter", "--target", str(pid), "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    subprocess.run([*there, *mount], check=True)
    try:
        seen = Path(f"/proc/{pid}/root", *place.parts[1:])
        with (seen / "filling").open("wb", buffering=0) as filling:
            while True:
                try:
                    filling.write(bytes(4096))
                except OSError:
                    break
        yield
    finally:
        subprocess.run([*there, "umount", str(place)], check=True)


def test_bytes_that_are_no_request_harm_nobody(instance: Instance, qubes: tuple[str, str]) -> None:
    for garbage in (b"", b"\0", b"x" * 70_000, b"admin.vm.List dom0 name dom0", b"\xff\0\xff"):
        assert instance.ask_raw(garbage) == b""
    request = encode_request("admin.vm.List", "", "dom0")
    assert b"class=AdminVM" in instance.ask_raw(request)
    assert instance.say("qvm-run", "-p", qubes[0], "echo fine") == "fine\n"


def test_a_qube_that_sends_anything_on_its_control_port_harms_itself_alone(
    instance: Instance, qubes: tuple[str, str]
) -> None:
    """Root of a qube takes the agent's place at the port, which breaks that qube's link."""
    spoil = (
        "systemctl stop insula-agent; "
        "exec 3<>/dev/virtio-ports/org.insula.control; "
        "head -c 1000000 /dev/urandom >&3; sleep 1"
    )
    spoiled = f"systemd-run --collect sh -c '{spoil}'"
    instance.command("qvm-run", "-p", "-q", "-u", "root", qubes[0], spoiled, timeout=60)
    for _ in range(5):
        assert instance.say("qvm-run", "-p", qubes[1], "echo fine") == "fine\n"
    wait_for(
        lambda: instance.command("qvm-run", "-p", qubes[0], "true", timeout=60).returncode != 0,
        "a refused call to the qube that broke its link",
    )
    instance.say("qvm-kill", qubes[0])
    assert instance.say("qvm-run", "-p", qubes[0], "echo anew") == "anew\n"


def test_a_paused_qube_is_still_paused_for_the_next_daemon(
    instance: Instance, qubes: tuple[str, str]
) -> None:
    name = qubes[0]
    instance.say("qvm-pause", name)
    os.kill(instance.status()["pid"], signal.SIGKILL)
    instance.up()
    wait_for(lambda: _state(instance, name) == "Paused", "the paused qube")
    instance.say("qvm-unpause", name)
    assert instance.say("qvm-run", "-p", name, "echo on") == "on\n"
