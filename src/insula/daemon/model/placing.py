"""Which pools the volumes of qubes lie in (admin-api.md sections 8.4, 9.2 and 9.3). No I/O."""

from collections.abc import Mapping
from dataclasses import replace

from insula.daemon.model.errors import RefusedError
from insula.daemon.model.layout import source_of
from insula.daemon.model.pools import Pool
from insula.daemon.model.properties.system_wide import GLOBAL
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System
from insula.daemon.model.volume import Volume

DEFAULTS = ("default_pool", *(f"default_pool_{name}" for name in ("root", "private", "volatile")))
KERNEL_DEFAULT = "default_pool_kernel"


def placed(
    system: System,
    klass: QubeClass,
    volumes: Mapping[str, Volume],
    template: Qube | None,
    wanted: Mapping[str, str],
) -> dict[str, Volume]:
    """The volumes of a new qube in the pools they belong to; wanted: those chosen, by volume.

    Raises:
        RefusedError: a pool holds no such volumes.
    """
    found = {}
    for name, volume in volumes.items():
        model = None
        if klass is QubeClass.DISPOSABLE and template is not None:
            model = template.volumes[name]
        pool = _pool_of_new(system, volume, template, model, wanted.get(name))
        in_pool = replace(volume, pool=pool.name, revisions_to_keep=pool.revisions_to_keep)
        if in_pool.can_be_ephemeral:
            in_pool = replace(in_pool, ephemeral=pool.ephemeral_volatile)
        if model is not None:
            in_pool = replace(in_pool, rw=model.rw, ephemeral=model.ephemeral)
        found[name] = in_pool
    return found


def pool_of(system: System, qube: Qube, volume: Volume) -> str:
    """The pool of a volume: a snapshot lies where its source does."""
    source = None
    if volume.snap_on_start:
        source = source_of(volume, system.find(qube.template), system.root_template(qube))
    return (source or volume).pool


def default_pool(system: System, setting: str) -> str:
    """The pool that a `default_pool*` property names."""
    prop = GLOBAL[setting]
    if setting in system.properties:
        return str(system.properties[setting])
    return str(prop.default(system, system.dom0)) if prop.default is not None else ""


def users_of_pool(system: System, pool: Pool) -> list[str]:
    """What keeps a pool from being removed."""
    used = [
        f"global property {name}"
        for name in (*DEFAULTS, KERNEL_DEFAULT)
        if default_pool(system, name) == pool.name
    ]
    for qube in system.in_order():
        used += [
            f"volume {qube.name}:{name}"
            for name, volume in qube.volumes.items()
            if pool.name in (volume.pool, pool_of(system, qube, volume))
        ]
    return used


def _pool_of_new(
    system: System,
    volume: Volume,
    template: Qube | None,
    model: Volume | None,
    wanted: str | None,
) -> Pool:
    if volume.snap_on_start and template is not None:
        source = source_of(volume, template, system.root_template(template))
        return system.pools[(source or volume).pool]
    name = wanted or (model.pool if model is not None else None)
    pool = system.pools.get(name or default_pool(system, f"default_pool_{volume.name}"))
    if pool is None or pool.holds_kernels:
        error = RefusedError(
            f"Pool {name or 'none'} holds no {volume.name} volumes"
            if pool is None
            else f"Pool {pool.name} holds kernels, and no {volume.name} volumes"
        )
        error.hint = f"Choose another: qubes-prefs default_pool_{volume.name} POOL"
        raise error
    return pool
