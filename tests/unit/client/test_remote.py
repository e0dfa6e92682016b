"""The client in a qube: everything goes by calls, and what is refused is told."""

import asyncio
import io
import os
from pathlib import Path

import pytest

from insula.client import App, errors, instance
from insula.client.importing import import_volume
from insula.client.services import run_service
from tests.live import Live
from tests.serving import TEMPLATE, TIMEOUT
from tests.unit.client.in_qube import InQube, go_into_qube


@pytest.fixture
def qube(served: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InQube:
    served.do(served.instance.qube("work"))
    return go_into_qube(tmp_path / "qube", served.instance.run, monkeypatch)


def test_the_system_is_seen_and_changed_by_calls(qube: InQube) -> None:
    app = App()
    assert app.domains.names() == ["dom0", TEMPLATE, "work"]
    work = app.domains["work"]
    work.label = "red"
    work.features["x-note"] = "a  b"
    assert (work.label, dict(work.features)) == ("red", {"x-note": "a  b"})
    assert set(qube.called()) == {
        "dom0 admin.vm.List",
        "work admin.vm.property.Set+label",
        "work admin.vm.property.Get+label",
        "work admin.vm.feature.Set+x-note",
        "work admin.vm.feature.List",
        "work admin.vm.feature.Get+x-note",
    }


def test_what_dom0_refuses_is_the_same_error_as_there(qube: InQube) -> None:
    assert qube
    with pytest.raises(errors.QubesLabelNotFoundError, match="mauve"):
        App().domains["work"].label = "mauve"
    with pytest.raises(errors.QubesDaemonAccessError, match=r"no answer[^/]*$"):
        App().call("admin.vm.Nothing")


def test_what_the_policy_refuses_is_told(qube: InQube) -> None:
    qube.refuse("admin.vm.List", "admin.vm.property.GetAll")
    with pytest.raises(errors.QubesDaemonAccessError, match=r"admin\.vm\.List.*Request refused"):
        App().domains.names()
    # What may not be had at once is asked for one by one.
    assert App(cache=True).domains.known("work").get_all()["label"].value == "blue"


def test_a_qube_without_the_program_cannot_call(
    qube: InQube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert qube
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    for act in (
        App().domains.names,
        lambda: run_service("work", "qubes.VMShell"),
        lambda: asyncio.run(_next_event()),
    ):
        with pytest.raises(errors.QubesDaemonCommunicationError, match="no qrexec-client-vm"):
            act()


def test_where_we_are_is_seen_by_what_is_there(
    qube: InQube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert qube
    assert instance.in_qube()
    (tmp_path / "qube" / "none").touch()
    assert not instance.in_qube()  # /etc/qubes-release is dom0's
    (tmp_path / "qube" / "none").unlink()
    (tmp_path / "qube" / "insula").mkdir()
    assert not instance.in_qube()  # an instance inside the qube
    (tmp_path / "qube" / "insula").rmdir()
    monkeypatch.setenv("INSULA_RUN", str(tmp_path))
    assert not instance.in_qube()
    monkeypatch.delenv("INSULA_RUN")
    monkeypatch.setattr(instance, "_AGENT", str(tmp_path / "none"))
    assert not instance.in_qube()


async def _next_event() -> str:
    events = App().events()
    try:
        async with asyncio.timeout(TIMEOUT):
            async for event in events:
                return event.name
    finally:
        await events.aclose()
    raise AssertionError("a stream never just ends")


def test_events_come_by_a_call_that_lasts(qube: InQube) -> None:
    assert asyncio.run(_next_event()) == "connection-established"
    assert qube.called() == ["dom0 admin.Events"]
    qube.refuse("admin.Events")
    with pytest.raises(errors.QubesDaemonAccessError, match="Request refused"):
        asyncio.run(_next_event())


@pytest.mark.parametrize("size", [None, 3 << 20])
def test_volumes_are_imported_by_a_program_of_dom0(
    qube: InQube, served: Live, size: int | None
) -> None:
    volume = App().domains["work"].volumes["private"]
    length = volume.size if size is None else size
    pattern = os.urandom(1 << 20)

    class Data(io.RawIOBase):
        left = length

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = min(len(buffer), len(pattern), self.left)
            first = self.left > length - len(pattern)
            buffer[:count] = pattern[:count] if first else bytes(count)
            self.left -= count
            return count

    qube.called()
    import_volume("work", "private", io.BufferedReader(Data()), size)
    (called,) = qube.called()
    assert called == f"work admin.vm.volume.Import{'WithSize' if size else ''}+private"
    assert volume.size == length
    with pytest.raises(errors.QubesException, match="too early"):
        import_volume("work", "private", io.BytesIO(b"x" * 100), 101)
    qube.refuse("admin.vm.volume.ImportWithSize+private")
    with pytest.raises(errors.QubesDaemonAccessError, match="Request refused"):
        import_volume("work", "private", io.BytesIO(b"x" * (1 << 20)), 1 << 20)
    assert served


def test_services_of_other_qubes_are_called(qube: InQube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE", "cat; head -c 300000 /dev/zero >&2; exit 3")
    payload = os.urandom(300_000)
    done = run_service("work", "test.Echo+word", payload)
    assert (done.code, done.output == payload, len(done.errors)) == (3, True, 300_000)
    assert qube.called() == ["work test.Echo+word"]
    monkeypatch.setenv("SERVICE", "kill -9 $$")
    assert run_service("work", "test.Echo").code == 137
    qube.refuse("test.Echo")
    with pytest.raises(errors.QubesDaemonAccessError):
        run_service("work", "test.Echo")
    with pytest.raises(errors.QubesVMNotRunningError):
        run_service("work", "test.Other", autostart=False)
    with pytest.raises(errors.QubesException, match="only dom0"):
        run_service("work", "test.Other", user="root")


def test_too_much_output_ends_a_service(qube: InQube, monkeypatch: pytest.MonkeyPatch) -> None:
    assert qube
    monkeypatch.setenv("SERVICE", "yes")
    assert len(run_service("work", "test.Yes", limit=10_000).output) > 10_000
