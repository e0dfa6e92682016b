"""qubes-create: a store, once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Host, hosting
from tests.serving import TIMEOUT
from tests.unit.tools.conftest import Done


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with hosting(tmp_path / "home") as made:
        yield made


def create(host: Host, *words: str) -> Done:
    """The command as a process."""
    program = "from insula.tools.qubes_create import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "INSULA_HOME": str(host.home), "INSULA_RUN": str(host.run)},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def listed(host: Host) -> bytes:
    host.serving()
    return host.call("admin.vm.List") or b""


def test_a_new_store_holds_dom0_alone(host: Host) -> None:
    assert create(host) == Done(0, "", "")
    assert (host.home / "insula.db").stat().st_mode & 0o077 == 0
    assert listed(host).startswith(b"0\0dom0 class=AdminVM state=Running ")
    assert host.call("admin.property.Get", argument="default_pool_kernel") == (
        b"0\0default=False type=str linux-kernel"
    )


def test_a_store_that_is_there_stays(host: Host) -> None:
    assert create(host).code == 0
    before = (host.home / "insula.db").read_bytes()
    done = create(host)
    assert (done.code, done.out) == (1, "")
    first, second = done.err.splitlines()
    assert first.startswith(f"qubes-create: error: {host.home}/insula.db is a store already")
    assert "INSULA_HOME" in second
    assert (host.home / "insula.db").read_bytes() == before


def test_what_only_was_begun_is_finished(host: Host) -> None:
    host.home.mkdir()
    (host.home / "insula.db").touch()
    assert create(host).code == 0
    assert listed(host).count(b"\n") == 1


def test_under_a_daemon_nothing_is_made(host: Host) -> None:
    host.serving()
    done = create(host)
    assert done.code == 1
    assert done.err.startswith(f"qubes-create: error: another daemon uses {host.home}\n")


def test_it_takes_no_words(host: Host) -> None:
    assert create(host, "qubes.xml").code == 2
    assert not (host.home / "insula.db").exists()
