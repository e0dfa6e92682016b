"""qvm-open-in-dvm: what goes to the disposable, and what becomes of what comes back."""

from pathlib import Path

import pytest

from insula.protocol.open_in_vm import encode_name
from insula.tools import qvm_open_in_dvm
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_agent import SERVICES
from tests.unit.tools.fake_daemon import FakeDaemon, RefusedError

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text("old\n")
    path.chmod(0o640)
    return path


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the qube's side of the service keeps what it got; what it does is $SCRIPT."""
    kept = tmp_path / "sent"
    script = f'cat > {kept}; eval "$SCRIPT"'
    monkeypatch.setitem(SERVICES, "qubes.OpenInVM", ["sh", "-c", script])
    monkeypatch.setitem(SERVICES, "qubes.OpenURL", ["sh", "-c", script])
    monkeypatch.setenv("SCRIPT", "true")
    return kept


def test_a_file_goes_to_a_disposable_with_its_name(
    run: Run, daemon: FakeDaemon, note: Path, service: Path
) -> None:
    done = run(qvm_open_in_dvm.main, str(note))
    assert (done.code, done.out, done.err) == (0, "", "")
    assert service.read_bytes() == encode_name(b"note.txt") + b"old\n"
    assert daemon.calls == [{"target": "@dispvm", "service": "qubes.OpenInVM", "gui": True}]
    assert note.read_text() == "old\n"


def test_an_edited_file_takes_the_old_ones_place(
    run: Run, note: Path, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPT", "echo new")
    link = note.parent / "link"
    link.symlink_to(note)
    assert run(qvm_open_in_dvm.main, str(link)).code == 0
    assert service.exists()
    assert note.read_text() == "new\n"
    assert note.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert {path.name for path in note.parent.iterdir()} == {"note.txt", "link", "sent"}


@pytest.mark.usefixtures("service")
def test_changes_to_what_is_only_viewed_are_dropped(
    run: Run, note: Path, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPT", "echo new")
    assert run(qvm_open_in_dvm.main, "--view-only", str(note)).code == 0
    assert service.read_bytes() == encode_name(b"note.txt", view_only=True) + b"old\n"
    assert note.read_text() == "old\n"


@pytest.mark.usefixtures("service")
def test_what_came_before_a_failure_is_dropped(
    run: Run, note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPT", "echo half; echo trouble >&2; exit 3")
    done = run(qvm_open_in_dvm.main, str(note))
    assert done.code == 3
    assert done.err == f"trouble\nqvm-open-in-dvm: {note}: could not be opened (status 3)\n"
    assert note.read_text() == "old\n"


@pytest.mark.usefixtures("service")
def test_a_disposable_cannot_fill_the_disk(
    run: Run, note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qvm_open_in_dvm, "_MAX_GROWTH", 100_000)
    monkeypatch.setenv("SCRIPT", "yes")
    done = run(qvm_open_in_dvm.main, str(note))
    assert done.code == 141
    assert "far more than it was given" in done.err
    assert note.read_text() == "old\n"


@pytest.mark.usefixtures("service")
def test_where_the_folder_is_not_to_be_written_the_file_is_kept_elsewhere(
    run: Run, note: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = qvm_open_in_dvm.tempfile.mkstemp  # type: ignore[attr-defined]

    def refuse(prefix: str, dir: Path | None = None) -> tuple[int, str]:  # noqa: A002
        if dir is not None:
            raise PermissionError
        descriptor, name = make(prefix=prefix, dir=tmp_path)
        return int(descriptor), str(name)

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setenv("SCRIPT", "echo new")
    done = run(qvm_open_in_dvm.main, str(note))
    assert done.code == 0
    kept = Path(done.err.split()[-1])
    assert kept.name.startswith("file_edited_in_dvm.")
    assert (kept.read_text(), note.read_text()) == ("new\n", "old\n")


def test_several_files_each_have_their_disposable(
    run: Run, daemon: FakeDaemon, note: Path, service: Path
) -> None:
    other = note.parent / "other"
    other.write_text("")
    assert run(qvm_open_in_dvm.main, str(note), str(other)).code == 0
    assert service.exists()
    assert len(daemon.calls) == 2
    assert daemon.calls_end()


def test_addresses_go_to_their_service(run: Run, daemon: FakeDaemon, service: Path) -> None:
    assert run(qvm_open_in_dvm.main, "https://example.org/?a=b").code == 0
    assert service.read_bytes() == b"https://example.org/?a=b\n"
    assert daemon.calls[0]["service"] == "qubes.OpenURL"


def test_a_refused_disposable_is_told(run: Run, daemon: FakeDaemon, note: Path) -> None:
    daemon.refusals["call", "@dispvm"] = RefusedError("QubesException", "none is set")
    done = run(qvm_open_in_dvm.main, str(note))
    assert (done.code, done.err) == (255, f"qvm-open-in-dvm: error: {note}: none is set\n")


@pytest.mark.parametrize("what", ["no-such-file", "."])
def test_what_is_no_file_is_a_usage_error(run: Run, daemon: FakeDaemon, what: str) -> None:
    assert run(qvm_open_in_dvm.main, what).code == 2
    assert not daemon.calls
