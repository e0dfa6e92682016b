"""What a search of the menu finds, and how qubes are ordered."""

from dataclasses import replace

from insula.launcher.finding import entries, found, in_order, state_text
from insula.menus.pictures import Colour
from insula.menus.system import Item, MenuQube
from insula.protocol.menus import Application

FIREFOX = Application("firefox", "Firefox", generic_name="Web Browser", categories=("Network",))
XTERM = Application("xterm", "XTerm", comment="A terminal for fire drills")
FILES = Application("files", "File Manager")


def qube(name: str, label: str, *shown: Application, disposables: str | None = None) -> MenuQube:
    items = tuple(Item(application, "debian") for application in shown)
    return MenuQube(
        name=name, klass="AppVM", kind="qube", label=label, colour=Colour(0, 0, 0),
        available=items, shown=items, disposables=disposables,
    )  # fmt: skip


WORK = qube("work", "blue", FIREFOX, XTERM, disposables="dvm")
FILM = qube("film", "red", FIREFOX, FILES)
DVM = qube("dvm", "red", FIREFOX, disposables="dvm")
QUBES = {one.name: one for one in (WORK, FILM, DVM)}
ALL = [entry for one in QUBES.values() for entry in entries(one, QUBES)]


def names(text: str) -> list[str]:
    return [f"{entry.application.id}@{entry.qube.name}" for entry in found(ALL, text)]


def test_the_likeliest_come_first() -> None:
    assert names("fire") == ["firefox@dvm", "firefox@film", "firefox@work", "xterm@work"]
    assert names("fi") == [
        *("files@film", "firefox@dvm", "firefox@film", "firefox@work"),
        "xterm@work",
    ]


def test_every_word_is_to_be_found() -> None:
    assert names("work FIRE") == ["firefox@work", "xterm@work"]
    assert names("browser") == ["firefox@dvm", "firefox@film", "firefox@work"]
    assert names("film network") == ["firefox@film"]
    assert names("nothing") == []


def test_what_can_be_started_in_a_disposable() -> None:
    known = {(entry.application.id, entry.qube.name): entry.disposables for entry in ALL}
    assert known["firefox", "work"] == "dvm"
    assert known["xterm", "work"] is None  # The disposable would not have it.
    assert known["firefox", "film"] is None
    assert known["firefox", "dvm"] == "dvm"


def test_labels_order_qubes() -> None:
    odd = replace(WORK, name="odd", label="own")
    ordered = in_order([odd, WORK, FILM, DVM], ["red", "blue"])
    assert [one.name for one in ordered] == ["dvm", "film", "work", "odd"]


def test_states_have_words() -> None:
    assert [state_text(one) for one in ("Running", "Halted", "Paused")] == ["running", "", "paused"]
