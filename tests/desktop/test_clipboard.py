"""Text between two qubes: by the person's keys alone, once, and as the policy allows."""

import contextlib
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import (
    ClipboardData,
    ClipboardRequest,
    Create,
    Cursor,
    Focus,
    KeyPress,
)
from insula.protocol.resync import MARKER_SIZE
from tests.desktop.fake_daemon import FakeDaemon, FakeQube
from tests.desktop.host import Host
from tests.desktop.hostile import Hostile, shown, window
from tests.desktop.joined import TIMEOUT, XServer, make_region, wait_for
from tests.desktop.test_session import session

C, V, X = 54, 55, 53  # keycodes of an X server of today


@dataclass(slots=True)
class Desk:
    """Two qubes, work and vault, each with one window, in the hands of the test."""

    desktop: XServer
    run: Path
    daemon: FakeDaemon
    work: Hostile
    vault: Hostile
    process: subprocess.Popen[bytes]
    log: Path

    def press(self, qube: Hostile, keys: str) -> None:
        """Give a qube's window the focus and press keys there."""
        title = "work" if qube is self.work else "vault"
        frame = shown(self.desktop, f"[{title}]").frame
        self.desktop.run("xdotool", "windowactivate", "--sync", str(frame), "key", keys)

    def copy(self, qube: Hostile, text: bytes) -> None:
        """Press the copy key and have the qube answer."""
        self.press(qube, "ctrl+shift+c")
        qube.received(ClipboardRequest)
        qube.send(ClipboardData(0, text))

    def file(self, ending: str) -> bytes:
        path = self.run / f"qubes-clipboard.bin{ending}"
        return path.read_bytes() if path.exists() else b""

    def holds(self, text: bytes, source: str) -> None:
        """Wait until the global buffer holds a text, which is said last."""
        wait_for(
            lambda: (self.file(""), self.file(".source")) == (text, source.encode()), "the text"
        )

    def says(self, words: str) -> None:
        """Wait until the person is told something."""
        wait_for(lambda: words in self.log.read_text(), words)


def qube(host: Host, daemon: FakeDaemon, name: str, undo: contextlib.ExitStack) -> FakeQube:
    made = FakeQube(name)
    region = make_region()
    host.call(host.keeper.hold(f"pixels/qube-{made.uuid}", region))
    undo.callback(host.forget_pixels, made.uuid)
    daemon.qubes[name] = made
    return made


@pytest.fixture
def desk(
    host: Host, desktop: XServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Desk]:
    log = tmp_path / "log"
    for path in host.run.glob("qubes-clipboard.bin*"):
        path.unlink()
    with contextlib.ExitStack() as undo:
        daemon = undo.enter_context(FakeDaemon.serving(host))
        agents = []
        listeners = []
        for name in ("work", "vault"):
            made = qube(host, daemon, name, undo)
            made.options = getattr(request, "param", {})
            listeners.append(undo.enter_context(host.listening(made.uuid)))
        with log.open("wb") as output:
            process = undo.enter_context(session(host, desktop, stderr=output))
        for number, (name, listener) in enumerate(
            zip(("work", "vault"), listeners, strict=True), 1
        ):
            listener.settimeout(TIMEOUT)
            connection = undo.enter_context(listener.accept()[0])
            connection.settimeout(TIMEOUT)
            agent = Hostile(connection)
            agent.greet()
            agent.send(*window(number, Rect(400 * number, 100, 300, 200), name.encode()))
            shown(desktop, f"[{name}] {name}")
            agents.append(agent)
        work, vault = agents
        yield Desk(desktop, host.run, daemon, work, vault, process, log)


def test_text_goes_where_the_person_puts_it_and_only_once(desk: Desk) -> None:
    desk.daemon.pastes.add(("work", "vault"))
    desk.copy(desk.work, b"secret")
    desk.holds(b"secret", "work")
    desk.says("6 bytes copied from work. Press Ctrl-Shift-v")
    desk.press(desk.vault, "ctrl+shift+v")
    desk.press(desk.vault, "x")
    assert desk.vault.received(ClipboardData) == ClipboardData(2, b"secret")
    desk.says("6 bytes of work pasted into vault and wiped.")
    assert (desk.file(""), desk.file(".source")) == (b"", b"")
    before = [one.keycode for one in desk.vault.heard if isinstance(one, KeyPress)]
    assert X not in before  # what is typed after the paste key comes after the text
    while desk.vault.received(KeyPress).keycode != X:
        pass
    desk.press(desk.vault, "ctrl+shift+v")
    desk.press(desk.vault, "x")
    while desk.vault.received(KeyPress).keycode != X:
        pass
    assert sum(isinstance(one, ClipboardData) for one in desk.vault.heard) == 1
    keys = {one.keycode for one in desk.vault.heard if isinstance(one, KeyPress)}
    assert not keys & {C, V}


def test_the_copy_key_is_not_the_qubes(desk: Desk) -> None:
    desk.copy(desk.work, b"secret")
    desk.press(desk.work, "x")
    while desk.work.received(KeyPress).keycode != X:
        pass
    assert C not in [one.keycode for one in desk.work.heard if isinstance(one, KeyPress)]


def test_what_the_policy_denies_is_not_pasted(desk: Desk) -> None:
    desk.copy(desk.work, b"secret")
    desk.holds(b"secret", "work")
    desk.press(desk.vault, "ctrl+shift+v")
    desk.says("Not pasted: text of work may not go to vault.")
    assert desk.file("") == b"secret"
    desk.press(desk.work, "ctrl+shift+v")
    desk.says("Not pasted: text of work may not go to work.")
    desk.vault.send(Cursor(2, 0))
    assert desk.vault.settle()
    assert not any(isinstance(one, ClipboardData) for one in desk.vault.heard)


def test_a_qube_that_was_not_asked_gives_nothing(desk: Desk) -> None:
    desk.work.send(ClipboardData(0, b"pushed"))
    assert desk.work.settle()
    desk.copy(desk.work, b"asked for")
    desk.work.send(ClipboardData(0, b"more"))
    desk.holds(b"asked for", "work")
    assert desk.work.settle()
    desk.copy(desk.vault, b"other")
    desk.holds(b"other", "vault")


@pytest.mark.parametrize("desk", [{"max_clipboard_size": 256}], indirect=True)
def test_a_text_too_long_or_none_empties_the_buffer(desk: Desk) -> None:
    desk.copy(desk.work, bytes(256))
    desk.holds(bytes(256), "work")
    desk.copy(desk.work, bytes(257))
    desk.says("Not copied: the clipboard of work has 257 bytes, the limit is 256 bytes.")
    desk.holds(b"", "")
    desk.copy(desk.work, b"a")
    desk.says("1 byte copied")
    desk.copy(desk.work, b"")
    desk.says("Nothing copied: the clipboard of work is empty.")
    desk.holds(b"", "")


def test_a_clipboard_beyond_all_limits_ends_the_viewer_and_is_told(desk: Desk) -> None:
    desk.press(desk.work, "ctrl+shift+c")
    desk.work.received(ClipboardRequest)
    with contextlib.suppress(OSError):
        desk.work.send(ClipboardData(0, bytes(256_002)))
    desk.says("Not copied: what work sent is no clipboard")
    desk.says("The windows of work were closed")


@pytest.mark.parametrize(
    "desk",
    [{"secure_copy_sequence": "Mod4-c", "secure_paste_sequence": "Ctrl-Alt-Insert"}],
    indirect=True,
)
def test_the_keys_are_the_persons_choice(desk: Desk) -> None:
    desk.daemon.pastes.add(("work", "vault"))
    desk.press(desk.work, "ctrl+shift+c")
    while desk.work.received(KeyPress).keycode != C:
        pass
    desk.press(desk.work, "super+c")
    desk.work.received(ClipboardRequest)
    desk.work.send(ClipboardData(0, b"text"))
    desk.says("Press Ctrl-Alt-Insert")
    desk.press(desk.vault, "ctrl+alt+Insert")
    assert desk.vault.received(ClipboardData).data == b"text"


def test_a_suspicious_message_is_put_to_the_person_and_the_rest_waits(desk: Desk) -> None:
    desk.work.send(Cursor(1, 7), Create(9, 500, 500, 99, 99, 0, 0))
    title = "Insula: a suspicious qube"
    desk.desktop.run("xdotool", "search", "--sync", "--name", title)
    desk.press(desk.vault, "x")
    desk.vault.received(Focus)  # the others go on
    found = desk.desktop.run("xdotool", "search", "--sync", "--name", title).split()[-1]
    desk.desktop.run("xdotool", "windowactivate", "--sync", found)
    wait_for(lambda: _pressed_escape(desk, title), "the question's end")
    assert desk.work.settle()


def _pressed_escape(desk: Desk, title: str) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        desk.desktop.run("xdotool", "key", "Escape")
        desk.desktop.run("xdotool", "search", "--name", title)
        return False
    return True


@pytest.mark.parametrize(
    ("word", "words"),
    [(0x0FFFF, "its window agent is too old"), (0x20000, "dom0 is too old")],
)
def test_the_person_is_told_which_side_is_too_old(
    host: Host, desktop: XServer, tmp_path: Path, word: int, words: str
) -> None:
    log = tmp_path / "log"
    with contextlib.ExitStack() as undo:
        made = qube(host, undo.enter_context(FakeDaemon.serving(host)), "aged", undo)
        listener = undo.enter_context(host.listening(made.uuid))
        listener.settimeout(TIMEOUT)
        undo.enter_context(session(host, desktop, stderr=undo.enter_context(log.open("wb"))))
        connection = undo.enter_context(listener.accept()[0])
        connection.settimeout(TIMEOUT)
        connection.sendall(connection.recv(MARKER_SIZE) + struct.pack("<I", word))
        wait_for(lambda: f"The windows of aged cannot be shown: {words}" in log.read_text(), words)
