"""Calls from qube to qube: decided by the policy, connected, and over without leaving anything."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from insula.daemon.model.qube import PowerState, Qube
from tests.serving import TIMEOUT, Instance, serving, user

REFUSED = 126


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as one:
        await one.template()
        for name in ("work", "vault"):
            await one.qube(name, default_user=user())
        yield one


def rule(instance: Instance, *lines: str) -> None:
    """Make these the first rules."""
    (instance.home / "policy.d" / "30-user.policy").write_text("\n".join(lines) + "\n")


def service(instance: Instance, name: str, script: str, *, where: str = "services") -> Path:
    """A service that any qube has, or dom0."""
    path = instance.home / where / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def calling(
    instance: Instance, source: Qube, target: str, called: str, *options: str
) -> asyncio.subprocess.Process:
    """A program of a qube that calls a service."""
    agent = instance.run / "qubes" / str(source.uuid) / "ports" / "agent"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "insula.guest.client_vm", *options, target, called),
        env={**os.environ, "INSULA_AGENT_SOCKET": str(agent)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def call(
    instance: Instance,
    source: Qube,
    target: str,
    called: str,
    payload: bytes = b"",
    *options: str,
) -> tuple[int, bytes, bytes]:
    """A program of a qube calls a service: its exit code, output and error messages."""
    process = await calling(instance, source, target, called, *options)
    async with asyncio.timeout(TIMEOUT):
        output, errors = await process.communicate(payload)
    return process.returncode or 0, output, errors


@pytest.fixture(autouse=True)
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QREXEC_SERVICE_PATH", str(tmp_path / "home" / "services"))


async def _started(instance: Instance, name: str) -> Qube:
    qube = instance.system.named(name)
    await instance.power.start(qube)
    return qube


async def _idle(instance: Instance) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not all(one.calls.idle for one in instance.world.running.values()):
            await asyncio.sleep(0.01)


async def test_an_allowed_call_passes_data_both_ways_and_the_exit_code(instance: Instance) -> None:
    rule(instance, "test.Shout * work vault allow")
    service(instance, "test.Shout", "tr a-z A-Z; echo $QREXEC_REMOTE_DOMAIN $1 >&2; exit 7")
    work = await _started(instance, "work")
    code, output, errors = await call(instance, work, "vault", "test.Shout+now", b"hello" * 50_000)
    assert (code, output) == (7, b"HELLO" * 50_000)
    assert errors == b"work now\n"
    assert instance.system.named("vault").power is PowerState.RUNNING
    await _idle(instance)


async def test_what_no_rule_allows_is_refused(instance: Instance) -> None:
    service(instance, "test.Shout", "cat")
    work = await _started(instance, "work")
    code, output, errors = await call(instance, work, "vault", "test.Shout")
    assert (code, output, errors) == (REFUSED, b"", b"Request refused\n")
    assert instance.system.named("vault").power is PowerState.HALTED


async def test_a_policy_that_does_not_parse_refuses_everything(instance: Instance) -> None:
    rule(instance, "test.Shout * work vault allow", "nonsense")
    service(instance, "test.Shout", "cat")
    work = await _started(instance, "work")
    assert (await call(instance, work, "vault", "test.Shout"))[0] == REFUSED
    rule(instance, "test.Shout * work vault allow")
    assert await call(instance, work, "vault", "test.Shout", b"x") == (0, b"x", b"")


async def test_a_service_that_is_not_there_exits_with_127(instance: Instance) -> None:
    rule(instance, "test.Nothing * work vault allow")
    work = await _started(instance, "work")
    assert (await call(instance, work, "vault", "test.Nothing"))[0] == 127


async def test_without_autostart_a_halted_target_is_refused(instance: Instance) -> None:
    rule(instance, "test.Shout * work vault allow autostart=no")
    service(instance, "test.Shout", "cat")
    work = await _started(instance, "work")
    assert (await call(instance, work, "vault", "test.Shout"))[0] == REFUSED
    await _started(instance, "vault")
    assert (await call(instance, work, "vault", "test.Shout", b"x"))[:2] == (0, b"x")


async def test_a_service_of_dom0_knows_what_was_asked_for(instance: Instance) -> None:
    rule(instance, "test.Who * work vault allow target=dom0")
    script = "echo $QREXEC_REMOTE_DOMAIN $QREXEC_REQUESTED_TARGET_TYPE $QREXEC_REQUESTED_TARGET $1"
    service(instance, "test.Who", script, where="qubes-rpc")
    work = await _started(instance, "work")
    assert await call(instance, work, "vault", "test.Who+x") == (0, b"work name vault x\n", b"")
    await _idle(instance)


async def test_dom0_tells_the_time(instance: Instance) -> None:
    rule(instance, "qubes.GetDate * work @default allow target=dom0")
    work = await _started(instance, "work")
    code, output, _ = await call(instance, work, "@default", "qubes.GetDate")
    assert code == 0
    assert abs(datetime.fromisoformat(output.decode().strip()).timestamp() - time.time()) < TIMEOUT


async def test_the_admin_api_is_a_qubes_where_the_policy_says_so(instance: Instance) -> None:
    work = await _started(instance, "work")
    assert (await call(instance, work, "vault", "admin.vm.property.Get+label"))[0] == REFUSED
    rule(instance, "admin.vm.property.Get +label work vault allow target=dom0")
    code, output, _ = await call(instance, work, "vault", "admin.vm.property.Get+label")
    assert (code, output) == (0, b"0\0default=False type=label blue")
    assert (await call(instance, work, "work", "admin.vm.property.Get+label"))[0] == REFUSED


async def test_a_disposable_is_there_for_one_call(instance: Instance) -> None:
    mould = await instance.disposables()
    await instance.ok("admin.vm.property.Set", mould.name, "default_user", user().encode())
    rule(instance, "test.Shout * work @dispvm allow")
    service(instance, "test.Shout", "tr a-z A-Z")
    work = await _started(instance, "work")
    before = set(instance.system.qubes)
    assert (await call(instance, work, "@dispvm", "test.Shout", b"once"))[:2] == (0, b"ONCE")
    async with asyncio.timeout(TIMEOUT):
        while set(instance.system.qubes) != before:
            await asyncio.sleep(0.01)


async def test_many_calls_at_once_are_all_answered(instance: Instance) -> None:
    rule(instance, "test.Echo * work vault allow")
    service(instance, "test.Echo", 'echo "$1"')
    work = await _started(instance, "work")
    await _started(instance, "vault")
    calls = (call(instance, work, "vault", f"test.Echo+{number}") for number in range(40))
    for number, outcome in enumerate(await asyncio.gather(*calls)):
        assert outcome[:2] == (0, f"{number}\n".encode())
    await _idle(instance)


async def test_a_call_ends_when_its_target_does(instance: Instance) -> None:
    rule(instance, "test.Wait * work vault allow")
    service(instance, "test.Wait", f"echo up; sleep {int(TIMEOUT) * 10}")
    work, vault = await _started(instance, "work"), await _started(instance, "vault")
    caller = await calling(instance, work, "vault", "test.Wait")
    assert caller.stdout is not None
    async with asyncio.timeout(TIMEOUT):
        assert await caller.stdout.readline() == b"up\n"
        await instance.power.kill(vault)
        await caller.communicate()
    assert caller.returncode == 255
    await _idle(instance)


async def test_a_qube_that_manages_the_policy_gets_plain_answers(instance: Instance) -> None:
    rule(instance, "policy.Get * work dom0 allow", "policy.Replace * work dom0 allow")
    work = await _started(instance, "work")
    code, output, _ = await call(instance, work, "dom0", "policy.Get+35-compat")
    assert code == 0
    assert output.startswith(b"sha256:")
    assert output.endswith(b"!compat-4.0\n")
    refused = await call(instance, work, "dom0", "policy.Replace+35-compat", b"new\n")
    assert refused[0] == 1
    refused = await call(instance, work, "dom0", "policy.Get+nothing")
    assert refused[:2] == (1, b"")


async def _agent(instance: Instance, answer: bytes, asked: list[bytes]) -> asyncio.Server:
    """A program of the person's session that answers every question alike."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read())
        writer.write(answer)
        writer.close()

    return await asyncio.start_unix_server(serve, instance.run / "policy-agent.sock")


async def test_a_person_chooses_among_what_is_offered(instance: Instance) -> None:
    rule(instance, "test.Shout * work @anyvm ask default_target=vault")
    service(instance, "test.Shout", "tr a-z A-Z")
    work = await _started(instance, "work")
    asked: list[bytes] = []
    async with await _agent(instance, b"allow:vault", asked):
        assert (await call(instance, work, "@default", "test.Shout+x", b"yes"))[:2] == (0, b"YES")
    header, _, body = asked[0].partition(b"\0")
    assert header == b"policy.Ask dom0 name dom0"
    question = json.loads(body)
    assert question["source"] == "work"
    assert (question["service"], question["argument"]) == ("test.Shout", "+x")
    assert question["default_target"] == "vault"
    assert "vault" in question["targets"]
    assert question["icons"]["vault"].startswith("appvm-")


@pytest.mark.parametrize("answer", [b"deny", b"allow:work", b"allow:nobody", b"", b"\xff"])
async def test_any_other_answer_is_a_no(instance: Instance, answer: bytes) -> None:
    rule(instance, "test.Shout * work @anyvm ask")
    service(instance, "test.Shout", "cat")
    work = await _started(instance, "work")
    async with await _agent(instance, answer, []):
        assert (await call(instance, work, "vault", "test.Shout"))[0] == REFUSED


async def test_with_nobody_to_ask_a_call_is_refused(instance: Instance) -> None:
    rule(instance, "test.Shout * work @anyvm ask")
    work = await _started(instance, "work")
    assert (await call(instance, work, "vault", "test.Shout"))[0] == REFUSED
