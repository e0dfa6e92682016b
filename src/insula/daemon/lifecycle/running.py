"""A qube that runs: machine, agent, calls; brought up step by step, undone in reverse."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from insula.daemon.engine.interface import (
    FIRST_DATA_PORT,
    LAST_DATA_PORT,
    Engine,
    EngineError,
    Kernel,
    Machine,
    MachineSpec,
    RunState,
    Shape,
)
from insula.daemon.lifecycle.goldens import BOOT_TIMEOUT, Golden, unless_gone
from insula.daemon.model.machine import Disk
from insula.daemon.rpc.agent_link import AgentLink, introduction
from insula.daemon.rpc.calls import Calls
from insula.daemon.rpc.ports import PortPool
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage, close
from insula.protocol.control import AgentState, Identity, processors

CLONE_TIMEOUT = 60.0  # seconds until the agent of a clone answers, on a busy host
READOPT_TIMEOUT = 10.0
# Bytes for translated instructions, where there is no KVM. A window's programs run a third slower
# with a quarter of it; a qube without windows is to be small.
CODE_CACHE = 128 * 1024 * 1024
SMALL_CODE_CACHE = 32 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that starting a qube needs to know of it, resolved at one moment.

    volumes: as storage attaches them, the root first. golden: the snapshot it starts from, None to
    boot. group: who shares its pages of the snapshot's memory, None for nobody. memory: bytes in
    all, of which the shape's are there from the start. timeout: seconds for the agent. code_cache:
    see MachineSpec.
    """

    uuid: UUID
    name: str
    uid: int
    volumes: tuple[Plan, ...]
    agent: Disk
    kernel: Kernel
    shape: Shape
    memory: int
    qubesdb: dict[str, str]
    timeout: float
    golden: Golden | None = None
    group: str | None = None
    code_cache: int = CODE_CACHE
    processors: int = 1

    @property
    def first_shape(self) -> Shape:
        """What its machine is made with: all that it is to have, if it is no copy of another."""
        if self.golden is not None:
            return self.shape
        return replace(self.shape, cpus=self.processors)

    @property
    def identity(self) -> Identity:
        """What the machine's agent is told."""
        sizes = {plan.volume.name: plan.volume.size for plan in self.volumes if plan.volume.rw}
        return Identity(self.qubesdb, sizes)


@dataclass(slots=True, kw_only=True)
class RunningQube:
    """A qube whose machine runs. xid: its domain number, never used twice by one daemon."""

    uuid: UUID
    name: str
    xid: int
    machine: Machine
    link: AgentLink
    calls: Calls
    started: float = field(default_factory=time.time)
    paused: bool = False

    async def pause(self) -> None:
        """Stop the qube's processors."""
        await self.machine.pause()
        self.paused = True

    async def unpause(self) -> None:
        """Let it go on, with the right time."""
        await self.machine.resume()
        self.paused = False
        if not self.link.reached:
            self.calls.resume((await self.link.connect(READOPT_TIMEOUT)).sessions)
        self.link.set_clock()

    async def let_go(self) -> None:
        """Stop looking after it; it goes on."""
        await self.calls.close()
        await self.link.close()
        await self.machine.close()


class Phases:
    """How long each phase of a start took, by its name."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.milliseconds: dict[str, int] = {}

    def over(self, phase: str) -> None:
        """A phase ends and the next one begins."""
        now = time.monotonic()
        self.milliseconds[f"{phase}_ms"] = round((now - self._since) * 1000)
        self._since = now


def machine_name(uuid: UUID) -> str:
    """What a qube's machine process is called, by the keeper and by QEMU."""
    return f"qube-{uuid}"


def run_directory(run: Path, uuid: UUID) -> Path:
    """Where a qube's sockets lie."""
    return run / "qubes" / str(uuid)


async def bring_up(
    order: Order,
    xid: int,
    engine: Engine,
    storage: Storage,
    run: Path,
    *,
    on_launched: Callable[[], None] = lambda: None,
) -> RunningQube:
    """Start a machine and its agent. on_launched: called between the two.

    Raises:
        ReportableError: some step failed; those before it were undone.
    """
    place = run_directory(run, order.uuid)
    async with AsyncExitStack() as undo:
        phases = Phases()
        machine = await _launch(order, engine, storage, place)
        undo.push_async_callback(machine.kill)
        on_launched()
        phases.over("launch")
        link = AgentLink(order.name, place / "control.sock")
        undo.push_async_callback(link.close)
        calls = Calls(order.name, machine, link, PortPool(FIRST_DATA_PORT, LAST_DATA_PORT))
        await unless_gone(machine, _wake(order, machine, link, phases))
        if order.memory > order.shape.memory:
            await machine.grow(order.memory - order.shape.memory)
            phases.over("grow")
        if order.golden is not None and order.processors > order.shape.cpus:
            await machine.add_processors(order.processors - order.shape.cpus)
            link.send(processors())
            phases.over("processors")
        undo.pop_all()
    log.info("machine brought up", extra={"qube": order.name, **phases.milliseconds})
    return RunningQube(
        uuid=order.uuid, name=order.name, xid=xid, machine=machine, link=link, calls=calls
    )


async def _wake(order: Order, machine: Machine, link: AgentLink, phases: Phases) -> None:
    """Have a machine's agent make it a qube."""
    if order.golden is None:
        await link.connect(BOOT_TIMEOUT)
        phases.over("boot")
        await link.identify(order.identity, max(order.timeout, BOOT_TIMEOUT))
    else:
        opening = introduction(order.identity)
        await machine.resume()
        hello = await link.connect(CLONE_TIMEOUT, opening)
        phases.over("hello")
        if hello.state is not AgentState.PARKED:
            raise EngineError(f"{order.name} does not come from a parked machine")
        await link.become_ready(max(order.timeout, CLONE_TIMEOUT))
    phases.over("ready")


async def _launch(order: Order, engine: Engine, storage: Storage, place: Path) -> Machine:
    disks = await storage.attach(order.volumes)
    try:
        disks += (await storage.open(order.agent),)
        return await engine.launch(
            MachineSpec(
                name=machine_name(order.uuid),
                uid=order.uid,
                run=place,
                disks=disks,
                kernel=order.kernel,
                shape=order.first_shape,
                golden=order.golden.directory if order.golden is not None else None,
                golden_sizes=order.golden.sizes if order.golden is not None else {},
                group=order.group,
                code_cache=order.code_cache,
            )
        )
    finally:
        close(disks)


async def take_over(
    uuid: UUID,
    name: str,
    *,
    xid: int,
    started: float,
    may_be_paused: bool,
    engine: Engine,
    run: Path,
) -> RunningQube | None:
    """Find a qube that an earlier daemon started; None when it is gone.

    may_be_paused: whether it came up and was paused then; else one that stands still never did.

    Raises:
        ReportableError: its machine runs, but cannot be reached, or was never finished.
    """
    place = run_directory(run, uuid)
    machine = await engine.adopt(machine_name(uuid), place)
    if machine is None:
        return None
    async with AsyncExitStack() as undo:
        undo.push_async_callback(machine.close)
        paused = await machine.state() is RunState.PAUSED
        if paused and not may_be_paused:
            raise EngineError(f"{name} was being started when the daemon ended")
        link = AgentLink(name, place / "control.sock")
        calls = Calls(name, machine, link, PortPool(FIRST_DATA_PORT, LAST_DATA_PORT))
        undo.push_async_callback(link.close)
        if not paused:
            hello = await link.connect(READOPT_TIMEOUT)
            if hello.state is not AgentState.READY:
                raise EngineError(f"{name} was being started when the daemon ended")
            calls.resume(hello.sessions)
        undo.pop_all()
    return RunningQube(
        uuid=uuid,
        name=name,
        xid=xid,
        machine=machine,
        link=link,
        calls=calls,
        started=started,
        paused=paused,
    )


async def end(qube: RunningQube, timeout: float) -> bool:
    """Ask a qube to end itself; False when it is still there after timeout seconds."""
    qube.link.shutdown()
    try:
        async with asyncio.timeout(timeout):
            await qube.machine.wait_gone()
    except TimeoutError:
        return False
    return True
