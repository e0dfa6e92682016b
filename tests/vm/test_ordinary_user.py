"""An ordinary user's instance: all its processes are one user's, and do what root's do."""

import asyncio
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from insula.keeper.client import KeeperClient, Listed
from insula.protocol.keeper import Facts
from tests.desktop.joined import XServer
from tests.vm.instance import BUILD_TIMEOUT, Instance, wait_for
from tests.vm.ordinary import instance_of

PERSON = 764_400_000 if os.geteuid() == 0 else os.geteuid()
JAIL_LIMIT = 512  # threads
OWN = ("user", "mnt", "pid", "net", "ipc", "uts")


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An ordinary user's instance that is up, with the template debian-12 and a snapshot."""
    with ExitStack() as stack:
        if os.geteuid() == 0:
            made = stack.enter_context(instance_of(PERSON))
        else:
            made = Instance.make(tmp_path_factory.mktemp("person"))
        made.up()
        stack.callback(made.down)
        made.say("insula", "template", "build", "debian-12", timeout=BUILD_TIMEOUT)
        yield made


@pytest.fixture(autouse=True)
def logs_of_a_failure(request: pytest.FixtureRequest, person: Instance) -> Iterator[None]:
    """Show this instance's logs, and not the root's one, when a test failed."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(person.logs())


@pytest.fixture
def qubes(person: Instance) -> Iterator[tuple[str, str]]:
    """Two running app qubes."""
    names = ("one", "two")
    for name in names:
        person.say("qvm-create", "--label", "green", name)
        person.say("qvm-start", name)
    yield names
    for name in names:
        person.command("qvm-kill", name)
        person.say("qvm-remove", "--force", name)


@pytest.fixture
def disposables(person: Instance) -> Iterator[str]:
    """A template of disposables."""
    person.say("qvm-create", "--label", "red", "dvm")
    person.say("qvm-prefs", "dvm", "template_for_dispvms", "True")
    yield "dvm"
    person.remove("dvm")


def held(instance: Instance) -> dict[str, Listed]:
    """Processes that the keeper knows of."""

    async def ask() -> dict[str, Listed]:
        client = await KeeperClient.connect(instance.run / "keeper.sock")
        try:
            return await client.list()
        finally:
            await client.close()

    return asyncio.run(ask())


def facts(instance: Instance) -> dict[str, Facts]:
    """What holds of each machine and viewer."""

    async def ask() -> dict[str, Facts]:
        client = await KeeperClient.connect(instance.run / "keeper.sock")
        try:
            return {name: await client.verify(name) for name in await client.list()}
        finally:
            await client.close()

    return asyncio.run(ask())


def test_a_private_volume_outlives_a_restart(person: Instance, qubes: tuple[str, str]) -> None:
    said = person.say("qvm-run", "-p", qubes[0], "echo kept > note; id -un; hostname")
    assert said == f"user\n{qubes[0]}\n"
    person.say("qvm-shutdown", "--wait", qubes[0])
    assert person.say("qvm-run", "-p", qubes[0], "cat note") == "kept\n"
    assert person.say("qvm-run", "-p", "-u", "root", qubes[0], "id -un") == "root\n"


def test_nothing_is_left_of_a_disposable(person: Instance, disposables: str) -> None:
    name = person.say("qvm-run", "-p", f"--dispvm={disposables}", "--", "hostname").strip()
    assert name.startswith("disp")
    wait_for(lambda: name not in person.say("qvm-ls", "--raw-list"), "its end")
    assert held(person) == {}
    assert not list((person.run / "qubes").iterdir())


def test_qubes_of_one_user_are_kept_apart(person: Instance, qubes: tuple[str, str]) -> None:
    found = facts(person)
    assert len(found) == len(qubes)
    for one in found.values():
        assert set(one.uids) == {PERSON}
        assert one.capabilities == 0
        assert (one.no_new_privs, one.seccomp, one.seccomp_filters) == (True, 2, 2)
        assert set(OWN) <= set(one.namespaces)
        assert not any(descriptor.reopens for descriptor in one.descriptors)
        assert not any(place == "/" and writable for place, writable in one.mounts)
    machines = [Path("/proc", str(one.pid)) for one in held(person).values()]
    for kind in OWN:
        assert len({(place / "ns" / kind).stat().st_ino for place in machines}) == len(machines)
    for place in machines:
        limits = (place / "limits").read_text().splitlines()
        (threads,) = (line.split()[2] for line in limits if line.startswith("Max processes"))
        assert int(threads) == JAIL_LIMIT


def test_status_tells_what_a_jailed_machine_uses(person: Instance, qubes: tuple[str, str]) -> None:
    running = {one["name"]: one for one in person.status()["running"]}
    assert set(running) == set(qubes)
    for one in running.values():
        assert one["private"] > 1 << 20
        assert one["shared"] > 0


def test_a_window_is_shown(person: Instance, qubes: tuple[str, str]) -> None:
    with XServer.started("800x600x24") as server, server.program("openbox", "--sm-disable"):
        server.wait_for_window_manager()
        with person.on_display(server.display), person.running("insula", "session"):
            terminal = "xterm -T shown -xrm '*allowTitleOps: false'"
            with person.running("qvm-run", "-q", qubes[0], terminal):
                wait_for(lambda: server.framed("shown"), "a window")
            viewers = [one for name, one in facts(person).items() if name.startswith("viewer-")]
            assert [set(one.uids) for one in viewers] == [{PERSON}] * len(qubes)


def test_a_daemon_that_was_killed_takes_qubes_over(
    person: Instance, qubes: tuple[str, str]
) -> None:
    before = held(person)
    os.kill(person.status()["pid"], signal.SIGKILL)
    person.up()
    assert held(person) == before
    for name in qubes:
        assert person.say("qvm-run", "-p", name, "hostname") == f"{name}\n"


def test_nobody_else_can_reach_what_is_kept(person: Instance) -> None:
    for place in (person.home, person.run):
        found = place.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (PERSON, 0o700)


@pytest.mark.usefixtures("qubes")
def test_down_leaves_nothing(person: Instance) -> None:
    pids = [person.status()["pid"], *(one.pid for one in held(person).values())]
    person.say("insula", "down")
    wait_for(lambda: not any(map(_runs, pids)), "the end of all processes")
    if os.geteuid() != PERSON:
        wait_for(lambda: not _processes_of(PERSON), "the end of all processes of the user")
    assert not list(person.run.glob("*.sock"))
    assert not list((person.run / "qubes").iterdir())
    assert not list((person.home / "volatile").iterdir())
    person.up()
    assert person.status()["running"] == []


def _runs(pid: int) -> bool:
    """Whether a process runs; one that only waits to be waited for has no words."""
    try:
        return bool(Path("/proc", str(pid), "cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def _processes_of(user: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError):
            if place.stat().st_uid == user and _runs(int(place.name)):
                found.append(int(place.name))
    return found
