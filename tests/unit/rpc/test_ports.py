"""Data ports: none is given twice, some are kept for outgoing calls, waiters keep their order."""

import asyncio

import pytest

from insula.daemon.rpc.ports import Direction, Holder, PortPool

DOM0 = Holder(Direction.INCOMING, 0)
WORK = Holder(Direction.INCOMING, 5)
OUT = Holder(Direction.OUTGOING, 5)


async def test_ports_are_distinct_until_given_back() -> None:
    pool = PortPool(3, 12, reserved=2)
    got = [await pool.acquire(DOM0, 1) for _ in range(8)]
    assert len(set(got)) == 8
    pool.release(got[3])
    assert await pool.acquire(DOM0, 1) == got[3]


async def test_incoming_calls_leave_ports_for_outgoing_ones() -> None:
    pool = PortPool(3, 12, reserved=2)
    for _ in range(8):
        await pool.acquire(DOM0, 1)
    with pytest.raises(TimeoutError):
        await pool.acquire(DOM0, 0.01)
    assert await pool.acquire(OUT, 1) in range(3, 13)


async def test_one_qube_cannot_hold_every_incoming_port() -> None:
    pool = PortPool(3, 12, reserved=2)
    for _ in range(4):
        await pool.acquire(WORK, 1)
    with pytest.raises(TimeoutError):
        await pool.acquire(WORK, 0.01)
    assert await pool.acquire(DOM0, 1) in range(3, 13)


async def test_waiters_are_served_in_order_and_a_cancelled_one_takes_nothing() -> None:
    pool = PortPool(3, 4, reserved=0)
    first, second = await pool.acquire(DOM0, 1), await pool.acquire(DOM0, 1)
    waiting = [asyncio.create_task(pool.acquire(DOM0, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    pool.release(first)
    assert await waiting[1] == first
    pool.release(second)
    assert await waiting[2] == second
    assert pool.in_use() == 2


async def test_a_port_claimed_after_a_restart_is_not_given_again() -> None:
    pool = PortPool(3, 5, reserved=0)
    pool.claim(3, DOM0)
    assert {await pool.acquire(DOM0, 1), await pool.acquire(DOM0, 1)} == {4, 5}
