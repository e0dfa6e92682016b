"""Pools (admin-api.md section 4.6)."""

import secrets

from insula.daemon.admin.calls import Call, Method
from insula.daemon.admin.methods.volumes import lines, parse_count
from insula.daemon.model.errors import RefusedSilentlyError, ValueRefusedError
from insula.daemon.model.placing import pool_of
from insula.daemon.model.pool_options import parse_pool
from insula.daemon.model.pools import DRIVERS, Pool
from insula.daemon.model.properties.parsing import truth


def _pool(call: Call) -> Pool:
    found = call.api.world.system.pools.get(call.argument)
    if found is None:
        raise RefusedSilentlyError(f"no pool {call.argument!r}")
    return found


async def list_pools(call: Call) -> str:
    return "".join(f"{name}\n" for name in call.api.world.system.pools)


async def list_drivers(_call: Call) -> str:
    return "".join(f"{name} {' '.join(driver.options)}\n" for name, driver in DRIVERS.items())


async def info(call: Call) -> str:
    """Its configuration by key, then what its file system has."""
    pool, pools = _pool(call), call.api.pools
    shown: dict[str, object] = {
        "dir_path": pools.directory(pool),
        "driver": pool.driver,
        "name": pool.name,
    }
    offered = DRIVERS[pool.driver].options
    shown |= {
        key: getattr(pool, key)
        for key in ("ephemeral_volatile", "revisions_to_keep", "setup_check")
        if key in offered
    }
    fields = dict(sorted(shown.items()))
    if (room := await pools.room(pool)) is not None:
        fields |= {"size": room.size, "usage": room.used}
    if (outer := pools.included_in(pool)) is not None:
        fields["included_in"] = outer
    return lines(fields)


async def usage_details(call: Call) -> str:
    room = await call.api.pools.room(_pool(call))
    return "" if room is None else lines({"data_size": room.size, "data_usage": room.used})


async def list_volumes(call: Call) -> str:
    pool = _pool(call)
    if pool.holds_kernels:
        return "".join(f"{name}\n" for name in call.api.pools.kernels(pool))
    system = call.api.world.system
    vids = [
        call.api.volumes.vid(qube, name)
        for qube in system.in_order()
        for name, volume in qube.volumes.items()
        if pool_of(system, qube, volume) == pool.name
    ]
    return "".join(f"{vid}\n" for vid in vids)


async def add(call: Call) -> str:
    known, mark = call.api.world.system.pools, secrets.token_hex(16)
    await call.api.pools.add(parse_pool(call.argument, call.payload_text(), known, mark))
    return ""


async def remove(call: Call) -> str:
    await call.api.pools.remove(_pool(call))
    return ""


async def set_revisions_to_keep(call: Call) -> str:
    pool, count = _pool(call), parse_count(call.payload_text())
    await call.api.pools.keep_revisions(pool, count)
    return ""


async def set_ephemeral_volatile(call: Call) -> str:
    pool = _pool(call)
    try:
        ephemeral = truth(call.payload_text())
    except ValueRefusedError as error:
        raise RefusedSilentlyError(str(error)) from None
    await call.api.pools.set_ephemeral(pool, ephemeral=ephemeral)
    return ""


METHODS = {
    "admin.pool.List": Method(run=list_pools, destination="dom0"),
    "admin.pool.ListDrivers": Method(run=list_drivers, destination="dom0"),
    "admin.pool.Info": Method(run=info, destination="dom0", argument=True),
    "admin.pool.UsageDetails": Method(run=usage_details, destination="dom0", argument=True),
    "admin.pool.volume.List": Method(run=list_volumes, destination="dom0", argument=True),
    "admin.pool.Add": Method(run=add, destination="dom0", argument=True, payload=True),
    "admin.pool.Remove": Method(run=remove, destination="dom0", argument=True),
    "admin.pool.Set.revisions_to_keep": Method(
        run=set_revisions_to_keep, destination="dom0", argument=True, payload=True
    ),
    "admin.pool.Set.ephemeral_volatile": Method(
        run=set_ephemeral_volatile, destination="dom0", argument=True, payload=True
    ),
}
