"""Qubes from their creation to their end, by the commands a person uses."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.vm.instance import Instance, wait_for

CHANGED = "/usr/share/changed-in-the-template"


@pytest.fixture
def app(instance: Instance) -> Iterator[str]:
    """An app qube, removed afterwards."""
    name = "app"
    instance.say("qvm-create", "--label", "blue", name)
    yield name
    instance.command("qvm-kill", name)
    instance.remove(name)


@pytest.fixture
def dvm(instance: Instance) -> Iterator[str]:
    """A disposable template, which is the default."""
    name = "dvm"
    instance.say("qvm-create", "--label", "red", name)
    instance.say("qvm-prefs", name, "template_for_dispvms", "True")
    instance.say("qubes-prefs", "default_dispvm", name)
    yield name
    instance.say("qubes-prefs", "--default", "default_dispvm")
    instance.remove(name)


def test_home_is_kept_and_root_is_not(instance: Instance, app: str) -> None:
    instance.say("qvm-start", app)
    instance.say("qvm-run", "-p", app, "echo kept > note; hostname; id -un")
    instance.say("qvm-run", "-p", "-u", "root", app, "touch /etc/lost")
    instance.say("qvm-shutdown", "--wait", app)
    assert instance.say("qvm-run", "-p", app, "cat note; ls /etc/lost || true") == "kept\n"


def test_a_qube_has_the_processors_it_was_told(instance: Instance, app: str) -> None:
    instance.say("qvm-prefs", app, "vcpus", "3")
    instance.say("qvm-start", app)
    wait_for(lambda: instance.say("qvm-run", "-p", app, "nproc") == "3\n", "its processors")


def test_a_qube_knows_who_it_is(instance: Instance, app: str) -> None:
    said = instance.say("qvm-run", "-p", app, "hostname; id -un; pwd; cat /etc/machine-id")
    name, user, home, machine_id = said.split()
    assert (name, user, home) == (app, "user", "/home/user")
    other = instance.say(
        "qvm-run", "-p", "--dispvm=" + _disposable(instance), "cat /etc/machine-id"
    )
    assert machine_id != other.strip()


def _disposable(instance: Instance) -> str:
    """The name of a disposable template made for one test."""
    name = f"dvm{time.monotonic_ns() % 100_000}"
    instance.say("qvm-create", "--label", "red", name)
    instance.say("qvm-prefs", name, "template_for_dispvms", "True")
    return name


def test_commands_have_their_streams_and_exit_codes(instance: Instance, app: str) -> None:
    done = instance.command("qvm-run", "-p", app, "cat; echo no >&2; exit 7", given=b"in" * 99_999)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in" * 99_999, b"no\n")
    assert instance.command("qvm-run", "-p", app, "--", "/no/such/program").returncode != 0
    assert instance.command("qvm-run", "-p", "-u", "nobody-of-that-name", app, "true").returncode


def test_many_calls_at_once_all_answer(instance: Instance, app: str) -> None:
    instance.say("qvm-start", app)
    with ExitStack() as stack:
        calls = [
            stack.enter_context(instance.running("qvm-run", "-p", app, f"echo {number}"))
            for number in range(40)
        ]
        answers = [call.communicate(timeout=120)[0] for call in calls]
    assert answers == [f"{number}\n".encode() for number in range(40)]


def test_a_disposable_is_of_its_own_and_vanishes(instance: Instance, dvm: str) -> None:
    before = set(_files(instance))
    write = "hostname; dd if=/dev/urandom bs=1M count=4 of=big 2>/dev/null; sync; read line"
    with instance.running("qvm-run", "-p", "-q", "--dispvm", "--", write) as process:
        assert process.stdout is not None
        name = process.stdout.readline().decode().strip()
        listed = instance.say("qvm-ls", "--raw-data", "--fields", "name,state,class,template")
        assert f"{name}|Running|DispVM|{dvm}" in listed
        assert not (set(_files(instance)) - before)
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0
    wait_for(lambda: name not in instance.say("qvm-ls", "--raw-list"), "its end", timeout=5)
    wait_for(lambda: set(_files(instance)) == before, "the end of its files", timeout=5)
    wait_for(lambda: not list((instance.run / "qubes").iterdir()), "its sockets' end", timeout=5)


def _files(instance: Instance) -> Iterator[Path]:
    """Files of volumes; what a disposable writes has no name even while it runs."""
    for folder in ("volumes", "volatile"):
        yield from (path for path in (instance.home / folder).rglob("*") if path.is_file())


def test_states_are_entered_and_refused(instance: Instance, app: str) -> None:
    assert instance.command("qvm-shutdown", app).returncode == 0  # halted already, nothing to do
    assert instance.command("qvm-pause", app).returncode == 1
    instance.say("qvm-start", app)
    assert instance.command("qvm-start", app).returncode == 1
    instance.say("qvm-start", "--skip-if-running", app)
    assert instance.command("qvm-remove", "--force", app).returncode == 1
    instance.say("qvm-pause", app)
    assert _state(instance, app) == "Paused"
    instance.say("qvm-unpause", app)
    assert instance.say("qvm-run", "-p", app, "echo on") == "on\n"
    instance.say("qvm-kill", app)
    assert _state(instance, app) == "Halted"


def test_a_pause_leaves_the_right_time(instance: Instance, app: str) -> None:
    instance.say("qvm-start", app)
    instance.say("qvm-pause", app)
    paused = time.monotonic()
    wait_for(lambda: time.monotonic() - paused > 3, "a pause that can be told from latency")
    instance.say("qvm-unpause", app)
    clock = float(instance.say("qvm-run", "-p", app, "date +%s.%N"))
    assert abs(clock - time.time()) < 2


def _state(instance: Instance, name: str) -> str:
    return instance.say("qvm-ls", "--raw-data", "--fields", "state", name).strip()


def test_a_clone_has_as_much_memory_as_it_is_given(instance: Instance, app: str) -> None:
    total = "sed -n 's/MemTotal: *//p' /proc/meminfo"
    small = int(instance.say("qvm-run", "-p", app, total).split()[0])
    instance.say("qvm-shutdown", "--wait", app)
    instance.say("qvm-prefs", app, "memory", "1536")
    instance.say("qvm-start", app)
    wait_for(
        lambda: int(instance.say("qvm-run", "-p", app, total).split()[0]) - small >= 1000 * 1024,
        "the memory that was added",
    )
    use = "head -c 900M /dev/zero > /dev/shm/large; stat -c %s /dev/shm/large"
    assert instance.say("qvm-run", "-p", app, use) == f"{900 << 20}\n"


def test_changes_of_a_template_reach_its_qubes_at_their_next_start(
    instance: Instance, app: str
) -> None:
    instance.say("qvm-start", app)
    instance.say("qvm-run", "-p", "-u", "root", "debian-12", f"echo new > {CHANGED}", timeout=300)
    assert instance.command("qvm-run", "-p", app, f"cat {CHANGED}").returncode == 1
    instance.say("qvm-shutdown", "--wait", "debian-12", timeout=120)
    instance.say("qvm-shutdown", "--wait", app)
    # Its snapshot does not match any more: it boots, while another snapshot is made.
    assert instance.say("qvm-run", "-p", app, f"cat {CHANGED}", timeout=300) == "new\n"
    wait_for(lambda: _snapshots(instance) == (1, 0), "the next snapshot", timeout=300)
    instance.say("qvm-shutdown", "--wait", app)
    begun = time.monotonic()
    assert instance.say("qvm-run", "-p", app, f"cat {CHANGED}") == "new\n"
    cloned = time.monotonic() - begun
    assert cloned < 15, "a clone, not a boot"


def _snapshots(instance: Instance) -> tuple[int, int]:
    status = instance.status()
    return status["snapshots"], status["building"]
