"""Services of a qube that only need the qube's own files."""

import os
import subprocess
from pathlib import Path

import pytest

import insula.guest
from insula.guest.services import hooks, menus, network_time

TIMEOUT = 30.0  # seconds
FILES = Path(insula.guest.__path__[0], "files")


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_hooks_run_in_order_and_a_failure_is_told(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program(tmp_path / "20.sh", f"echo b >> {said}; exit 3")
    program(tmp_path / "10.sh", f"echo a >> {said}")
    program(tmp_path / "30.sh", f"echo c >> {said}")
    program(tmp_path / "40.sh", f"echo d >> {said}").chmod(0o644)
    assert hooks.run_hooks(tmp_path) == 1
    assert said.read_text() == "a\nb\nc\n"
    assert hooks.run_hooks(tmp_path / "none") == 0


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qube with modules; what modprobe is asked is in the file."""
    (tmp_path / "list").write_text("# some\niwlwifi\nxhci-pci # usb\nnot-there\n--all\n")
    (tmp_path / "own").write_text("own\n")
    (tmp_path / "modules").write_text("iwlwifi 1 0 - Live\nxhci_pci 1 0\nown 1 0\nother 1 0\n")
    asked = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "modprobe", f'echo "$@" >> {asked}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(hooks, "_LISTS", (tmp_path / "list", tmp_path / "own"))
    monkeypatch.setattr(hooks, "_MODULES", tmp_path / "modules")
    monkeypatch.setattr(hooks, "_UNLOADED", tmp_path / "unloaded")
    monkeypatch.setattr(hooks, "_CUSTOM", tmp_path / "custom")
    return asked


def test_modules_go_before_sleep_and_come_back(modules: Path) -> None:
    assert hooks.main("qubes.SuspendPre") == 0
    assert modules.read_text() == "-r -- iwlwifi\n-r -- xhci-pci\n-r -- own\n"
    modules.unlink()
    assert hooks.main("qubes.SuspendPost") == 0
    assert modules.read_text() == "-- iwlwifi\n-- xhci-pci\n-- own\n"
    assert hooks.main("qubes.SuspendPost") == 0


def test_an_own_list_does_not_count_where_only_some_of_a_qube_is_kept(modules: Path) -> None:
    (modules.parent / "custom").touch()
    hooks.main("qubes.SuspendPre")
    assert "own" not in modules.read_text()


def test_what_came_is_among_the_places_of_file_managers_once(tmp_path: Path) -> None:
    script = (FILES / "qubes-rpc" / "qubes.Filecopy").read_text()
    unpacker = program(tmp_path / "unpacker", 'cat; echo " $@"')
    script = script.replace("/usr/lib/insula/bin/qfile-unpacker", str(unpacker))
    for argument, given in (("", " \n"), ("allow-all-names", " --allow-all-names\n")):
        done = subprocess.run(
            ["/bin/sh", "-c", script, "qubes.Filecopy", argument],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            input=b"stream", capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.decode()) == (0, "stream" + given)
    bookmarks = tmp_path / ".config" / "gtk-3.0" / "bookmarks"
    assert bookmarks.read_text() == f"file://{tmp_path}/QubesIncoming\n"
    refused = subprocess.run(["/bin/sh", "-c", script, "x", "other"], check=False, timeout=TIMEOUT)
    assert refused.returncode == 1


@pytest.mark.parametrize(
    ("marker", "listed"),
    [
        ("persistent-full", ["own", "shared"]),
        ("persistent-rw-only", ["own"]),
        ("persistent-none", []),
    ],
)
def test_menus_have_what_the_qube_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str, listed: list[str]
) -> None:
    folders = [tmp_path / name for name in ("own", "shared")]
    (tmp_path / marker).touch()
    monkeypatch.setattr(menus, "_RUN", tmp_path)
    monkeypatch.setattr(menus, "data_folders", lambda: folders)
    devices = {Path("/rw"): 1, folders[0]: 1, folders[1]: 2}
    monkeypatch.setattr(menus, "_device", devices.__getitem__)
    for folder in folders:
        folder.mkdir()
    assert [folder.name for folder in menus.persistent_folders()] == listed


@pytest.fixture
def clock_qube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clock qube whose time service does what the file systemctl says."""
    (tmp_path / "on").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(network_time, "_ON", tmp_path / "on")
    monkeypatch.setattr(network_time, "_SYNCHRONISED", tmp_path / "synchronized")
    monkeypatch.setattr(network_time, "_TIMEOUT", 0.3)
    return tmp_path


def test_the_time_is_taken_anew_from_the_network(clock_qube: Path) -> None:
    here = clock_qube
    script = f'echo "$@" > {here}/asked; [ -e {here}/synchronized ] || touch {here}/synchronized'
    program(here / "bin" / "systemctl", script)
    assert network_time.main() == 0
    assert (here / "asked").read_text() == "restart systemd-timesyncd.service\n"


def test_a_time_from_before_does_not_count(
    clock_qube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clock_qube / "synchronized").touch()
    program(clock_qube / "bin" / "systemctl", "exit 0")
    assert network_time.main() == 1
    assert "no server" in capsys.readouterr().err
    program(clock_qube / "bin" / "systemctl", "exit 5")
    assert network_time.main() == 1
    (clock_qube / "on").unlink()
    assert network_time.main() == 1
    assert "clocksync is off" in capsys.readouterr().err
