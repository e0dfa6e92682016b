"""What a hostile qube may send or leave unsent: others go on, and nothing of it stays."""

import asyncio
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from insula.daemon.lifecycle import policy_agent, routing
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.rpc import agent_link, calls
from insula.daemon.rpc.pace import Pace
from insula.daemon.rpc.services import MOST_RECEIVED, call_service
from insula.protocol.control import (
    AgentHello,
    AgentState,
    ControlType,
    Key,
    Seeded,
    Session,
    Status,
)
from insula.protocol.errors import ReportableError
from insula.protocol.frames import HEADER, frame
from insula.protocol.links import LinkStatus
from insula.protocol.qrexec import ExecParameters, MessageType, hello
from insula.protocol.resync import CONTROL_PREFIX
from tests.hostile import (
    HostileEngine,
    HostileMachine,
    hostile,
    started,
    starting,
    trigger,
)
from tests.serving import TIMEOUT, Instance, serving, user
from tests.unit.lifecycle.conftest import until
from tests.unit.lifecycle.test_routing import call, rule, service

_SHORT = 0.2  # seconds, where a limit of the daemon's own has to pass


@pytest_asyncio.fixture
async def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    """Work may call vault, bad and vault each other; whatever happens, nothing is left."""
    monkeypatch.setenv("QREXEC_SERVICE_PATH", str(tmp_path / "home" / "services"))
    descriptors, tasks = descriptors_open(), asyncio.all_tasks()
    async with serving(tmp_path / "home", engine=HostileEngine()) as one:
        await one.template()
        for name in ("work", "vault"):
            await one.qube(name, default_user=user())
            await one.power.start(one.system.named(name))
        rule(one, "test.Echo * @anyvm vault allow", "test.Echo * vault bad allow")
        service(one, "test.Echo", 'echo "$1"')
        yield one
    assert asyncio.all_tasks() - {asyncio.current_task()} <= tasks
    assert descriptors_open() <= descriptors


def descriptors_open() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def echo(instance: Instance, source: str = "work", target: str = "vault") -> float:
    """A call of others, which has to succeed: seconds that it takes."""
    begun = time.monotonic()
    outcome = await call(instance, instance.system.named(source), target, "test.Echo+yes")
    assert outcome == (0, b"yes\n", b"")
    return time.monotonic() - begun


async def end(instance: Instance, name: str = "bad") -> None:
    """Kill a qube: nothing that it did keeps that from being done soon."""
    begun = time.monotonic()
    async with asyncio.timeout(TIMEOUT):
        await instance.power.kill(instance.system.named(name))
    assert time.monotonic() - begun < TIMEOUT / 2


async def quiet(instance: Instance) -> tuple[int, int]:
    """Descriptors and tasks of the daemon once no call is under way."""
    await until(lambda: all(one.calls.idle for one in instance.world.running.values()))
    await asyncio.sleep(_SHORT)
    return descriptors_open(), len(asyncio.all_tasks())


async def test_a_flood_of_requests_keeps_nobody_waiting(
    instance: Instance, record_property: Callable[[str, object], None]
) -> None:
    """As many as fit, from a process of its own."""
    bad = await started(instance, "bad")
    before = await quiet(instance)
    alone = sorted([await echo(instance) for _ in range(5)])
    flood = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).parent / "flood.py"), str(bad.control.fileno())),
        pass_fds=(bad.control.fileno(),),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert flood.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            assert await flood.stdout.readline() == b"1000\n"
        beside = sorted([await echo(instance) for _ in range(5)])
    finally:
        flood.terminate()
        await flood.wait()
    record_property("quiet", alone)
    record_property("flooded", beside)
    print(f"a call quiet {alone[2] * 1000:.0f} ms, beside a flood {beside[2] * 1000:.0f} ms")
    assert beside[2] < 5 * alone[2] + 1
    await end(instance)
    descriptors, tasks = await quiet(instance)
    assert (descriptors, tasks) < before


async def test_ten_thousand_names_of_services_are_each_answered(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is given the time for that; else it waits, as others would for it."""
    monkeypatch.setattr(agent_link, "Pace", partial(Pace, share=1.0, burst=TIMEOUT))
    bad = await started(instance, "bad")
    many = range(10_000)
    sent = b"".join(trigger("vault", f"test.Name{number}", number) for number in many)
    saying = asyncio.create_task(bad.say(sent))
    refused = [await bad.heard(MessageType.SERVICE_REFUSED) for _ in many]
    assert len(set(refused)) == len(many)
    await saying
    await echo(instance)
    await end(instance)


@pytest.mark.parametrize(
    "said",
    [
        Key(b"/qubes-block-devices/a", b"x" * 1000).encode(),
        Key(b"/a/").encode(),
        Status(0).encode(ControlType.READY),
        hello(),
        LinkStatus(7).encode(ControlType.LINKED),
        frame(MessageType.CONNECTION_TERMINATED, ExecParameters(0, 513).encode()),
        trigger("vault", "+"),
    ],
    ids=["key", "keys-gone", "ready", "hello", "card", "over", "no-service"],
)
async def test_messages_without_end_keep_nobody_waiting(instance: Instance, said: bytes) -> None:
    bad = await started(instance, "bad")
    tasks = len(asyncio.all_tasks())

    async def flood() -> None:
        while True:
            await bad.say(said * (65_536 // len(said)))

    async def hear() -> None:
        while await bad.hear() is not None:
            pass

    flooding = [asyncio.create_task(flood()), asyncio.create_task(hear())]
    try:
        for _ in range(3):
            await echo(instance)
        assert len(asyncio.all_tasks()) < tasks + 20
    finally:
        for one in flooding:
            one.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
    await end(instance)


async def test_one_that_reads_no_answer_is_not_heard(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much time it is given."""
    monkeypatch.setattr(agent_link, "Pace", partial(Pace, share=1.0, burst=TIMEOUT))
    bad = await started(instance, "bad")
    link = instance.world.running[instance.system.named("bad").uuid].link
    request, most = trigger("vault", "test.Nothing"), 16 << 20
    said, still = 0, 0
    async with asyncio.timeout(TIMEOUT):
        while still < 20 and said < most:  # Until for a while not a byte was taken.
            more = bad.say_at_once(request * 64, most)
            said, still = said + more, 0 if more else still + 1
            await asyncio.sleep(0.05)
    assert said < most
    assert link.open
    await echo(instance)
    await end(instance)


async def test_one_that_reads_nothing_does_not_keep_the_daemon_from_its_end(
    instance: Instance,
) -> None:
    await started(instance, "bad")
    link = instance.world.running[instance.system.named("bad").uuid].link
    link.send(frame(MessageType.SERVICE_REFUSED, bytes(2 * agent_link.MAX_QUEUED)))
    with pytest.raises(ReportableError, match="does not read"):
        link.set_clock()
    async with asyncio.timeout(agent_link.CLOSE_TIMEOUT + TIMEOUT):
        await link.close()
    assert not link.open


async def test_more_than_wait_are_refused(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by the length of their names; every request has one answer."""
    monkeypatch.setattr(routing, "MOST_WAITING", 50)
    monkeypatch.setattr(routing, "MOST_TEXT", 100_000)
    bad = await started(instance, "bad")
    sent = [trigger("vault", "test.Nothing", number) for number in range(200)]
    sent += [trigger("vault", "a" * 60_000, 200 + number) for number in range(20)]
    await bad.say(b"".join(sent))
    refused = {(await bad.heard(MessageType.SERVICE_REFUSED)) for _ in sent}
    assert refused == {(b"SOCKET%d" % number).ljust(32, b"\0") for number in range(220)}
    await bad.say(trigger("vault", "test.Nothing", 7))
    assert (await bad.heard(MessageType.SERVICE_REFUSED)).startswith(b"SOCKET7\0")
    await end(instance)


@pytest.mark.parametrize(
    "said",
    [
        HEADER.pack(MessageType.TRIGGER_SERVICE4, 65_537),
        HEADER.pack(MessageType.TRIGGER_SERVICE4, 2**32 - 1),
        frame(MessageType.TRIGGER_SERVICE4),
        frame(MessageType.TRIGGER_SERVICE4, bytes(160)),
        frame(MessageType.TRIGGER_SERVICE, bytes(500)),
        frame(MessageType.CONNECTION_TERMINATED, b"abc"),
        frame(MessageType.EXEC_CMDLINE, bytes(20)),
        frame(0),
        frame(2**32 - 1, b"x"),
        frame(ControlType.AGENT_HELLO, struct.pack("<III", 1, 3, 2**32 - 1)),
        frame(ControlType.SEEDED, b"ab"),
        frame(ControlType.READY, bytes(2000)),
        frame(ControlType.KEY, b"/no-value"),
        frame(ControlType.KEY_GONE, b"\xff" * 60_000),
        frame(ControlType.LINKED, b""),
        os.urandom(1 << 20),
    ],
)
async def test_who_breaks_the_protocol_is_not_heard_any_more(
    instance: Instance, said: bytes
) -> None:
    bad = await started(instance, "bad")
    with suppress(OSError):  # It is closed before all is said.
        await bad.say(said + trigger("vault", "test.Echo+x"))
    assert await _closed(bad)
    running = instance.world.running[instance.system.named("bad").uuid]
    assert not running.link.open
    assert instance.system.named("bad").power is PowerState.RUNNING
    with pytest.raises(ReportableError, match="closed"):
        running.link.set_clock()
    await echo(instance)
    await end(instance)


async def _closed(bad: HostileMachine) -> bool:
    while (raw := await bad.hear()) is not None:
        assert raw.type != MessageType.SERVICE_CONNECT
    return True


HELLO_FIRST = AgentHello(1, AgentState.WAITING).encode()


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"",
        CONTROL_PREFIX,
        b"NONCE",
        b"NONCE" + HELLO_FIRST[:-1],
        b"NONCE" + HELLO_FIRST,
        b"NONCE" + HELLO_FIRST + Seeded(0).encode()[:9],
        b"NONCE" + HELLO_FIRST + Seeded(0).encode(),
        b"NONCE" + HELLO_FIRST + Seeded(0).encode() + hello(),
        b"NONCE" + HELLO_FIRST + Seeded(0).encode() + trigger("vault", "test.Echo"),
        b"NONCE" + HELLO_FIRST + Seeded(0).encode() + trigger("vault", "test.Echo") * 100,
        b"NONCE" + HELLO_FIRST + Seeded(3).encode(),
        b"NONCE" + HELLO_FIRST + Seeded(0).encode() + Status(1, "no").encode(ControlType.READY),
    ],
)
async def test_one_that_closes_while_it_starts_leaves_nothing(
    instance: Instance, said: bytes | None
) -> None:
    """At each point: after said; b"NONCE" stands for an answer to the daemon's marker."""
    before = await quiet(instance)
    bad = await hostile(instance, "bad")
    start = asyncio.create_task(instance.power.start(bad))
    engine = instance.world.engine
    assert isinstance(engine, HostileEngine)
    machine = await engine.machine_of(bad)
    if said is not None:
        nonce = await machine.opened()
        await machine.say(said.replace(b"NONCE", CONTROL_PREFIX + nonce))
        machine.control.close()
    machine.listener.close()
    with pytest.raises(ReportableError):
        async with asyncio.timeout(TIMEOUT):
            await start
    assert bad.power is PowerState.HALTED
    assert await quiet(instance) <= before
    await echo(instance)


async def _accepted(bad: HostileMachine) -> None:
    await bad.say(trigger("vault", "test.Echo+x"))
    await bad.attached(MessageType.SERVICE_CONNECT)


async def _greeted(bad: HostileMachine, *, more: bytes = b"") -> None:
    await bad.say(trigger("vault", "test.Echo+x"))
    attach, _ = await bad.attached(MessageType.SERVICE_CONNECT)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(bad.ends[attach.index], attach.nonce + hello() + more)


async def _asked(bad: HostileMachine) -> None:
    await bad.say(trigger("vault", "test.Echo+x"))


async def _half_asked(bad: HostileMachine) -> None:
    await bad.say(trigger("vault", "test.Echo+x")[:-1])


@pytest.mark.parametrize(
    "until_then",
    [
        _half_asked,
        _asked,
        _accepted,
        _greeted,
        lambda bad: _greeted(bad, more=frame(MessageType.DATA_STDIN, b"x" * 4096)[:-1]),
        lambda bad: _greeted(bad, more=frame(MessageType.DATA_STDIN, b"x" * 4096)),
        lambda bad: _greeted(bad, more=HEADER.pack(MessageType.DATA_STDIN, 2**32 - 1)),
        lambda bad: _greeted(bad, more=frame(77, b"x")),
    ],
    ids=["half-asked", "asked", "accepted", "greeted", "half-said", "said", "oversized", "unknown"],
)
@pytest.mark.parametrize("which", ["port", "control", "machine"])
async def test_one_that_closes_in_the_middle_of_a_call_leaves_nothing(
    instance: Instance,
    monkeypatch: pytest.MonkeyPatch,
    until_then: Callable[[HostileMachine], Awaitable[None]],
    which: str,
) -> None:
    monkeypatch.setattr(calls, "GRACE", _SHORT)
    before = await quiet(instance)
    bad = await started(instance, "bad")
    await until_then(bad)
    match which:
        case "port":
            for port in tuple(bad.ends):
                await bad.part(port)
        case "control":
            bad.control.close()
        case _:
            await end(instance)
    if which != "machine":
        # The callee saw the end of it, though the caller never says so.
        vault = instance.world.running[instance.system.named("vault").uuid]
        await until(lambda: vault.calls.idle)
        await echo(instance)
        await end(instance)
    assert await quiet(instance) <= before
    await echo(instance)


async def test_half_open_calls_take_no_port_of_others(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two callers that never use what they are given, and never let go of it."""
    monkeypatch.setattr(calls, "GRACE", _SHORT)
    before = await quiet(instance)
    service(instance, "test.Echo", '[ "$1" = yes ] || exec cat; echo "$1"')
    for name in ("bad", "worse"):
        machine = await started(instance, name)
        await machine.say(b"".join(trigger("vault", "test.Echo+x", one) for one in range(60)))
        for _ in range(5):
            await machine.attached(MessageType.SERVICE_CONNECT)
    await asyncio.sleep(_SHORT)
    await asyncio.gather(*(echo(instance) for _ in range(4)))
    for name in ("bad", "worse"):
        await end(instance, name)
    assert await quiet(instance) <= before


async def test_one_that_never_answers_keeps_its_caller_from_nobody_else(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "GRACE", _SHORT)
    before = await quiet(instance)
    rule(instance, "test.Echo * work @anyvm allow")
    bad = await started(instance, "bad")
    work = instance.system.named("work")
    hanging = [
        asyncio.create_task(call(instance, work, "bad", "test.Echo+x"))
        for _ in range(routing.CONNECTED_AT_ONCE + 4)
    ]
    for _ in range(5):
        await bad.attached(MessageType.EXEC_CMDLINE)
    await echo(instance)
    assert not any(one.done() for one in hanging)
    await end(instance)
    # Those that it was told of never began (1), the others were refused.
    codes = {code for code, _, _ in await asyncio.gather(*hanging)}
    assert codes <= {1, 126}
    assert await quiet(instance) <= before


async def test_the_end_of_anothers_call_is_not_its_to_say(instance: Instance) -> None:
    bad = await started(instance, "bad")
    service(instance, "test.Echo", "read line; echo $line")
    work = instance.system.named("work")
    vault = instance.world.running[instance.system.named("vault").uuid]
    calling = asyncio.create_task(call(instance, work, "vault", "test.Echo", b""))
    await until(lambda: not vault.calls.idle)
    over = [
        frame(MessageType.CONNECTION_TERMINATED, ExecParameters(domain, port).encode())
        for domain in range(8)
        for port in range(513, 520)
    ]
    await bad.say(b"".join(over))
    assert await calling == (0, b"\n", b"")
    await end(instance)


async def test_sessions_that_an_agent_makes_up_take_no_ports(instance: Instance) -> None:
    """As after a restart of the daemon, which asks agents what goes on."""
    bad = await started(instance, "bad")
    running = instance.world.running[instance.system.named("bad").uuid]
    made_up = tuple(Session(1, 513 + one % 50, one) for one in range(256))
    running.calls.resume(made_up)
    for session in made_up:
        running.link.on_qrexec(
            MessageType.CONNECTION_TERMINATED,
            ExecParameters(session.domain, session.port).encode(),
        )
    await until(lambda: running.calls.idle)
    opened = await running.calls.open(MessageType.EXEC_CMDLINE, "user:true")
    os.close(opened.end)
    assert (await bad.attached(MessageType.EXEC_CMDLINE))[0].index in range(3, 31)
    running.calls.caller_over(opened)
    await end(instance)


async def test_few_disposables_are_made_at_once_for_one_qube(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mould = await instance.disposables()
    engine = instance.world.engine
    assert isinstance(engine, HostileEngine)
    rule(instance, "test.Echo * bad @dispvm allow", "test.Echo * work vault allow")
    bad = await started(instance, "bad")
    making: list[Qube] = []
    seen: set[int] = set()

    async def slow(template: Qube, _creator: Qube, **_options: object) -> None:
        making.append(template)
        seen.add(len(making))
        await asyncio.sleep(_SHORT / 4)
        making.remove(mould)
        raise ReportableError("there is none")

    monkeypatch.setattr(instance.preloading, "take", slow)
    await bad.say(b"".join(trigger("@dispvm", "test.Echo+x", one) for one in range(40)))
    await echo(instance)
    for _ in range(40):
        await bad.heard(MessageType.SERVICE_REFUSED)
    assert max(seen) == routing.STARTED_AT_ONCE
    await end(instance)


async def test_a_disposable_that_does_not_let_go_ends_with_its_caller(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "GRACE", _SHORT)
    before = await quiet(instance)
    await instance.disposables()
    rule(instance, "test.Echo * work @dispvm allow", "test.Echo * work vault allow")
    one = await hostile(instance, "one")

    async def take(_template: Qube, _creator: Qube, **_options: object) -> Qube:
        return one

    monkeypatch.setattr(instance.preloading, "take", take)
    calling = asyncio.create_task(
        call(instance, instance.system.named("work"), "@dispvm", "test.Echo+x")
    )
    engine = instance.world.engine
    assert isinstance(engine, HostileEngine)
    machine = await engine.machine_of(one)
    await machine.behave()
    await machine.attached(MessageType.EXEC_CMDLINE)
    await end(instance, "work")
    await until(lambda: one.power is PowerState.HALTED)
    await calling
    await instance.power.start(instance.system.named("work"))
    assert await quiet(instance) <= before


async def test_the_person_is_told_of_few_calls_at_once(instance: Instance) -> None:
    rule(instance, "test.Echo * bad @anyvm deny notify=yes", "test.Echo * work vault allow")
    told: list[asyncio.StreamWriter] = []

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(writer)

    async with AsyncExitStack() as undo:
        path = instance.run / policy_agent.SOCKET_NAME
        agent = await asyncio.start_unix_server(hold, path)
        undo.callback(agent.close)
        bad = await started(instance, "bad")
        await bad.say(b"".join(trigger("vault", "test.Echo+x", one) for one in range(200)))
        for _ in range(200):
            await bad.heard(MessageType.SERVICE_REFUSED)
        await echo(instance)
        assert len(told) == policy_agent.MOST_TOLD
        for writer in told:
            writer.close()
    await end(instance)


async def test_a_qube_that_says_too_much_to_the_daemon_is_not_heard_out(
    instance: Instance,
) -> None:
    bad = await started(instance, "bad")
    running = instance.world.running[instance.system.named("bad").uuid]
    calling = asyncio.create_task(call_service(running.calls, "test.Say"))
    attach, _ = await bad.attached(MessageType.EXEC_CMDLINE)
    loop, chunk = asyncio.get_running_loop(), frame(MessageType.DATA_STDOUT, bytes(65_000))
    await loop.sock_sendall(bad.ends[attach.index], attach.nonce + hello())
    with pytest.raises(OSError):  # noqa: PT011 - it is closed, in one way or another
        await loop.sock_sendall(bad.ends[attach.index], chunk * (4 * MOST_RECEIVED // len(chunk)))
    with pytest.raises(ReportableError, match="more than"):
        await calling
    await end(instance)


async def test_a_start_that_is_given_up_leaves_nothing(instance: Instance) -> None:
    before = await quiet(instance)
    bad = await hostile(instance, "bad")
    async with starting(instance, bad) as machine:
        await machine.opened()
        await end(instance)
    assert await quiet(instance) <= before
