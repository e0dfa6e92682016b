"""What the store keeps, as changes to it: each a statement with its values."""

import json
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from insula.daemon.model.labels import Label
from insula.daemon.model.pools import Pool
from insula.daemon.model.qube import Qube, Value

# What makes a store of each version one of the next; a new one goes through all of them.
SCHEMA = (
    (
        "CREATE TABLE qube (uuid TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE label (name TEXT PRIMARY KEY, number INTEGER UNIQUE NOT NULL, color TEXT NOT "
        "NULL) WITHOUT ROWID",
        "CREATE TABLE setting (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE run (uuid TEXT PRIMARY KEY, xid INTEGER NOT NULL, started REAL NOT NULL, "
        "paused INTEGER NOT NULL) "
        "WITHOUT ROWID",
    ),
    ("CREATE TABLE pool (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",),
)
SCHEMA_VERSION = len(SCHEMA)


class Change(NamedTuple):
    """One statement and its values."""

    statement: str
    values: tuple[str | int | float, ...]

    @property
    def frees_space(self) -> bool:
        """Whether it takes something away."""
        return self.statement.startswith("DELETE")


@dataclass(frozen=True, slots=True)
class Run:
    """A qube whose machine was or is to be started. started: seconds since the epoch.

    The row is there before the machine is, and goes after everything of it has gone. paused: it
    came up and was to be paused; a machine that stands still without it never came so far.
    """

    uuid: UUID
    xid: int
    started: float
    paused: bool = False


def put_qube(qube: Qube) -> Change:
    return Change(
        "INSERT OR REPLACE INTO qube VALUES (?, ?)",
        (str(qube.uuid), json.dumps(qube.to_json(), separators=(",", ":"))),
    )


def drop_qube(uuid: UUID) -> Change:
    return Change("DELETE FROM qube WHERE uuid = ?", (str(uuid),))


def put_setting(name: str, value: Value) -> Change:
    document = json.dumps({"qube": str(value)} if isinstance(value, UUID) else value)
    return Change("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, document))


def drop_setting(name: str) -> Change:
    return Change("DELETE FROM setting WHERE name = ?", (name,))


def put_label(label: Label) -> Change:
    return Change(
        "INSERT OR REPLACE INTO label VALUES (?, ?, ?)", (label.name, label.index, label.color)
    )


def put_pool(pool: Pool) -> Change:
    document = json.dumps(pool.to_json(), separators=(",", ":"))
    return Change("INSERT OR REPLACE INTO pool VALUES (?, ?)", (pool.name, document))


def drop_pool(name: str) -> Change:
    return Change("DELETE FROM pool WHERE name = ?", (name,))


def drop_label(name: str) -> Change:
    return Change("DELETE FROM label WHERE name = ?", (name,))


def put_run(run: Run) -> Change:
    return Change(
        "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?)",
        (str(run.uuid), run.xid, run.started, int(run.paused)),
    )


def drop_run(uuid: UUID) -> Change:
    return Change("DELETE FROM run WHERE uuid = ?", (str(uuid),))


def setting_value(document: str) -> Value:
    """What put_setting wrote."""
    loaded = json.loads(document)
    if isinstance(loaded, dict):
        return UUID(loaded["qube"])
    value: Value = loaded
    return value
