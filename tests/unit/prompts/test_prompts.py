"""Questions to the person: when they count, how many there may be, what is shown."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.prompts import words
from insula.prompts.deciding import FOCUS_DELAY, Decision
from insula.prompts.waiting import MOST, MOST_OF_ONE, Waiting
from insula.protocol.errors import ProtocolError
from insula.protocol.policy_agent import Ask, Notify, parse_request

TIMEOUT = 20.0  # seconds
ICONS = {"work": "appvm-blue", "vault": "appvm-black", "@dispvm:mould": "dispvm-red"}
FIELDS: dict[str, object] = {
    "source": "work",
    "service": "qubes.Filecopy",
    "argument": "+",
    "targets": ["vault", "@dispvm:mould"],
    "default_target": "",
    "icons": ICONS,
}


def encoded(service: str, fields: object) -> bytes:
    return f"{service} dom0 name dom0\0".encode() + json.dumps(fields).encode()


def test_nothing_is_chosen_unless_the_policy_says_so() -> None:
    assert Decision(["a"], "").chosen is None
    assert Decision(["a"], "b").chosen is None
    assert Decision(["a"], "a").chosen == "a"


def test_an_answer_counts_only_after_a_while_with_the_focus() -> None:
    decision = Decision(["a", "b"], "a")
    assert not decision.may_answer(100)
    decision.focus(100)
    assert not decision.may_answer(100 + FOCUS_DELAY - 0.01)
    assert decision.may_answer(100 + FOCUS_DELAY)
    decision.unfocus()
    assert not decision.may_answer(200)
    decision.focus(200)
    assert not decision.may_answer(200.5)
    decision.choose("c")
    assert not decision.may_answer(300)
    decision.choose("b")
    assert decision.may_answer(300)


def test_a_qube_cannot_fill_the_queue() -> None:
    waiting: Waiting[object] = Waiting()
    added = [waiting.add("flood", object()) for _ in range(MOST)]
    assert added.count(True) == MOST_OF_ONE
    first = waiting.next()
    assert first is not None
    assert waiting.next() is None
    assert not waiting.add("flood", object())
    assert waiting.add("work", object())
    waiting.over()
    assert waiting.next() is not first


def test_a_question_is_read() -> None:
    ask = parse_request(encoded("policy.Ask", FIELDS))
    assert isinstance(ask, Ask)
    assert ask.targets == ("vault", "@dispvm:mould")
    told = {
        "resolution": "deny", "source": "work", "service": "a.B", "argument": "+", "target": "x"
    }  # fmt: skip
    assert isinstance(parse_request(encoded("policy.Notify", told)), Notify)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "wo rk"},
        {"source": "<b>work</b>"},
        {"service": "a\x1b"},
        {"argument": "x"},
        {"targets": []},
        {"targets": ["\u202e"]},
        {"icons": {"wo/rk": "x"}},
        {"icons": None},
        {"default_target": "a b"},
    ],
)
def test_what_is_not_clean_is_not_shown(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_request(encoded("policy.Ask", FIELDS | change))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_none(data: bytes) -> None:
    try:
        parse_request(b"policy.Ask dom0\0" + data)
    except ProtocolError:
        return


def test_services_are_told_in_words() -> None:
    ask = parse_request(encoded("policy.Ask", FIELDS))
    assert isinstance(ask, Ask)
    assert words.question(ask) == "work wants to copy files to another qube"
    assert words.does("acme.Ping") == "call the service acme.Ping"
    assert words.shown_target("@dispvm:mould") == "Disposable VM (mould)"
    assert len(words.shown_argument("+" + "x" * 60_000)) < 200


@pytest.fixture
def agent() -> Iterator[Path]:
    """An agent whose windows nobody sees."""
    with tempfile.TemporaryDirectory(prefix="prompts-") as directory:
        path = Path(directory, "agent.sock")
        process = subprocess.Popen(
            [sys.executable, "-m", "insula.prompts.agent", "-s", str(path)],
            env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        )
        try:
            deadline = time.monotonic() + TIMEOUT
            while not path.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield path
        finally:
            process.kill()
            process.wait(TIMEOUT)


def _send(path: Path, data: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(str(path))
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    return connection


def test_the_agent_refuses_what_it_cannot_show_and_more_than_it_may(agent: Path) -> None:
    with _send(agent, b"nonsense") as connection:
        assert connection.recv(100) == b"deny"
    told = {"resolution": "allow", "source": "work", "service": "a.B", "target": "vault"}
    with _send(agent, encoded("policy.Notify", told)) as connection:
        assert connection.recv(100) == b""
    held = [_send(agent, encoded("policy.Ask", FIELDS)) for _ in range(MOST_OF_ONE)]
    try:
        with _send(agent, encoded("policy.Ask", FIELDS)) as connection:
            assert connection.recv(100) == b"deny"
    finally:
        for one in held:
            one.close()
