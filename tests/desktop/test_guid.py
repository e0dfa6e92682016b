"""qubes-guid and qubes-gui: both ends without machines, over the socket vchan."""

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from insula.desktop.guid_options import parse, read
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import (
    ClipboardData,
    ClipboardRequest,
    WindowDump,
    WindowDumpAck,
)
from tests.desktop.hostile import Hostile, red_region, shown, window
from tests.desktop.joined import SOURCES, TIMEOUT, XServer, inside, running, wait_for

GREETING = "0800010000050000000400001800000001140000"


@dataclass(slots=True)
class Place:
    """Directories and the environment of both ends. 7 is the qube, 0 the GUI domain."""

    directory: Path
    desktop: XServer
    region: int
    environment: dict[str, str] = field(default_factory=dict)
    undo: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        (self.directory / "run").mkdir()
        (self.directory / "instance").mkdir()
        self.environment = {
            "DISPLAY": self.desktop.display,
            "VCHAN_SOCKET_DIR": str(self.directory),
            "INSULA_GUI_RUN": str(self.directory / "run"),
            "INSULA_RUN": str(self.directory / "instance"),
            "INSULA_PIXELS": f"/proc/{os.getpid()}/fd/{self.region}",
            "PYTHONPATH": str(SOURCES),
        }

    def guid(self, *options: str, **more: str) -> list[str]:
        """The command line of a daemon."""
        assert not more
        named = ("-N", "work", "-c", "0x3465a4", "-l", "6")
        return [sys.executable, "-m", "insula.desktop.guid", "-d", "7", *named, *options]

    def listen(self) -> socket.socket:
        """Where the qube's agent listens."""
        path = self.directory / "vchan.7.0.6000.sock"
        path.unlink(missing_ok=True)
        listener = self.undo.enter_context(socket.socket(socket.AF_UNIX))
        listener.settimeout(TIMEOUT)
        listener.bind(str(path))
        listener.listen()
        return listener

    def agent(self, listener: socket.socket) -> Hostile:
        """The agent's end of the next connection, greeted."""
        connection = self.undo.enter_context(listener.accept()[0])
        connection.settimeout(TIMEOUT)
        connection.sendall(struct.pack("<I", 0x10008))
        assert connection.recv(20).hex() == GREETING
        return Hostile(connection)


@pytest.fixture
def place(desktop: XServer) -> Iterator[Place]:
    region = red_region()
    with tempfile.TemporaryDirectory(prefix="g") as directory:
        made = Place(Path(directory), desktop, region)
        with made.undo:
            yield made
    os.close(region)


def test_a_daemon_serves_one_agent_after_another_until_told_to_end(place: Place) -> None:
    listener = place.listen()
    mark = place.directory / "run/guid-running.7"
    options = ("-f", "-p", "_KDE_NET_WM_COLOR_SCHEME=s:blue.colors", "-p", "X_N=c:1,2")
    with running(place.guid(*options), place.environment) as process:
        for title in (b"first", b"second"):
            agent = place.agent(listener)
            agent.send(*window(1, Rect(100, 100, 300, 200), title))
            frame = shown(place.desktop, title.decode()).frame
            assert place.desktop.property(frame, "_NET_WM_NAME") == title
            assert place.desktop.property(frame, "_KDE_NET_WM_COLOR_SCHEME") == b"blue.colors"
            assert place.desktop.words(frame, "X_N") == (1, 2)
            assert mark.read_text() == f"{process.pid}\n"
            again = subprocess.run(
                place.guid(), env={**os.environ, **place.environment}, check=True
            )
            assert again.returncode == 0
            agent.channel.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert not mark.exists()


def test_without_the_qubes_pixels_windows_stay_empty_and_dumps_are_confirmed(place: Place) -> None:
    listener = place.listen()
    del place.environment["INSULA_PIXELS"]
    with running(place.guid("-f"), place.environment):
        agent = place.agent(listener)
        agent.send(*window(1, Rect(100, 100, 300, 200), b"empty"))
        agent.send(WindowDump(1, 1, 1, 32, (2**32 - 1,)))
        for _ in range(2):
            agent.received(WindowDumpAck)
        at = shown(place.desktop, "empty").outer
        wait_for(lambda: inside(place.desktop.pixels(at), 4) == {0xFFFFFF}, "its background")


def test_breaking_the_protocol_ends_the_daemon(place: Place) -> None:
    listener = place.listen()
    with running(place.guid("-f"), place.environment) as process:
        place.agent(listener).channel.sendall(struct.pack("<III", 150, 0, 0))
        assert process.wait(TIMEOUT) == 1


def test_in_the_background_it_says_when_the_agent_is_there(place: Place) -> None:
    listener = place.listen()
    starting = subprocess.Popen(place.guid(), env={**os.environ, **place.environment})
    agent = place.agent(listener)
    assert starting.wait(TIMEOUT) == 0
    pid = int((place.directory / "run/guid-running.7").read_text())
    assert pid != starting.pid
    agent.send(*window(1, Rect(100, 100, 300, 200), b"shown"))
    shown(place.desktop, "shown")
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: place.desktop.framed("shown") is None, "its end")


@pytest.mark.parametrize(("timeout", "code"), [(1, 1), (0, 0)])
def test_in_the_background_it_waits_as_long_as_it_is_told(
    place: Place, timeout: int, code: int
) -> None:
    config = place.directory / "config"
    config.write_text(f"global: {{\n  startup_timeout = {timeout};\n}}\n")
    environment = {**os.environ, **place.environment}
    command = place.guid("-C", str(config))
    done = subprocess.run(command, env=environment, timeout=TIMEOUT, check=False)
    assert done.returncode == code
    listener = place.listen()  # the one in the background goes on, and ends with its agent's end
    place.agent(listener).channel.sendall(struct.pack("<III", 150, 0, 0))
    wait_for(lambda: not (place.directory / "run/guid-running.7").exists(), "its end")


def test_the_clipboard_asks_the_policys_socket(place: Place) -> None:
    listener = place.listen()
    policy = place.undo.enter_context(socket.socket(socket.AF_UNIX))
    policy.bind(str(place.directory / "instance/policy.EvalSimple"))
    policy.listen()
    policy.settimeout(TIMEOUT)
    asked = []

    def answer() -> None:
        for reply in (b"result=deny\n", b"result=allow\n"):
            connection, _ = policy.accept()
            with connection:
                received = b""
                while chunk := connection.recv(4096):
                    received += chunk
                asked.append(received)
                connection.sendall(reply)

    thread = threading.Thread(target=answer)
    thread.start()
    place.undo.callback(thread.join)
    run = place.directory / "run"
    (run / "qubes-clipboard.bin").write_bytes(b"secret")
    (run / "qubes-clipboard.bin.source").write_bytes(b"vault")
    with running(place.guid("-f"), place.environment):
        agent = place.agent(listener)
        agent.send(*window(1, Rect(100, 100, 300, 200), b"paste"))
        frame = shown(place.desktop, "paste").frame
        keys = ("xdotool", "windowactivate", "--sync", str(frame), "key", "ctrl+shift+v")
        place.desktop.run(*keys)
        wait_for(lambda: len(asked) == 1, "the policy to be asked")
        place.desktop.run(*keys)
        assert agent.received(ClipboardData).data == b"secret"
        place.desktop.run("xdotool", "key", "ctrl+shift+c")
        agent.received(ClipboardRequest)
        agent.send(ClipboardData(0, b"mine"))
        source = run / "qubes-clipboard.bin.source"
        wait_for(lambda: source.read_bytes() == b"work", "the qube's text")
        assert (run / "qubes-clipboard.bin").read_bytes() == b"mine"
    prelude = b"policy.EvalSimple+qubes.ClipboardPaste dom0 keyword adminvm\0"
    assert asked == [prelude + b"vault\0work"] * 2


def test_the_clipboard_by_calls(place: Place) -> None:
    listener = place.listen()
    programs = place.directory / "bin"
    programs.mkdir()
    said, copied = programs / "said", programs / "copied"
    copied.write_bytes(b"by call")
    program = programs / "qvm-run"
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {said}\n'
        f'case "$*" in *Copy) cat {copied};; *) cat > {programs}/pasted;; esac\n'
    )
    program.chmod(0o755)
    place.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    run = place.directory / "run"
    with running(place.guid("-f", "-Q", "--max-clipboard-size=256"), place.environment):
        agent = place.agent(listener)
        agent.send(*window(1, Rect(100, 100, 300, 200), b"calls"))
        frame = str(shown(place.desktop, "calls").frame)
        activate = ("xdotool", "windowactivate", "--sync", frame, "key")
        place.desktop.run(*activate, "ctrl+shift+c")
        source = run / "qubes-clipboard.bin.source"
        metadata = run / "qubes-clipboard.bin.metadata"
        wait_for(lambda: metadata.exists() and b'"qrexec_clipboard":1,' in metadata.read_bytes(),
                 "the text")  # fmt: skip
        assert source.read_bytes() == b"work"
        assert (run / "qubes-clipboard.bin").read_bytes() == b"by call"
        copied.write_bytes(bytes(257))
        place.desktop.run(*activate, "ctrl+shift+c")
        wait_for(lambda: b'"oversized_request":1,' in metadata.read_bytes(), "the refusal")
        (run / "qubes-clipboard.bin").write_bytes(b"for work")
        source.write_bytes(b"vault")
        policy = place.undo.enter_context(socket.socket(socket.AF_UNIX))
        policy.bind(str(place.directory / "instance/policy.EvalSimple"))
        policy.listen()
        policy.settimeout(TIMEOUT)
        place.desktop.run(*activate, "ctrl+shift+v")
        connection, _ = policy.accept()
        with connection:
            while connection.recv(4096):
                pass
            connection.sendall(b"result=allow\n")
        pasted = programs / "pasted"
        wait_for(lambda: pasted.exists() and pasted.read_bytes() == b"for work", "the paste")
        assert agent.settle()
        heard = (ClipboardRequest, ClipboardData)
        assert not any(isinstance(one, heard) for one in agent.heard)
    assert [line.split()[-2:] for line in said.read_text().splitlines()] == [
        ["work", "qubes.ClipboardCopy"], ["work", "qubes.ClipboardCopy"],
        ["work", "qubes.ClipboardPaste"],
    ]  # fmt: skip


def test_daemon_and_agent_of_ours_speak_with_each_other(
    place: Place, qube_display: XServer
) -> None:
    directory = place.directory / "qube"
    environment = {
        **place.environment,
        "DISPLAY": qube_display.display,
        "VCHAN_DOMAIN": "7",
        "INSULA_GUI_RUN": str(directory),
    }
    command = [sys.executable, "-m", "insula.guest.gui.standalone", "-d", "0"]
    xterm = ("xterm", "-title", "both ends", "-e", "sleep", "100")
    with (
        running(command, environment),
        qube_display.program(*xterm),
        running(place.guid("-f", "-T"), place.environment),
    ):
        assert shown(place.desktop, "both ends").title == "[work] both ends"
        assert (directory / "gui-agent.status").read_text() == "connected\n"


def test_options_of_the_command_line_are_before_those_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        'global: {\n  allow_fullscreen = true;\n  override_redirect = "disable";\n'
        '  trayicon_mode = "bg";\n  window_background_color = 0x101010;\n'
        "  max_clipboard_size = 1000;\n}\n"
    )
    line = ["-d", "7", "-N", "work", "-C", str(config), "--trayicon-mode=tint+border1",
            "--screensaver-name", "locker"]  # fmt: skip
    given, options = parse(line)
    assert (given.domid, given.name, given.color, given.label) == (7, "work", "cc0000", 1)
    assert options == {
        "allow_fullscreen": True, "override_redirect": "disabled", "invisible": False,
        "rpc_clipboard": False,
        "trayicon_mode": "tint+border1", "window_background_color": "101010",
        "max_clipboard_size": 1000, "title_prefix": False, "properties": [],
        "screensaver_names": ["locker"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        [], ["-d", "7"], ["-d", "0", "-N", "work"], ["-d", "32752", "-N", "work"],
        ["-d", "7", "-N", "1work"], ["-d", "7", "-N", "a" * 32], ["-d", "7", "-N", "work", "more"],
        ["-d", "7", "-N", "work", "--max-clipboard-size=255"],
        ["-d", "7", "-N", "work", "--max-clipboard-size=256001"],
        ["-d", "7", "-N", "work", "--trayicon-mode=none"],
        ["-d", "7", "-N", "work", "-p", "X=z:1"],
    ],
)  # fmt: skip
def test_a_command_line_that_is_none_is_refused(line: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(line)


@pytest.mark.parametrize(
    "text",
    ["", "global: {", "global: { a = }", "global: { events_max_delay = 5001; }",
     'global: { secure_copy_sequence = "Ctrl-Ins"; }', "other: { a = 1; }"],
)  # fmt: skip
def test_a_file_with_which_no_daemon_starts(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text)
