"""An instance in the test's own process: its machines are guest agents as ordinary processes."""

import asyncio
import os
import pwd
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from insula.daemon.admin import qube_calls
from insula.daemon.admin.calls import Api
from insula.daemon.admin.server import SOCKET_NAME, AdminServer
from insula.daemon.engine.interface import Capabilities
from insula.daemon.engine.memory.engine import MemoryEngine
from insula.daemon.lifecycle.administration import Administration, NewQube
from insula.daemon.lifecycle.agent_volume import AgentVolume
from insula.daemon.lifecycle.appearing import Appearing
from insula.daemon.lifecycle.asking import DeviceAgent
from insula.daemon.lifecycle.consoles import Consoles
from insula.daemon.lifecycle.deciding import Deciding
from insula.daemon.lifecycle.deferring import Deferring
from insula.daemon.lifecycle.devices import Devices
from insula.daemon.lifecycle.events import Events
from insula.daemon.lifecycle.firewall import Firewall
from insula.daemon.lifecycle.goldens import Goldens
from insula.daemon.lifecycle.live_keys import LiveKeys
from insula.daemon.lifecycle.networking import Networking
from insula.daemon.lifecycle.pools import Pools
from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.preloading import Preloading
from insula.daemon.lifecycle.sleeping import Sleeping
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.templates import BuiltRoot, Templates
from insula.daemon.lifecycle.volumes import Volumes
from insula.daemon.lifecycle.world import UID_BASE, World
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System, new_dom0
from insula.daemon.network.cables import Cables
from insula.daemon.policy.administration import PolicyAdministration
from insula.daemon.storage import qcow2
from insula.daemon.storage.kernels import Kernels
from insula.daemon.storage.volumes import Storage
from insula.daemon.store.records import Run, put_qube
from insula.daemon.store.store import Store
from insula.protocol import admin
from insula.protocol.admin import Event, Refusal
from tests.devices import FakeDriver

TIMEOUT = 20.0  # seconds for anything that a test waits for
TEMPLATE = "tree"
ROOT_SIZE = 64 << 20  # bytes
RECIPE = "0123456789abcdef"


class FakeAgentVolume(AgentVolume):
    """An agent volume without a file system in it, which the in-memory engine does not read."""

    async def _make(self) -> str:
        self._path.write_bytes(b"agent")
        return "digest"


class Holder:
    """Holds descriptors as the keeper does."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    async def hold(self, name: str, descriptor: int) -> None:
        if name in self.held:
            os.close(self.held[name])
        self.held[name] = os.dup(descriptor)

    async def take(self, name: str) -> int:
        return os.dup(self.held[name])

    async def drop(self, name: str) -> None:
        os.close(self.held.pop(name))

    async def names(self, prefix: str) -> Sequence[str]:
        return [name for name in self.held if name.startswith(prefix)]

    def close(self) -> None:
        """Let go of all."""
        for descriptor in self.held.values():
            os.close(descriptor)
        self.held.clear()


@dataclass(slots=True)
class Instance:
    """What a daemon is made of, without its process and its keeper."""

    home: Path
    run: Path
    world: World
    runs: list[Run]
    power: Power
    snapshots: Snapshots
    administration: Administration
    templates: Templates
    volumes: Volumes
    preloading: Preloading
    firewall: Firewall
    devices: Devices
    consoles: Consoles
    drivers: dict[str, FakeDriver]
    appearing: Appearing
    policy: PolicyAdministration
    decide: Deciding
    networking: Networking
    told: list[Event] = field(default_factory=list)

    @property
    def system(self) -> System:
        return self.world.system

    @property
    def api(self) -> Api:
        return Api(
            world=self.world,
            power=self.power,
            administration=self.administration,
            volumes=self.volumes,
            pools=Pools(self.world),
            sleeping=Sleeping(self.world, self.power, self.preloading),
            preloading=self.preloading,
            firewall=self.firewall,
            devices=self.devices,
            consoles=self.consoles,
            policy=self.policy,
            allows=self.decide.allows,
        )

    async def template(self, name: str = TEMPLATE, recipe: str = RECIPE) -> Qube:
        """Register a template as its builder does."""
        built = self.home / f"{recipe}.built"
        built.mkdir(exist_ok=True)
        for file in ("vmlinuz", "initrd"):
            (built / file).write_bytes(file.encode())
        with (built / "root.qcow2").open("wb") as image:
            qcow2.write_blank(image.fileno(), ROOT_SIZE)
        return await self.templates.register(
            BuiltRoot(
                name=name,
                root=built / "root.qcow2",
                kernel=built / "vmlinuz",
                initrd=built / "initrd",
                recipe=recipe,
            )
        )

    async def qube(self, name: str, klass: QubeClass = QubeClass.APP, **settings: object) -> Qube:
        """Make a qube from the template; settings: explicit values of its properties."""
        template = None if klass is QubeClass.TEMPLATE else self.system.named(TEMPLATE)
        qube = await self.administration.create(
            NewQube(
                klass=klass,
                name=name,
                label="blue",
                template=template,
                creator=self.system.dom0,
            )
        )
        for setting, value in settings.items():
            await self.ok("admin.vm.property.Set", name, setting, str(value).encode())
        return qube

    async def disposables(self, name: str = "mould") -> Qube:
        """Make a disposable template that is everybody's."""
        qube = await self.qube(name, template_for_dispvms=True)
        await self.ok("admin.property.Set", "dom0", "default_dispvm", name.encode())
        return qube

    async def ask(
        self,
        method: str,
        destination: str = "dom0",
        argument: str = "",
        payload: bytes = b"",
        *,
        source: str = "dom0",
        over: str = SOCKET_NAME,
    ) -> bytes | Refusal | None:
        """Call the Admin API over its socket, or another of the daemon's."""
        request = admin.encode_request(method, argument, destination, payload, source=source)
        return admin.decode_answer(await self.raw(request, over))

    async def raw(self, request: bytes, over: str = SOCKET_NAME) -> bytes:
        """Everything that the Admin API answers to these bytes."""
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(self.run / over)
            writer.write(request)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer

    async def ok(
        self, method: str, destination: str = "dom0", argument: str = "", payload: bytes = b""
    ) -> str:
        """The content of an answer that has to be OK."""
        answer = await self.ask(method, destination, argument, payload)
        assert isinstance(answer, bytes), f"{method} {destination} {argument}: {answer!r}"
        return answer.decode()

    async def refused(
        self, method: str, destination: str = "dom0", argument: str = "", payload: bytes = b""
    ) -> str | None:
        """The name of a refusal; None for one without a word."""
        answer = await self.ask(method, destination, argument, payload)
        assert not isinstance(answer, bytes), f"{method} {destination} {argument}: {answer!r}"
        return None if answer is None else answer.kind

    def names(self, subject: str | None = None) -> list[str]:
        """Names of the events told so far, of one subject or of all."""
        return [one.name for one in self.told if subject in (None, one.subject)]

    @contextmanager
    def listening(self) -> Iterator[list[Event]]:
        """The events of the block."""
        told: list[Event] = []
        self.world.events.add(told.append)
        try:
            yield told
        finally:
            self.world.events.remove(told.append)

    def processes(self) -> set[int]:
        """Processes of all machines that were ever launched and are still there."""
        found = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"INSULA_PORTS_DIR={self.run}/".encode() in environment:
                found.add(int(entry.name))
        return found


async def open_instance(
    undo: AsyncExitStack, home: Path, run: Path, engine: MemoryEngine, holder: Holder | None = None
) -> Instance:
    """A daemon's parts, from what its store holds; undo takes them apart, and machines go on.

    holder: what holds descriptors, if it is to outlive these parts.
    """
    if holder is None:
        holder = Holder()
        undo.callback(holder.close)
    home.mkdir(mode=0o700, exist_ok=True)
    store = Store(home)
    undo.push_async_callback(store.close)
    stored = store.load()
    kernels, storage = Kernels(home), Storage(home)
    await storage.prepare()
    system = System(
        qubes={qube.uuid: qube for qube in stored.qubes},
        properties=stored.settings,
    )
    system.pools.update((pool.name, pool) for pool in stored.pools)
    if not stored.qubes:
        system.add(new_dom0())
        await store.write(put_qube(system.dom0))
    world = World(
        system=system,
        store=store,
        events=Events(),
        storage=storage,
        kernels=kernels,
        engine=engine,
        goldens=Goldens(home / "golden", run, engine, storage, UID_BASE),
        agent=FakeAgentVolume(home),
        run=run,
    )
    undo.push_async_callback(world.agent.close)
    snapshots = Snapshots(world)
    undo.push_async_callback(snapshots.close)
    power = Power(world, snapshots)
    undo.push_async_callback(power.close)
    administration = Administration(world)
    templates = Templates(world, administration, snapshots)
    volumes = Volumes(world, snapshots)
    preloading = Preloading(world, power, administration, volumes.is_outdated)
    undo.push_async_callback(preloading.close)
    drivers = {devclass: FakeDriver(devclass) for devclass in ("block", "pci", "usb")}
    devices = Devices(world, tuple(drivers.values()))
    power.start_checks.append(devices.check_start)
    power.start_steps.append(devices.give_required)
    appearing = Appearing(world, devices, DeviceAgent(world.system, run))
    appearing.start()
    undo.push_async_callback(appearing.close)
    keys = LiveKeys(world, appearing.changed)
    keys.start()
    undo.callback(keys.close)
    power.watchers.append(keys.watch)
    networking = Networking(world, keys, Cables(holder))
    networking.start()
    undo.push_async_callback(networking.close)
    power.watchers.append(networking.watch)
    power.unpause_steps.append(networking.settle)
    deferring = Deferring(world)
    deferring.start()
    undo.push_async_callback(deferring.close)
    power.unpause_steps.append(deferring.gone_on)
    consoles = Consoles(world)
    undo.callback(consoles.close)
    firewall = Firewall(world)
    firewall.start()
    undo.push_async_callback(firewall.close)
    decide, policy = qube_calls.deciding(world, home, undo)
    instance = Instance(
        home,
        run,
        world,
        stored.runs,
        power,
        snapshots,
        administration,
        templates,
        volumes,
        preloading,
        firewall,
        devices,
        consoles,
        drivers,
        appearing,
        policy,
        decide,
        networking,
    )
    qube_calls.route(decide, instance.api, home, undo)
    world.events.add(instance.told.append)
    server = AdminServer(run, instance.api)
    await server.start()
    undo.push_async_callback(server.close)
    if not stored.runs:  # Else once those that run are taken over.
        await networking.begin()
    return instance


@asynccontextmanager
async def serving(
    home: Path, *, clone: bool = False, engine: MemoryEngine | None = None
) -> AsyncIterator[Instance]:
    """An instance that serves the Admin API; sockets need a path shorter than pytest's.

    engine: another than the usual one.
    """
    with tempfile.TemporaryDirectory(prefix="insula-") as run:
        async with AsyncExitStack() as undo:
            engine = engine or memory_engine(clone=clone)
            undo.push_async_callback(end_machines, engine)
            instance = await open_instance(undo, home, Path(run), engine)
            await instance.preloading.begin()
            yield instance


def memory_engine(*, clone: bool = False) -> MemoryEngine:
    """An engine whose machines outlive the daemons of a test; clone: it makes snapshots."""
    engine = MemoryEngine()
    engine.capabilities = Capabilities(clone=clone, boundary=False)
    return engine


async def end_machines(engine: MemoryEngine) -> None:
    """End what still runs of a test."""
    for name in await engine.machines():
        await engine.release(name)


def user() -> str:
    """The login name as which agents that are ordinary processes can run commands."""
    return pwd.getpwuid(os.geteuid()).pw_name
