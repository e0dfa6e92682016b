"""qvm-copy-to-vm and qvm-move-to-vm, against the receiver that qubes have."""

import sys
from pathlib import Path

import pytest

from insula.tools import qvm_copy
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_agent import SERVICES
from tests.unit.tools.fake_daemon import FakeDaemon, RefusedError

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
def incoming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the qube puts what it gets."""
    place = tmp_path / "incoming"
    place.mkdir()
    words = [sys.executable, "-m", "insula.filecopy.unpacker", "--allow-all-names", "", str(place)]
    monkeypatch.setitem(SERVICES, "qubes.Filecopy", words)
    return place


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    (place / "one").write_bytes(b"1" * 200_000)
    return place


def test_a_directory_is_copied(run: Run, daemon: FakeDaemon, incoming: Path, photos: Path) -> None:
    done = run(qvm_copy.copy_to_vm, "work", f"{photos}/")
    assert done.code == 0
    assert (incoming / "photos" / "one").read_bytes() == (photos / "one").read_bytes()
    assert daemon.calls == [{"target": "work", "service": "qubes.Filecopy", "gui": False}]


def test_what_is_moved_is_gone_once_it_arrived(run: Run, incoming: Path, photos: Path) -> None:
    assert run(qvm_copy.move_to_vm, "--without-progress", "work", str(photos)).code == 0
    assert (incoming / "photos" / "one").stat().st_size == 200_000
    assert not photos.exists()


def test_what_did_not_arrive_stays(run: Run, incoming: Path, photos: Path) -> None:
    (incoming / "photos").mkdir()
    (incoming / "photos" / "one").write_text("old")
    assert run(qvm_copy.move_to_vm, "work", str(photos)).code == 1
    assert (photos / "one").exists()
    assert (incoming / "photos" / "one").read_text() == "old"


def test_a_receiver_that_only_ends_well_is_not_believed(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SERVICES, "qubes.Filecopy", ["sh", "-c", "head -c 1000 >/dev/null"])
    assert run(qvm_copy.move_to_vm, "work", str(photos)).code == 1
    assert (photos / "one").exists()


@pytest.mark.usefixtures("incoming")
def test_names_that_show_as_others_need_a_receiver_that_takes_all(
    run: Run, daemon: FakeDaemon, photos: Path
) -> None:
    (photos / "\u202e").touch()
    assert run(qvm_copy.copy_to_vm, "work", str(photos)).code == 0
    assert daemon.calls[-1]["service"] == "qubes.Filecopy+allow-all-names"


def test_what_cannot_be_sent_is_told_before_anything_is(
    run: Run, daemon: FakeDaemon, photos: Path
) -> None:
    (photos / "link").symlink_to("/etc/passwd")
    done = run(qvm_copy.copy_to_vm, "work", str(photos))
    assert done.code == 1
    assert "--ignore-symlinks" in done.err
    assert run(qvm_copy.copy_to_vm, "work", f"{photos}/none").code == 1
    assert daemon.calls == []


def test_a_refusal_is_told(run: Run, daemon: FakeDaemon, photos: Path) -> None:
    daemon.refusals["call", "work"] = RefusedError("QubesException", "it is broken")
    done = run(qvm_copy.copy_to_vm, "work", str(photos))
    assert (done.code, done.err) == (255, "qvm-copy-to-vm: error: it is broken\n")
