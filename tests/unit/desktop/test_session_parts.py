"""What a session reads before it shows anything: DISPLAY, cookies, layouts, its lock."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.desktop import bus, lock, xauthority
from insula.desktop.lock import AlreadyShownError
from insula.desktop.xauthority import Authorization
from insula.desktop.xdisplay import Display, DisplayError, layout_of, parse


@pytest.mark.parametrize(
    ("text", "host", "number"),
    [(":0", "", 0), (":12.1", "", 12), ("unix:3", "", 3), ("localhost:10.0", "localhost", 10)],
)
def test_a_display_is_read(text: str, host: str, number: int) -> None:
    assert parse(text) == Display(text, host, number)


@pytest.mark.parametrize("text", ["", "0", ":", ":x", ":-1", "host", ":0x"])
def test_what_names_no_display_is_an_error(text: str) -> None:
    with pytest.raises(DisplayError):
        parse(text)


@given(st.text())
def test_any_text_is_a_display_or_an_error(text: str) -> None:
    with suppress(DisplayError):
        assert parse(text).number >= 0


def rules(*fields: str) -> bytes:
    return "".join(f"{field}\0" for field in fields).encode()


@pytest.mark.parametrize(
    ("fields", "layout"),
    [
        (("evdev", "pc105", "us", "", ""), "us++"),
        (("evdev", "pc105", "de,us", "nodeadkeys,", "grp:alt_toggle,ctrl:nocaps"),
         "de+nodeadkeys+ctrl:nocaps"),
        (("evdev", "pc105", "fr", "", "compose:ralt"), "fr++compose:ralt"),
        (("evdev", "pc105", "", "", ""), None),
        (("evdev",), None),
    ],
)  # fmt: skip
def test_the_first_layout_counts_and_switches_do_not(
    fields: tuple[str, ...], layout: str | None
) -> None:
    assert layout_of(rules(*fields)) == layout


def entry(family: int, *fields: bytes) -> bytes:
    return struct.pack(">H", family) + b"".join(
        struct.pack(">H", len(field)) + field for field in fields
    )


def test_the_cookie_of_this_host_and_display_is_found() -> None:
    content = (
        entry(256, b"elsewhere", b"0", b"COOKIE", b"no")
        + entry(256, b"here", b"1", b"COOKIE", b"nor this")
        + entry(256, b"here", b"0", b"COOKIE", b"yes")
    )
    assert xauthority.find(content, b"here", b"0") == Authorization(b"COOKIE", b"yes")
    assert xauthority.find(content, b"here", b"2") == Authorization()


def test_a_wild_entry_fits_every_display() -> None:
    content = entry(65535, b"", b"", b"COOKIE", b"wild")
    assert xauthority.find(content, b"any", b"7").data == b"wild"


@given(st.binary())
def test_any_file_of_cookies_gives_one_or_none(content: bytes) -> None:
    assert isinstance(xauthority.find(content, b"here", b"0"), Authorization)


def test_an_instance_has_one_session_and_says_where(tmp_path: Path) -> None:
    assert lock.shown_on(tmp_path) is None
    held = lock.take(tmp_path, ":5")
    assert lock.shown_on(tmp_path) == ":5"
    with pytest.raises(AlreadyShownError, match=":5"):
        lock.take(tmp_path, ":6")
    lock.release(held)
    assert lock.shown_on(tmp_path) is None
    lock.release(lock.take(tmp_path, ":6"))


def test_a_session_that_died_is_none(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text(":5\n")
    assert lock.shown_on(tmp_path) is None


def test_the_bus_of_a_session_is_known_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "session.bus"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/x")
    with bus.told(tmp_path):
        assert told.read_text() == "unix:path=/x\n"
        assert told.stat().st_mode & 0o777 == 0o600
    assert not told.exists()
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with bus.told(tmp_path):
        assert not told.exists()
    (tmp_path / "bus").touch()
    with bus.told(tmp_path):
        assert told.read_text() == f"unix:path={tmp_path}/bus\n"
