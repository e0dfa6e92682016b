"""Questions on a real desktop: stray keys answer nothing, a choice and a click do."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from insula.client.instance import answers
from insula.desktop.asking import SOCKET_NAME, put_questions
from insula.prompts.deciding import FOCUS_DELAY
from insula.prompts.suspicion import ARMED_AFTER
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import Map, Unmap
from insula.protocol.policy_agent import encode_suspicious, encode_tell
from insula.tools.demo.screen import Screen
from tests.desktop.hostile import Hostile, red_region, shown, window
from tests.desktop.joined import XServer, wait_for

TIMEOUT = 20.0  # seconds
TITLE = "Insula: a qube asks"
FIELDS = {
    "source": "work",
    "service": "qubes.Filecopy",
    "argument": "+",
    "targets": ["vault", "personal", "@dispvm:default-dvm"],
    "default_target": "",
    "icons": {
        "work": "appvm-blue",
        "vault": "appvm-black",
        "personal": "appvm-green",
        "@dispvm:default-dvm": "dispvm-red",
    },
}


@pytest.fixture
def agent(desktop: XServer) -> Iterator[Path]:
    """The agent on the person's display."""
    with tempfile.TemporaryDirectory(prefix="prompts-") as directory:
        path = Path(directory, "agent.sock")
        process = subprocess.Popen(
            [sys.executable, "-m", "insula.prompts.agent", "-s", str(path)],
            env={**os.environ, "DISPLAY": desktop.display, "QT_QPA_PLATFORM": "xcb"},
        )
        try:
            _wait(lambda: answers(path))
            yield path
        finally:
            process.kill()
            process.wait(TIMEOUT)


def _wait(condition: object, timeout: float = TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _ask(path: Path, **changes: object) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(str(path))
    fields = {**FIELDS, **changes}
    connection.sendall(b"policy.Ask dom0 name dom0\0" + json.dumps(fields).encode())
    connection.shutdown(socket.SHUT_WR)
    return connection


def _xdotool(desktop: XServer, *words: str) -> str:
    done = subprocess.run(
        ["xdotool", *words], env={**os.environ, "DISPLAY": desktop.display},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def _window(desktop: XServer) -> str:
    """The question's window, once it has the focus."""
    found = ""

    def shown() -> bool:
        nonlocal found
        found = _xdotool(desktop, "search", "--onlyvisible", "--name", TITLE).split("\n")[-1]
        return bool(found) and _xdotool(desktop, "getactivewindow") == found

    _wait(shown)
    return found


def _is_unanswered(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        connection.recv(1)
    except TimeoutError:
        connection.settimeout(TIMEOUT)
        return True
    return False


def test_keys_meant_for_another_window_answer_nothing(desktop: XServer, agent: Path) -> None:
    with _ask(agent, default_target="vault") as connection:
        _window(desktop)
        _xdotool(desktop, "key", "Return", "Return", "space")
        assert _is_unanswered(connection)
        time.sleep(FOCUS_DELAY)
        _xdotool(desktop, "key", "Return")
        assert connection.recv(100) == b"allow:vault"


def test_nothing_is_allowed_before_a_qube_is_chosen(desktop: XServer, agent: Path) -> None:
    with _ask(agent) as connection:
        window = _window(desktop)
        if picture := os.environ.get("INSULA_TEST_PICTURE"):
            Screen(desktop.display).save(Path(picture))
        time.sleep(FOCUS_DELAY)
        _xdotool(desktop, "key", "Return")
        assert _is_unanswered(connection)
        _xdotool(desktop, "windowfocus", "--sync", window, "type", "pers")
        _xdotool(desktop, "key", "Tab", "Down", "space")
        _xdotool(desktop, "key", "Return")
        assert connection.recv(100) == b"allow:personal"


def test_escape_is_a_no(desktop: XServer, agent: Path) -> None:
    with _ask(agent) as connection:
        _window(desktop)
        _xdotool(desktop, "key", "Escape")
        assert connection.recv(100) == b"deny"


def test_the_session_has_questions_put_when_they_come(desktop: XServer) -> None:
    async def ask() -> bytes:
        asking = asyncio.create_task(put_questions(run, desktop.display))
        try:
            while not (run / SOCKET_NAME).exists():
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_unix_connection(run / SOCKET_NAME)
            writer.write(b"policy.Ask dom0 name dom0\0" + json.dumps(FIELDS).encode())
            writer.write_eof()
            await asyncio.to_thread(_window, desktop)
            await asyncio.to_thread(_xdotool, desktop, "key", "Escape")
            answer = await reader.read()
            writer.close()
            return answer
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as name:
        run = Path(name)
        assert asyncio.run(asyncio.wait_for(ask(), TIMEOUT)) == b"deny"
        assert not (run / SOCKET_NAME).exists()


def test_a_line_of_the_sessions_own_is_shown_and_takes_no_focus(
    agent: Path, desktop: XServer
) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(agent))
        connection.sendall(encode_tell("6 bytes copied from work."))
        connection.shutdown(socket.SHUT_WR)
        before = desktop.core.GetInputFocus().reply().focus
        assert connection.recv(64) == b""
    _wait(lambda: desktop.run("xdotool", "search", "--onlyvisible", "--class", "insula"))
    assert desktop.core.GetInputFocus().reply().focus == before


@pytest.mark.parametrize(("key", "answer"), [("Return", b"end"), ("Escape", b"deny")])
def test_a_suspicious_qube_is_ended_or_not_but_not_by_keys_meant_for_another(
    agent: Path, desktop: XServer, key: str, answer: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(agent))
        connection.sendall(encode_suspicious("work"))
        connection.shutdown(socket.SHUT_WR)
        search = ("xdotool", "search", "--sync", "--onlyvisible", "--name", "a suspicious qube")
        found = desktop.run(*search).split()[-1]
        desktop.run("xdotool", "windowactivate", "--sync", found, "key", "Return")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(64)
        connection.settimeout(TIMEOUT)
        time.sleep(ARMED_AFTER / 1000)  # what is tested: keys count after it
        desktop.run("xdotool", "windowactivate", "--sync", found, "key", key)
        assert connection.recv(64) == answer


@pytest.mark.parametrize("first", [True, False])
def test_no_frameless_window_of_a_qube_covers_a_question(
    agent: Path, desktop: XServer, first: bool
) -> None:
    region = red_region()
    cover = window(1, Rect(0, 0, 1280, 900), b"cover", override=1)
    with Hostile.against(desktop, region) as hostile, ExitStack() as undo:
        if first:
            hostile.send(*cover)
            shown(desktop, "cover")
        connection = undo.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(TIMEOUT)
        connection.connect(str(agent))
        connection.sendall(b"policy.Ask dom0 name dom0\0" + json.dumps(FIELDS).encode())
        connection.shutdown(socket.SHUT_WR)
        search = ("xdotool", "search", "--sync", "--onlyvisible", "--name", TITLE)
        question = int(desktop.run(*search).split()[-1])
        if not first:
            wait_for(lambda: desktop.words(desktop.root, "_INSULA_IN_FRONT"), "its mark")
            hostile.send(*cover)
        frame = shown(desktop, "cover").frame
        wait_for(lambda: is_above(desktop, question, frame), "the question on top")
        for _ in range(3):
            hostile.send(Unmap(1), Map(1, 0, 1))
            assert hostile.settle()
            wait_for(lambda: is_above(desktop, question, frame), "the question on top")
    os.close(region)


def is_above(desktop: XServer, window: int, other: int) -> bool:
    """Whether a window, or the frame that it lies in, is above a child of the root."""
    children = list(desktop.core.QueryTree(desktop.root).reply().children)
    while window not in children:
        window = desktop.core.QueryTree(window).reply().parent
    return children.index(window) > children.index(other)
