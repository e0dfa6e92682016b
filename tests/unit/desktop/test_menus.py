"""When a session has the host's menu brought up to date."""

import asyncio
from pathlib import Path

import pytest

from insula.desktop import menus
from insula.desktop.menus import Menus, concerns_menus
from insula.protocol.admin import Event, ListedQube, listed_qube_line

TIMEOUT = 20.0  # seconds


@pytest.mark.parametrize(
    ("name", "fields", "concerned"),
    [
        ("connection-established", {}, True),
        ("domain-add", {"vm": "work"}, True),
        ("domain-add", {"vm": "disp123"}, False),
        ("domain-delete", {"vm": "work"}, True),
        ("domain-delete", {"vm": "disp1"}, False),
        ("property-set:label", {}, True),
        ("property-reset:default_dispvm", {}, True),
        ("property-set:memory", {}, False),
        ("domain-feature-set:menu-items", {}, True),
        ("domain-feature-delete:internal", {}, True),
        ("domain-feature-pre-set:internal", {}, False),
        ("domain-feature-set:os", {}, False),
        ("domain-start", {}, False),
    ],
)
def test_what_menus_depend_on(name: str, fields: dict[str, str], *, concerned: bool) -> None:
    assert concerns_menus(Event("work", name, fields)) == concerned


async def test_many_events_are_one_change_and_only_some_qubes_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(menus, "_PAUSE", 0.05)
    ran: list[list[str]] = []

    async def refresh(started: list[str]) -> None:
        ran.append(started)

    async def ask(qube: str, method: str) -> str:
        assert method == "admin.vm.List"
        klass = "TemplateVM" if qube.startswith("deb") else "AppVM"
        return listed_qube_line(ListedQube(qube, klass, "Running", "0" * 36))

    async def until(count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(ran) < count:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(menus, "_refresh", refresh)
    followed = Menus(ask)
    serving = asyncio.create_task(followed.serve())
    try:
        for _ in range(5):
            followed.take(Event("work", "property-set:label", {}))
        await until(1)
        followed.take(Event("work", "domain-start", {}))
        followed.take(Event("debian", "domain-start", {}))
        await until(2)
        followed.take(Event("work", "domain-start", {}))
        await asyncio.sleep(0.3)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert ran == [[], ["debian"]]


async def test_what_goes_wrong_is_told_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INSULA_RUN", str(tmp_path))
    monkeypatch.setenv("INSULA_MENU", str(tmp_path))
    await menus._refresh(["work"])
    assert "status 1" in caplog.text
