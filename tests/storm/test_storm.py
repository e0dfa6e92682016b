"""A daemon that is killed again and again amid changes: none that it acknowledged is lost.

INSULA_TEST_KILLS: how often it is killed.
"""

import os
import random
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from tests.daemons import Host, hosting, until
from tests.storm.expected import Writer

KILLS = int(os.environ.get("INSULA_TEST_KILLS", "25"))
WRITERS = 4
LONGEST = 0.25  # seconds that a daemon is left alone


def test_no_acknowledged_change_is_lost(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown when it fails
    chance = random.Random(seed)
    writers = [Writer(f"w{number}", chance.randrange(1 << 32)) for number in range(WRITERS)]
    with hosting(tmp_path / "home") as host:
        for _ in range(KILLS):
            daemon = host.serving()
            for writer in writers:
                writer.check(host.call)
            _storm(host, writers, lambda daemon=daemon: daemon.kill(), chance.random() * LONGEST)
            daemon.communicate()
            host.daemons.clear()
            _assert_whole(host.home / "insula.db")
        host.serving()
        for writer in writers:
            writer.check(host.call)
        until(lambda: _files_of_strangers(host) == set())
    assert sum(writer.acknowledged for writer in writers) >= KILLS


def _storm(host: Host, writers: list[Writer], kill: object, after: float) -> None:
    """Let all write until the daemon is gone; their failures are ours."""
    failures: list[BaseException] = []

    def write(writer: Writer) -> None:
        try:
            writer.run(host.call)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    time.sleep(after)
    assert callable(kill)
    kill()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _assert_whole(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _files_of_strangers(host: Host) -> set[str]:
    """Directories of volumes whose qube is not there."""
    listed = (host.call("admin.vm.List") or b"").decode()
    known = {line.rpartition("uuid=")[2] for line in listed.splitlines()}
    volumes = host.home / "volumes"
    return {entry.name for entry in volumes.iterdir()} - known if volumes.exists() else set()
