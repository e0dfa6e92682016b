"""A disposable that was started ahead of its use is one like any other once it is used."""

import time
from collections.abc import Iterator

import pytest

from tests.vm.instance import Instance, wait_for

LIMIT, DELAY, MEMBERS = "preload-dispvm-max", "preload-dispvm-delay", "preload-dispvm"
COMPLETED = "preload-dispvm-completed"


@pytest.fixture
def kept(instance: Instance) -> Iterator[str]:
    """A disposable template of which one disposable is to wait."""
    name = "kept"
    instance.say("qvm-create", "--label", "red", name)
    instance.say("qvm-prefs", name, "template_for_dispvms", "True")
    instance.say("qvm-features", name, DELAY, "60")
    instance.say("qvm-features", name, LIMIT, "1")
    yield name
    instance.say("qvm-features", name, LIMIT, "0")
    instance.remove(name)


def _feature(instance: Instance, qube: str, name: str) -> str:
    return instance.command("qvm-features", qube, name).stdout.decode().strip()


def _waiting(instance: Instance, template: str) -> str:
    """The name of the one that waits, once it does."""

    def waits() -> bool:
        name = _feature(instance, template, MEMBERS)
        return bool(name) and bool(_feature(instance, name, COMPLETED))

    wait_for(waits, "a disposable that waits")
    return _feature(instance, template, MEMBERS)


def test_a_call_gets_the_disposable_that_waits(instance: Instance, kept: str) -> None:
    name = _waiting(instance, kept)
    assert f"{name}|Paused" in instance.say("qvm-ls", "--raw-data", "--fields", "name,state")
    said = instance.say(
        "qvm-run", "-p", f"--dispvm={kept}", "hostname; date +%s; cat /etc/machine-id"
    )
    host, seconds, machine_id = said.split()
    assert host == name
    assert abs(int(seconds) - time.time()) < 10
    assert len(machine_id) == 32
    wait_for(lambda: name not in instance.say("qvm-ls", "--raw-list"), "its end")
    other = instance.say("qvm-run", "-p", f"--dispvm={kept}", "hostname").strip()
    assert other != name


def test_what_waits_goes_with_the_instance_and_comes_again(instance: Instance, kept: str) -> None:
    name = _waiting(instance, kept)
    instance.down()
    instance.up()
    wait_for(lambda: _feature(instance, kept, MEMBERS) not in ("", name), "another one")
    assert name not in instance.say("qvm-ls", "--raw-list")
    _waiting(instance, kept)
