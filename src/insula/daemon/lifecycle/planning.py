"""From a qube as it is administered to the order by which its machine is started."""

from dataclasses import replace

from insula.daemon.engine.interface import Kernel, Shape
from insula.daemon.lifecycle.boot import kernel_options
from insula.daemon.lifecycle.furnishing import lowest_layers
from insula.daemon.lifecycle.goldens import Basis, Golden
from insula.daemon.lifecycle.qubesdb import entries, shows_windows
from insula.daemon.lifecycle.running import CODE_CACHE, SMALL_CODE_CACHE, Order
from insula.daemon.lifecycle.world import World, machine_uid
from insula.daemon.model.errors import QubeStateError, RefusedError
from insula.daemon.model.layout import DISPOSABLE_VOLATILE_SIZE, source_of
from insula.daemon.model.properties.defaults import given_kernelopts
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.volume import PRIVATE_SIZE, Volume
from insula.daemon.storage.plan import Plan

_MIB = 1024 * 1024
_SHAPE = Shape()
_PROCESSORS = "vcpus"
_PROVIDER_PORTS = 48  # a card for each client


def basis_of(world: World, qube: Qube) -> Basis | None:
    """What the snapshot is made from that a qube starts from; None for one that boots."""
    if qube.klass not in (QubeClass.APP, QubeClass.DISPOSABLE):
        return None
    if value_of(world.system, qube, "start_mode") == "cold":
        return None
    return snapshot_basis(world, qube)


def snapshot_basis(world: World, qube: Qube) -> Basis | None:
    """The same for a template: what qubes made from it start from, unless told otherwise."""
    if not qube.klass.is_machine or not world.engine.capabilities.clone:
        return None
    return Basis(
        root=world.system.root_template(qube).volumes["root"],
        private_size=PRIVATE_SIZE,
        volatile_size=DISPOSABLE_VOLATILE_SIZE,  # Most clones are disposables.
        kernel=_kernel(world, qube),
        shape=_shape(world, qube),
        agent=world.agent.disk,
        agent_digest=world.agent.digest,
    )


def order_of(world: World, qube: Qube, golden: Golden | None) -> Order:
    """The order to start a qube, from a snapshot or by booting it.

    Raises:
        ReportableError: it has no kernel, or its template is gone.
    """

    def number(name: str) -> int:
        return int(str(value_of(world.system, qube, name)))

    shared = value_of(world.system, qube, "start_mode") == "snapshot"
    return Order(
        uuid=qube.uuid,
        name=qube.name,
        uid=machine_uid(qube.qid),
        volumes=_volumes(world, qube, golden),
        agent=world.agent.disk,
        kernel=_kernel(world, qube),
        shape=_shape(world, qube),
        processors=processors(world, qube),
        memory=max(number("memory") * _MIB, _SHAPE.memory),
        qubesdb=entries(world.system, qube),
        timeout=float(str(value_of(world.system, qube, "qrexec_timeout"))),
        golden=golden,
        group=qube.label if shared else None,
        code_cache=CODE_CACHE if shows_windows(world.system, qube) else SMALL_CODE_CACHE,
    )


def processors(world: World, qube: Qube) -> int:
    """How many processors a qube gets: as many as it or its template was told, or is usual."""
    chain = (qube, *world.system.templates_of(qube))
    told = any(_PROCESSORS in one.properties for one in chain)
    usual = world.engine.capabilities.usual_processors
    if usual is not None and not told:
        return usual
    return int(str(value_of(world.system, qube, _PROCESSORS)))


def _shape(world: World, qube: Qube) -> Shape:
    """What a qube's machine is made with; there are as few as can be, for each has snapshots."""
    ports = _PROVIDER_PORTS if qube.properties.get("provides_network") else _SHAPE.root_ports
    cpus = max(_SHAPE.maximum_cpus, processors(world, qube))
    return replace(_SHAPE, maximum_cpus=cpus, root_ports=ports)


def _kernel(world: World, qube: Qube) -> Kernel:
    name = str(value_of(world.system, qube, "kernel") or "")
    if not name:
        raise RefusedError(
            f"Qube {qube.name} has no kernel",
            f"Name one of the pool's: qvm-prefs {qube.name} kernel NAME",
        )
    image, initrd = world.kernels.find(name)
    options = kernel_options(gui=shows_windows(world.system, qube))
    mode = value_of(world.system, qube, "bootmode")
    more = [
        given_kernelopts(world.system, qube) or "",
        world.system.feature(qube, f"boot-mode.kernelopts.{mode}", "") or "",
    ]
    return Kernel(image=image, initrd=initrd, options=" ".join(filter(None, (options, *more))))


def _volumes(world: World, qube: Qube, golden: Golden | None) -> tuple[Plan, ...]:
    template = world.system.find(qube.template)
    root_template = world.system.root_template(qube)
    plans = []
    for name in ("root", "private", "volatile"):
        volume = qube.volumes[name]
        source = source_of(volume, template, root_template)
        if source is not None:
            _require_whole(world, source)
        if source is not None and volume.size != source.size:
            volume = replace(volume, size=source.size)
        extra = lowest_layers(volume, source, golden)
        plans.append(Plan(volume=volume, source=source, extra=extra))
    return tuple(plans)


def _require_whole(world: World, source: Volume) -> None:
    """Refuse a source of which nobody else sees a state while its own qube writes it."""
    owner = world.system.qubes[source.owner]
    if source.in_place and not owner.halted:
        error = QubeStateError(f"The {source.name} volume of {owner.name} is being written")
        error.hint = (
            f"Shut {owner.name} down first, or let it keep states: "
            f"qvm-volume config {owner.name}:{source.name} revisions_to_keep 1"
        )
        raise error
