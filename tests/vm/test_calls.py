"""Calls from one running qube to another: real agents, real ports, the instance's policy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.instance import Instance, wait_for

REFUSED = 126
_SHOUT = (
    "mkdir -p /usr/local/etc/qubes-rpc && cd /usr/local/etc/qubes-rpc && "
    "printf '#!/bin/sh\\ntr a-z A-Z; echo $QREXEC_REMOTE_DOMAIN $1 >&2; exit 7\\n' > test.Shout && "
    "printf '#!/bin/sh\\nexec cat\\n' > test.Echo && chmod 755 test.Shout test.Echo"
)


@pytest.fixture(scope="module")
def policy(instance: Instance) -> Path:
    """The person's own rules, which are tried first."""
    return instance.home / "policy.d" / "30-user.policy"


@pytest.fixture(scope="module", autouse=True)
def pair(instance: Instance, policy: Path) -> Iterator[None]:
    """A qube that calls, and one that has services."""
    before = policy.read_bytes()
    for name in ("caller", "callee"):
        instance.say("qvm-create", "--label", "blue", name)
    instance.say("qvm-run", "-u", "root", "callee", _SHOUT)
    yield
    policy.write_bytes(before)
    for name in ("caller", "callee"):
        instance.command("qvm-kill", name)
        instance.remove(name)


def test_a_qube_calls_another_as_the_policy_allows(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Shout * caller callee allow\n")
    call = "printf hello | qrexec-client-vm callee test.Shout+now; echo $?"
    assert instance.say("qvm-run", "-p", "caller", call) == "HELLO7\n"
    policy.write_text("")
    assert instance.say("qvm-run", "-p", "caller", call) == f"{REFUSED}\n"


def test_much_data_goes_there_and_back_unchanged(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Echo * caller callee allow\n")
    said = instance.say(
        "qvm-run",
        "-p",
        "caller",
        "head -c 20000000 /dev/urandom > sent; "
        "qrexec-client-vm callee test.Echo < sent > got; echo $?; cmp sent got && echo same",
    )
    assert said == "0\nsame\n"


def test_many_calls_at_once_are_all_answered(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Echo * caller callee allow\n")
    said = instance.say(
        "qvm-run",
        "-p",
        "caller",
        "for n in $(seq 12); do echo $n | qrexec-client-vm callee test.Echo & done; wait",
    )
    assert sorted(map(int, said.split())) == list(range(1, 13))


def test_a_program_is_connected_with_a_service(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Echo * caller callee allow\n")
    program = "echo up; read line; echo $line >&$SAVED_FD_1; exit 3"
    call = f"qrexec-client-vm callee test.Echo /bin/bash -c '{program}'; echo $?"
    assert instance.say("qvm-run", "-p", "caller", call) == "up\n3\n"


def test_dom0_tells_the_time_and_little_else(instance: Instance) -> None:
    said = instance.say(
        "qvm-run",
        "-p",
        "caller",
        "qrexec-client-vm @default qubes.GetDate; qrexec-client-vm dom0 admin.vm.List; echo $?",
    )
    date, refused = said.split()
    assert date.endswith("+00:00")
    assert refused == str(REFUSED)


def test_a_disposable_serves_one_call(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "red", "mould")
    try:
        instance.say("qvm-prefs", "mould", "template_for_dispvms", "True")
        instance.say("qvm-prefs", "caller", "default_dispvm", "mould")
        before = instance.say("qvm-ls", "--raw-list")
        call = "echo 'hostname; exit 5' | qrexec-client-vm @dispvm qubes.VMShell; echo $?"
        name, code = instance.say("qvm-run", "-p", "caller", call).split()
        assert name.startswith("disp")
        assert code == "5"
        wait_for(lambda: instance.say("qvm-ls", "--raw-list") == before, "its end")
    finally:
        instance.say("qvm-prefs", "--default", "caller", "default_dispvm")
        instance.remove("mould")
