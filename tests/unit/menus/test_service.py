"""qubes.SyncAppMenus, as a qube reaches it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from insula.dom0.confining import service_confinement
from insula.menus.store import Store
from tests.unit.tools.fake_daemon import FakeDaemon

TIMEOUT = 60.0  # seconds


def tell(source: str, lines: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-P", "-s", "-m", "insula.dom0.sync_app_menus"],
        env={**os.environ, "QREXEC_REMOTE_DOMAIN": source},
        input=lines,
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
        preexec_fn=service_confinement(),
    )


def test_a_qube_tells_and_the_menu_shows_it(
    system: FakeDaemon, store: Store, menu: Path, instance: Path
) -> None:
    (instance / "folder").write_bytes(b"1 1\n" + bytes(4))
    lines = b"a.desktop:Name=A\na.desktop:Icon=folder\nb.desktop:Name=B\xff\n" + b"c" * 5000 + b"\n"
    done = tell("debian", lines + b"d.desktop:Name=D")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sorted(store.of("debian").applications) == ["a", "d"]
    assert store.picture("debian", "a") is not None
    assert (menu / "applications" / "insula-my_dwork-d.desktop").exists()
    assert not (menu / "applications" / "insula-my_dwork-xterm.desktop").exists()
    assert [call["target"] for call in system.calls] == ["debian"]


@pytest.mark.parametrize("source", ["disp7", "nobody"])
def test_some_have_nothing_to_tell(system: FakeDaemon, store: Store, source: str) -> None:
    done = tell(source, b"a.desktop:Name=A\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"qubes.SyncAppMenus: ")
    assert store.qubes() == ["debian"]
    assert source == "nobody" or system.qubes[source].klass == "DispVM"


def test_a_qube_that_tells_too_much_changes_nothing(system: FakeDaemon, store: Store) -> None:
    before = store.of("debian")
    lines = b"".join(b"%d.desktop:Name=A\n" % number for number in range(3000))
    assert tell("debian", lines).returncode == 1
    assert store.of("debian") == before
    assert system.calls == []


@pytest.mark.usefixtures("system")
def test_one_at_a_time(store: Store) -> None:
    with store.only_changer("debian"):
        done = tell("debian", b"a.desktop:Name=A\n")
    assert done.returncode == 1
    assert b"being changed" in done.stderr
