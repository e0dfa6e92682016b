"""The end of a way out, as the keeper tells of it."""

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from insula.daemon.network import uplink
from insula.daemon.network.uplink import UplinkError, Uplinks
from insula.keeper.client import KeeperClient

QUBE = UUID(int=7)


class FakeKeeper:
    """Knows one process, which ends when it is killed unless it is stubborn."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.known: dict[str, Any] = {f"uplink/{QUBE}": SimpleNamespace(exit=None)}
        self._stubborn = stubborn

    async def kill(self, name: str) -> None:
        if not self._stubborn:
            self.known[name].exit = 137

    async def list(self) -> dict[str, Any]:
        return self.known

    async def forget(self, name: str) -> None:
        del self.known[name]


def uplinks(keeper: FakeKeeper) -> Uplinks:
    return Uplinks(cast(KeeperClient, keeper), root=False)


async def test_what_is_closed_is_forgotten() -> None:
    keeper = FakeKeeper()
    await uplinks(keeper).close(QUBE)
    assert keeper.known == {}


async def test_what_does_not_end_is_an_error_that_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplink, "_END_TIMEOUT", 0.1)
    with pytest.raises(UplinkError, match="does not end"):
        await uplinks(FakeKeeper(stubborn=True)).close(QUBE)
