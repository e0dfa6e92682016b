"""The store: what was written is there, whole or not at all, and trouble with it is told."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.model.labels import Label
from insula.daemon.model.pools import Pool
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.volume import Revision, Volume
from insula.daemon.store.records import (
    SCHEMA,
    Change,
    Run,
    drop_pool,
    drop_qube,
    drop_run,
    drop_setting,
    put_label,
    put_pool,
    put_qube,
    put_run,
    put_setting,
    setting_value,
)
from insula.daemon.store.store import FILE, Store, StoreError

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.uuids(), st.text(alphabet="\0\n'\"\\")
)


def qube(name: str = "work") -> Qube:
    uuid = uuid4()
    volume = Volume(
        owner=uuid,
        name="private",
        size=1 << 20,
        save_on_stop=True,
        layers=("1.qcow2", "3-4.qcow2"),
        committed=7,
        revisions=(Revision(1, 5, ("1.qcow2",)),),
        number=4,
    )
    return Qube(
        uuid=uuid,
        qid=3,
        name=name,
        klass=QubeClass.APP,
        label="red",
        properties={"netvm": None, "template": uuid4(), "memory": 5, "debug": True, "ip": "x"},
        features={"a": "", "b": "é"},
        tags={"one", "two"},
        volumes={"private": volume},
        fleeting=True,
    )


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path)
    yield made
    await made.close()


async def test_what_was_written_is_loaded(store: Store, tmp_path: Path) -> None:
    work = qube()
    label, run = Label(9, "pink", "0xff00ff"), Run(work.uuid, 4, 1.25)
    await store.write(put_qube(work), put_setting("x", work.uuid), put_label(label), put_run(run))
    other = Store(tmp_path)
    loaded = other.load()
    await other.close()
    assert loaded.qubes == [work]
    assert loaded.settings == {"x": work.uuid}
    assert loaded.labels == [label]
    assert loaded.runs == [run]


async def test_what_was_dropped_is_gone(store: Store) -> None:
    work = qube()
    await store.write(put_qube(work), put_setting("x", 1), put_run(Run(work.uuid, 4, 1.0)))
    await store.write(drop_qube(work.uuid), drop_setting("x"), drop_run(work.uuid))
    loaded = store.load()
    assert (loaded.qubes, loaded.settings, loaded.runs) == ([], {}, [])


@given(
    properties=st.dictionaries(st.text(), VALUES),
    features=st.dictionaries(st.text(), st.text()),
    tags=st.sets(st.text()),
)
def test_any_qube_survives_its_document(
    properties: dict[str, Any], features: dict[str, str], tags: set[str]
) -> None:
    made = qube()
    made.properties, made.features, made.tags = properties, features, tags
    (document,) = put_qube(made).values[1:]
    assert Qube.from_json(json.loads(str(document))) == made


@given(value=VALUES)
def test_any_setting_survives_its_document(value: Any) -> None:
    _, document = put_setting("x", value).values
    assert setting_value(str(document)) == value


async def test_changes_are_made_in_the_order_of_the_calls(store: Store) -> None:
    await asyncio.gather(*(store.write(put_setting("x", number)) for number in range(300)))
    assert store.load().settings == {"x": 299}


async def test_a_write_is_made_wholly_or_not_at_all(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.write(put_setting("x", 1), Change("INSERT INTO nothing VALUES (1)", ()))
    assert store.load().settings == {}


async def test_a_write_that_fails_takes_none_of_its_neighbours_along(store: Store) -> None:
    bad = Change("INSERT INTO label VALUES ('a', 1, 'x'), ('b', 1, 'x')", ())
    ends = await asyncio.gather(
        *(
            store.write(bad if number == 5 else put_setting(str(number), number))
            for number in range(10)
        ),
        return_exceptions=True,
    )
    assert [type(end) for end in ends if end is not None] == [StoreError]
    assert len(store.load().settings) == 9


async def test_a_caller_that_gives_up_does_not_take_its_write_back(store: Store) -> None:
    writing = asyncio.create_task(store.write(put_setting("x", 1)))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    await store.write(put_setting("y", 2))
    assert store.load().settings == {"x": 1, "y": 2}


async def test_what_was_asked_for_is_written_before_the_store_closes(tmp_path: Path) -> None:
    made = Store(tmp_path)
    writes = [asyncio.create_task(made.write(put_setting(str(n), n))) for n in range(50)]
    await asyncio.sleep(0)
    await made.close()
    await asyncio.gather(*writes)
    again = Store(tmp_path)
    assert len(again.load().settings) == 50
    await again.close()


async def test_the_store_is_its_owners_alone(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert store.load().qubes == []


def _spoil_header(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to look at" * 100)


def _spoil_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def _spoil_document(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE qube SET document = '[]'")
    connection.close()


def _spoil_text(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE qube SET document = '{'")
    connection.close()


def _drop_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE run")
    connection.close()


def _be_later(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _be_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        *(_spoil_header, _spoil_pages, _spoil_document, _spoil_text, _drop_table, _be_later),
        _be_a_directory,
    ],
)
async def test_a_damaged_store_is_named_with_a_way_out(tmp_path: Path, spoil: Any) -> None:
    made = Store(tmp_path)
    await made.write(*(put_qube(qube(f"work-{number}")) for number in range(50)))
    await made.close()
    spoil(tmp_path / FILE)
    for left in (f"{FILE}-wal", f"{FILE}-shm"):
        (tmp_path / left).unlink(missing_ok=True)
    with pytest.raises(StoreError, match=str(tmp_path / FILE)) as failure:
        await _load(tmp_path)
    assert failure.value.hint


async def _load(home: Path) -> None:
    again = Store(home)
    try:
        again.load()
    finally:
        await again.close()


def test_a_full_disk_is_told_and_qubes_can_still_be_removed(tmp_path: Path) -> None:
    told = _on_full_disk(tmp_path)
    full = told["full"]
    assert full["kind"] == "QubesException"
    assert "insula.db cannot be written" in full["text"] or "no space left" in full["text"]
    assert "ree space" in full["hint"]
    assert told["free"] == 0
    assert told["events"] == 20
    assert told["qubes"] == ["again", "dom0", "tree"]
    assert told["reserve"] == 4 << 20


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """Of a process that is killed in the midst of writing, the store has all that it was told."""
    script = (
        "import asyncio, sys, pathlib\n"
        "from insula.daemon.store.store import Store\n"
        "from insula.daemon.store.records import put_setting\n"
        "async def main():\n"
        "    store = Store(pathlib.Path(sys.argv[1]))\n"
        "    for number in range(10**9):\n"
        "        await store.write(put_setting('x', number), put_setting('y', number))\n"
        "        print(number, flush=True)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 50:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    last = int(rest[-1]) if rest else 50
    settings = asyncio.run(_settings(tmp_path))
    assert settings["x"] == settings["y"]
    assert isinstance(settings["x"], int)
    assert last <= settings["x"] <= last + 1


async def _settings(home: Path) -> dict[str, Value]:
    again = Store(home)
    try:
        return again.load().settings
    finally:
        await again.close()


def test_identities_stay_identities() -> None:
    made = qube()
    assert isinstance(made.properties["template"], UUID)
    loaded = Qube.from_json(json.loads(json.dumps(made.to_json())))
    assert loaded.properties["template"] == made.properties["template"]


def test_a_document_of_an_earlier_version_is_read() -> None:
    document = qube().to_json()
    del document["fleeting"]
    assert Qube.from_json(document).fleeting is False


def _on_full_disk(tmp_path: Path) -> dict[str, Any]:
    """What came of an instance on a file system of its own, in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=16m none "$1" && shift && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    argv += [str(small), sys.executable, "-m", f"{__package__}.full_disk", str(small)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


async def test_pools_are_kept(store: Store, tmp_path: Path) -> None:
    pool = Pool(name="big", driver="file", directory="/mnt/big", revisions_to_keep=0, mark="a1")
    await store.write(put_pool(pool), put_pool(Pool(name="gone", driver="file")))
    await store.write(drop_pool("gone"))
    other = Store(tmp_path)
    (loaded,) = other.load().pools
    await other.close()
    assert loaded.to_json() == pool.to_json()


async def test_a_store_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    work = qube()
    with sqlite3.connect(tmp_path / FILE) as connection:
        for statement in SCHEMA[0]:
            connection.execute(statement)
        document = work.to_json()
        del document["volumes"]["private"]["ephemeral"]
        connection.execute("INSERT INTO qube VALUES (?, ?)", (str(work.uuid), json.dumps(document)))
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    for _ in range(2):
        store = Store(tmp_path)
        loaded = store.load()
        await store.write(put_pool(Pool(name="big", driver="file", directory="/mnt/big")))
        await store.close()
        assert [one.to_json() for one in loaded.qubes] == [work.to_json()]
