"""Descriptors held by name, and lists that are longer than a record."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.keeper.server import _page
from insula.protocol.keeper import MAX_NAME
from tests.keeping import Keeping


def memory(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


async def content(keeper: Keeping, name: str) -> bytes:
    descriptor = await keeper.client.take(name)
    try:
        return os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)


async def test_what_is_held_can_be_taken_again_and_again(keeper: Keeping) -> None:
    descriptor = memory(b"one")
    await keeper.client.hold("a", descriptor)
    os.close(descriptor)
    assert [await content(keeper, "a") for _ in range(3)] == [b"one"] * 3


async def test_a_second_hold_replaces_the_first_and_closes_it(keeper: Keeping) -> None:
    ours, theirs = os.pipe()
    await keeper.client.hold("a", theirs)
    os.close(theirs)
    other = memory(b"two")
    await keeper.client.hold("a", other)
    os.close(other)
    assert os.read(ours, 1) == b""
    os.close(ours)
    assert await content(keeper, "a") == b"two"


async def test_what_is_dropped_is_closed_and_gone(keeper: Keeping) -> None:
    ours, theirs = os.pipe()
    await keeper.client.hold("a", theirs)
    os.close(theirs)
    await keeper.client.drop("a")
    assert os.read(ours, 1) == b""
    os.close(ours)
    for gone in (keeper.client.take, keeper.client.drop):
        with pytest.raises(KeyError):
            await gone("a")


async def test_names_are_listed_by_prefix_over_many_records(keeper: Keeping) -> None:
    descriptor = memory(b"")
    names = [f"ram/{number:03}/{'é' * (MAX_NAME - 8)}" for number in range(120)]
    for name in [*names, "other"]:
        await keeper.client.hold(name, descriptor)
    os.close(descriptor)
    assert await keeper.client.names("ram/") == names
    assert await keeper.client.names("") == ["other", *names]
    assert await keeper.client.names("none") == []


@given(st.lists(st.text("ab🖥é", min_size=1, max_size=MAX_NAME), unique=True, max_size=400))
def test_pages_together_are_the_whole(names: list[str]) -> None:
    names.sort()
    found: list[str] = []
    more = True
    while more:
        page, more = _page(names, max(found, default=""), 120)
        assert page or not more
        found += page
    assert found == names
