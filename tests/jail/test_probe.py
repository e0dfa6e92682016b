"""What a broken-into QEMU could do, tried in the jail a machine gets and outside of it."""

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.jail.probing import (
    InJail,
    Report,
    World,
    on_host,
    outside,
    without_walls,
    world,
)
from tests.jail.tries import TRIES, Shown, shown
from tests.keeping import UID, keeping

ROOT = os.geteuid() == 0
PERSON = 764_100_000  # an ordinary user, whose keeper and machines are one user
OWN_USER, KEEPERS_USER = "a user of its own", "the keeper's user"
BOTH, OURS = "both filters", "the jail's filter alone"
JAILS = [
    (kind, filters)
    for kind in ((OWN_USER, KEEPERS_USER) if ROOT else (KEEPERS_USER,))
    for filters in (BOTH, OURS)
]
# The jail's filter is there before bwrap becomes QEMU: only QEMU's own can forbid this.
LEFT_TO_QEMU = "execve"
Run = Callable[[str, str], Report]


@pytest.fixture(scope="module")
def surroundings() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def jailed(surroundings: World) -> Run:
    """The report of each kind of jail; each is made once."""

    async def report(kind: str, filters: str) -> Report:
        own = kind == OWN_USER
        person = PERSON if ROOT and not own else None
        async with keeping(person) as keeper:
            owner = os.geteuid() if person is None else person
            jail = InJail(keeper, surroundings, UID if own else None, owner, filters == BOTH)
            return await jail.run()

    return cache(lambda kind, filters: asyncio.run(report(kind, filters)))


@pytest.mark.parametrize(
    ("kind", "filters", "name"),
    [
        (kind, filters, name)
        for kind, filters in JAILS
        for name in TRIES
        if name != LEFT_TO_QEMU or filters == BOTH
    ],
)
def test_no_try_succeeds(jailed: Run, kind: str, filters: str, name: str) -> None:
    outcome = jailed(kind, filters).outcomes[name]
    assert outcome == "killed" or outcome.startswith("refused "), outcome


@pytest.mark.parametrize(("kind", "filters"), JAILS)
def test_all_tries_are_known_by_name(jailed: Run, kind: str, filters: str) -> None:
    assert set(jailed(kind, filters).outcomes) == set(TRIES)


@pytest.fixture(scope="module")
def unjailed(surroundings: World) -> dict[Shown, Report]:
    """Reports of the runs that show what the probe can do without a jail."""
    reports = {
        Shown.OUTSIDE: outside(surroundings),
        Shown.WALLS: without_walls(surroundings, shown(Shown.WALLS)),
        Shown.HOST: on_host(surroundings, shown(Shown.HOST)),
    }
    if ROOT:
        reports[Shown.ROOT] = on_host(surroundings, shown(Shown.ROOT))
    return reports


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (where, name)
        for where in (Shown.OUTSIDE, Shown.WALLS, Shown.HOST, *([Shown.ROOT] if ROOT else []))
        for name in shown(where)
    ],
    ids=lambda one: one.name.lower() if isinstance(one, Shown) else one,
)
def test_without_the_jail_it_succeeds(
    unjailed: dict[Shown, Report], where: Shown, name: str
) -> None:
    outcome = unjailed[where].outcomes[name]
    assert outcome.startswith("reached "), outcome
