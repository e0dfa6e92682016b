"""qvm-appmenus and qvm-sync-appmenus."""

import io
import sys
from pathlib import Path

import pytest

from insula.menus.store import Store
from insula.tools import qvm_appmenus, qvm_sync_appmenus
from tests.unit.menus.conftest import menu, store, system
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon

__all__ = ["menu", "store", "system"]
pytestmark = pytest.mark.usefixtures("system", "store", "menu")
WORK = "insula-my_dwork-xterm.desktop"


def test_what_there_is_is_listed(run: Run) -> None:
    done = run(qvm_appmenus.main, "--get-available", "my-work")
    assert (done.code, done.err) == (0, "")
    assert done.out == "files.desktop - Files\nxterm.desktop - XTerm\n"
    more = ("--get-available", "--i-understand-format-is-changing", "--file-field", "Icon", "net")
    assert run(qvm_appmenus.main, *more).out.splitlines()[0] == "files.desktop - Files - folder"
    words = ("--get-available", "--template", "debian", "disp7")
    assert run(qvm_appmenus.main, *words).out == done.out


def test_what_is_chosen_is_kept_and_shown(
    run: Run, system: FakeDaemon, menu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_text("files.desktop\n\n")
    words = ("--set-whitelist", str(tmp_path / "list"), "--update", "my-work")
    assert run(qvm_appmenus.main, *words).code == 0
    assert system.qubes["my-work"].features["menu-items"] == "files.desktop"
    assert not (menu / "applications" / WORK).exists()
    assert run(qvm_appmenus.main, "--get-whitelist", "my-work").out == "files.desktop\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("xterm.desktop\nfiles.desktop\n"))
    assert run(qvm_appmenus.main, "--set-default-whitelist", "-", "debian").code == 0
    done = run(qvm_appmenus.main, "--get-default-whitelist", "debian")
    assert done.out == "xterm.desktop\nfiles.desktop\n"
    (tmp_path / "list").write_text("../x\n")
    done = run(qvm_appmenus.main, "--set-whitelist", str(tmp_path / "list"), "my-work")
    assert done.code == 1
    assert "not the name of a desktop file" in done.err


def test_menus_are_written_and_removed(run: Run, menu: Path) -> None:
    assert run(qvm_appmenus.main, "--create", "my-work").code == 0
    assert (menu / "applications" / WORK).exists()
    assert run(qvm_appmenus.main, "--remove", "my-work").code == 0
    assert not (menu / "applications" / WORK).exists()
    assert (menu / "applications" / "insula-net-xterm.desktop").exists()
    assert run(qvm_appmenus.main, "--update", "--all").code == 0
    assert (menu / "applications" / WORK).exists()


def test_a_copy_has_what_its_source_has(run: Run, store: Store) -> None:
    done = run(qvm_appmenus.main, "--init", "--update", "--source", "debian", "net")
    assert done.code == 0
    assert store.of("net") == store.of("debian")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["my-work"], 2),
        (["--update"], 2),
        (["--get-whitelist", "--get-available", "my-work"], 2),
        (["--update", "disp7"], 1),
        (["--update", "--force", "disp7"], 0),
        (["--get-available", "disp7"], 1),
        (["--get-available", "--force", "disp7"], 0),
    ],
)
def test_what_cannot_be_is_told(run: Run, words: list[str], code: int) -> None:
    assert run(qvm_appmenus.main, *words).code == code


def test_a_qube_is_asked_and_put_back_to_sleep(
    run: Run, system: FakeDaemon, store: Store, menu: Path, instance: Path
) -> None:
    (instance / "applications").write_text("new.desktop:Name=New\nnew.desktop:Icon=none\n")
    system.qubes["debian"].state = "Running"
    done = run(qvm_sync_appmenus.main, "debian")
    assert (done.code, done.err) == (0, "qvm-sync-appmenus: debian has 1 applications\n")
    assert list(store.of("debian").applications) == ["new"]
    assert (menu / "applications" / "insula-my_dwork-new.desktop").exists()
    assert system.qubes["debian"].state == "Running"


def test_the_menu_is_written_without_asking(run: Run, system: FakeDaemon, menu: Path) -> None:
    assert run(qvm_sync_appmenus.main, "--regenerate-only", "debian").code == 0
    assert (menu / "applications" / WORK).exists()
    assert system.calls == []


def test_a_qube_that_cannot_be_asked_changes_nothing(run: Run, store: Store) -> None:
    before = store.of("debian")
    done = run(qvm_sync_appmenus.main, "debian")  # There is no file that it could tell.
    assert done.code == 1
    assert "the service ended with 1" in done.err
    assert store.of("debian") == before
