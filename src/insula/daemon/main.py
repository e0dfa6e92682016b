"""insulad: puts an instance together, serves it, and lets go of it without ending its qubes."""

import asyncio
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from insula.daemon.admin import qube_calls
from insula.daemon.admin.calls import Api
from insula.daemon.admin.local import LocalServer
from insula.daemon.admin.local_calls import FOR_CALLER, LocalCalls
from insula.daemon.admin.server import AdminServer
from insula.daemon.alone import only_daemon
from insula.daemon.devices.driver import Driver
from insula.daemon.devices.pci import PciDriver
from insula.daemon.devices.shown import BlockDriver, MicDriver, UsbDriver
from insula.daemon.engine.interface import Engine
from insula.daemon.engine.memory.engine import MemoryEngine
from insula.daemon.engine.qemu.arguments import Accelerator
from insula.daemon.engine.qemu.detect import choose_accelerator
from insula.daemon.engine.qemu.engine import QemuEngine
from insula.daemon.lifecycle import autostart, clock, policy_agent, pressure, reconcile
from insula.daemon.lifecycle.administration import Administration
from insula.daemon.lifecycle.agent_volume import AgentVolume
from insula.daemon.lifecycle.appearing import Appearing
from insula.daemon.lifecycle.asking import DeviceAgent
from insula.daemon.lifecycle.consoles import Consoles
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
from insula.daemon.lifecycle.templates import Templates
from insula.daemon.lifecycle.viewers import Viewers
from insula.daemon.lifecycle.volumes import Volumes
from insula.daemon.lifecycle.ways_out import WaysOut
from insula.daemon.lifecycle.world import UID_BASE, World
from insula.daemon.logs import set_up_logs
from insula.daemon.model.system import System
from insula.daemon.network.cables import Cables
from insula.daemon.network.uplink import Uplinks
from insula.daemon.seclusion import seclude
from insula.daemon.storage.kernels import Kernels
from insula.daemon.storage.volumes import Storage
from insula.daemon.store.first import fill
from insula.daemon.store.records import Run
from insula.daemon.store.store import Store
from insula.keeper.client import KeeperClient, KeeperError
from insula.protocol import local
from insula.protocol.errors import ReportableError

_VERDICT = "accelerator.json"
_MIB = 1024 * 1024
_STOP_TIMEOUT = 15.0
_STOP_POLL = 0.02

log = logging.getLogger(__name__)


class DaemonError(ReportableError):
    """The daemon cannot serve this instance."""


def main() -> int:
    """Serve the instance that the environment names until told to stop."""
    set_up_logs()
    try:
        home, run = (Path(os.environ[name]) for name in ("INSULA_HOME", "INSULA_RUN"))
    except KeyError as error:
        print(f"insulad: {error} is not set; start it with: insula up", file=sys.stderr)
        return 2
    _raise_descriptor_limit()
    seclude()
    try:
        with ExitStack() as locks:
            for place in (home, run):
                only_daemon(place, locks)
            asyncio.run(_serve(home, run))
    except ReportableError as error:
        log.error("insulad cannot go on", extra={"why": str(error), "hint": error.hint})
        return error.exit_code
    return 0


def _raise_descriptor_limit() -> None:
    """Each running qube takes several; the usual limit is for programs that use select."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(home: Path, run: Path) -> None:
    async with AsyncExitStack() as undo:
        keeper = await KeeperClient.connect(run / "keeper.sock")
        undo.push_async_callback(keeper.close)
        engine = await _engine(keeper, run)
        world, runs = await _world(home, run, engine, undo)
        undo.push_async_callback(world.agent.close)
        snapshots = Snapshots(world)
        undo.push_async_callback(snapshots.close)
        power = Power(world, snapshots)
        undo.push_async_callback(power.close)
        administration = Administration(world)
        viewers = Viewers(keeper, run, root=os.geteuid() == 0)
        volumes = Volumes(world, snapshots)
        preloading = Preloading(world, power, administration, volumes.is_outdated)
        undo.push_async_callback(preloading.close)
        devices = _devices(world, power)
        appearing, keys = _appearing(world, power, devices, undo)
        networking = _networking(world, power, keys, keeper, undo)
        consoles = Consoles(world)
        undo.callback(consoles.close)
        firewall = _firewall(world, undo)
        deciding, policy = qube_calls.deciding(world, home, undo)
        api = Api(
            world=world,
            power=power,
            administration=administration,
            volumes=volumes,
            pools=Pools(world),
            sleeping=Sleeping(world, power, preloading),
            preloading=preloading,
            firewall=firewall,
            devices=devices,
            consoles=consoles,
            policy=policy,
            allows=deciding.allows,
        )
        qube_calls.route(deciding, api, home, undo)
        templates = Templates(world, administration, snapshots)
        calls = LocalCalls(api, templates, snapshots, viewers, deciding.would_allow)
        unused = reconcile.expect(world, runs)
        taking_over = _owned(undo, reconcile.take_all_over(world, power, runs))
        local_server = LocalServer(run / local.SOCKET_NAME, calls.handlers(), FOR_CALLER)
        local_server.start()
        undo.push_async_callback(local_server.close)
        admin_server = AdminServer(run, api)
        await admin_server.start()
        undo.push_async_callback(admin_server.close)
        await taking_over
        await networking.begin()
        appearing.start()
        await reconcile.remove_all(administration, unused)
        session = f"{_boot()} {(await keeper.hello())['pid']}"
        starts = partial(autostart.start_all, world, power, session)
        leftovers = partial(reconcile.clear_leftovers, world, snapshots)
        _owned(undo, _in_background(leftovers, viewers.prepare, starts, preloading.begin))
        _owned(undo, clock.watch(world.running.values))
        _owned(undo, snapshots.keep_fresh())
        _owned(undo, pressure.watch(world))
        log.info("insulad serves", extra={"home": str(home), "engine": engine.title})
        await _until_told_to_stop(calls.stopping)
        if calls.stopping.is_set():
            # A session takes it up again with the next daemon.
            (run / policy_agent.SOCKET_NAME).unlink(missing_ok=True)
            undo.push_async_callback(_stop_keeper, keeper)


def _appearing(
    world: World, power: Power, devices: Devices, undo: AsyncExitStack
) -> tuple[Appearing, LiveKeys]:
    """What looks after devices that qubes show, and after all that they write to QubesDB."""
    appearing = Appearing(world, devices, DeviceAgent(world.system, world.run))
    undo.push_async_callback(appearing.close)
    keys = LiveKeys(world, appearing.changed)
    keys.start()
    undo.callback(keys.close)
    power.watchers.append(keys.watch)
    return appearing, keys


def _firewall(world: World, undo: AsyncExitStack) -> Firewall:
    firewall = Firewall(world)
    firewall.start()
    undo.push_async_callback(firewall.close)
    return firewall


def _networking(
    world: World, power: Power, keys: LiveKeys, keeper: KeeperClient, undo: AsyncExitStack
) -> Networking:
    """What connects qubes with their netvms, and net qubes with what is beyond this computer."""
    networking = Networking(world, keys, Cables(keeper))
    networking.start()
    undo.push_async_callback(networking.close)
    power.watchers.append(networking.watch)
    power.unpause_steps.append(networking.settle)
    ways_out = WaysOut(world, Uplinks(keeper, root=os.geteuid() == 0))
    ways_out.start()
    undo.push_async_callback(ways_out.close)
    power.watchers.append(ways_out.watch)
    deferring = Deferring(world)
    deferring.start()
    undo.push_async_callback(deferring.close)
    power.unpause_steps.append(deferring.gone_on)
    return networking


def _devices(world: World, power: Power) -> Devices:
    """The devices of qubes, and what a start needs of them."""
    devices = Devices(world, _drivers(world))
    power.start_checks.append(devices.check_start)
    power.start_steps.append(devices.give_required)
    return devices


def _drivers(world: World) -> tuple[Driver, ...]:
    """Classes of devices; a qube shows what it wrote to its QubesDB."""

    def written(backend: str) -> dict[str, str]:
        return world.untrusted_written.get(world.system.named(backend).uuid, {})

    return PciDriver(), BlockDriver(written), UsbDriver(written), MicDriver()


def _owned(undo: AsyncExitStack, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """A task that is over when undo is."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    undo.push_async_callback(end)
    return task


async def _world(
    home: Path, run: Path, engine: Engine, undo: AsyncExitStack
) -> tuple[World, list[Run]]:
    store = Store(home)
    undo.push_async_callback(store.close)
    stored = store.load()
    if not stored.qubes:
        await fill(store)
        stored = store.load()
    kernels = Kernels(home)
    system = System(
        qubes={qube.uuid: qube for qube in stored.qubes},
        properties=stored.settings,
        host_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB,
    )
    system.labels.update((label.name, label) for label in stored.labels)
    system.pools.update((pool.name, pool) for pool in stored.pools)
    storage = Storage(home)
    await storage.prepare()
    world = World(
        system=system,
        store=store,
        events=Events(),
        storage=storage,
        kernels=kernels,
        engine=engine,
        goldens=Goldens(home / "golden", run, engine, storage, UID_BASE),
        agent=AgentVolume(home),
        run=run,
    )
    return world, stored.runs


async def _engine(keeper: KeeperClient, run: Path) -> Engine:
    """The engine: INSULA_ENGINE (kvm, tcg or memory), else what this host really has."""
    wanted = os.environ.get("INSULA_ENGINE") or None
    if wanted == "memory":
        return MemoryEngine()
    if wanted not in (None, "kvm", "tcg"):
        raise DaemonError(f"INSULA_ENGINE is kvm, tcg or memory, not {wanted!r}")
    accelerator = _known_accelerator(run, wanted)
    if accelerator is None:
        accelerator = await choose_accelerator(wanted)
        verdict = {"wanted": wanted, "boot": _boot(), "accelerator": _fields(accelerator)}
        (run / _VERDICT).write_text(json.dumps(verdict))
    return QemuEngine(keeper, accelerator, root=os.geteuid() == 0)


def _known_accelerator(run: Path, wanted: str | None) -> Accelerator | None:
    """What an earlier daemon found since the host's boot: running qubes depend on it."""
    try:
        verdict = json.loads((run / _VERDICT).read_text())
        if verdict["wanted"] == wanted and verdict["boot"] == _boot():
            return Accelerator(**verdict["accelerator"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _fields(accelerator: Accelerator) -> dict[str, str]:
    return {
        "name": accelerator.name,
        "machine_type": accelerator.machine_type,
        "options": accelerator.options,
    }


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def _in_background(*works: Callable[[], Awaitable[None]]) -> None:
    """What need not be done before anything is served."""
    for work in works:
        try:
            await work()
        except Exception:
            log.exception("work in the background failed")


async def _until_told_to_stop(stopping: asyncio.Event) -> None:
    """Until the local socket or a signal says so; after a signal qubes go on."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    waiting = [asyncio.create_task(event.wait()) for event in (stopping, ending)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _stop_keeper(keeper: KeeperClient) -> None:
    """End what runs besides qubes, such as viewers, and then the keeper."""
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            while not await _stopped(keeper):
                await asyncio.sleep(_STOP_POLL)
    except (ReportableError, TimeoutError) as error:
        log.warning("the keeper goes on", extra={"why": str(error)})


async def _stopped(keeper: KeeperClient) -> bool:
    """Whether it ends; if not, what runs in it is killed. What only starts may run by next time."""
    try:
        await keeper.stop()
    except KeeperError:
        for name, one in (await keeper.list()).items():
            if one.exit is None:
                with suppress(KeyError):
                    await keeper.kill(name)
        return False
    return True
