"""The thread that sets links up: what it waits for, what it answers, what it does later."""

import errno
import threading
import time
from collections.abc import Callable

import pytest

from insula.guest.network import links
from insula.guest.network.links import Links
from insula.protocol.control import ControlType
from insula.protocol.links import Link, LinkRole, LinkStatus
from insula.qrexec.loop import Loop

TIMEOUT = 20.0  # seconds
LINKED, UNLINKED = ControlType.LINKED, ControlType.UNLINKED


class Cards:
    """Cards of a test: those in there are there, those in broken fail."""

    def __init__(self) -> None:
        self.there: set[int] = set()
        self.broken: dict[int, Exception] = {}
        self.done: list[str] = []
        self.settled = threading.Event()

    def is_there(self, link: Link) -> bool:
        return link.number in self.there

    def set_up(self, link: Link) -> None:
        self.done.append(f"up {link.number} {link.name}")
        if link.number in self.broken:
            raise self.broken[link.number]

    def take_down(self, number: int) -> None:
        self.done.append(f"down {number}")

    def settle(self) -> None:
        self.settled.set()


class Agent:
    """A loop with links, run until answers are there."""

    def __init__(self, cards: Cards) -> None:
        self.loop = Loop()
        self.answers: list[tuple[ControlType, LinkStatus]] = []
        self.links = Links(self.loop, lambda: cards, self._answered)

    def _answered(self, kind: ControlType, status: LinkStatus) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.answers.append((kind, status))

    def hear(self, count: int) -> list[tuple[ControlType, int, int]]:
        """The next answers: kind, number and code."""
        deadline = time.monotonic() + TIMEOUT
        self.loop.running = True

        def look() -> None:
            self.loop.running = len(self.answers) < count and time.monotonic() < deadline
            self.loop.after(0.01, look)

        look()
        self.loop.run()
        heard, self.answers = self.answers[:count], self.answers[count:]
        assert len(heard) == count
        return [(kind, status.number, status.code) for kind, status in heard]


def link(number: int, name: str = "eth0") -> Link:
    return Link(number=number, role=LinkRole.UPLINK, mac="00:16:3e:5e:6c:00", name=name)


@pytest.fixture
def cards() -> Cards:
    return Cards()


@pytest.fixture
def agent(cards: Cards) -> Agent:
    return Agent(cards)


def test_links_are_set_up_and_taken_down_in_order(cards: Cards, agent: Agent) -> None:
    cards.there = {1, 2}
    for number in (1, 2):
        agent.links.link(link(number))
    agent.links.unlink(1)
    assert agent.hear(3) == [(LINKED, 1, 0), (LINKED, 2, 0), (UNLINKED, 1, 0)]
    assert cards.done == ["up 1 eth0", "up 2 eth0", "down 1"]


def test_one_whose_card_is_late_keeps_nobody_waiting(cards: Cards, agent: Agent) -> None:
    cards.there = {2}
    agent.links.link(link(1))
    agent.links.link(link(2))
    assert agent.hear(1) == [(LINKED, 2, 0)]
    cards.there.add(1)
    assert agent.hear(1) == [(LINKED, 1, 0)]


def test_a_card_that_never_comes_is_told(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_PATIENCE", 0.1)
    agent.links.link(link(1))
    assert agent.hear(1) == [(LINKED, 1, errno.ENODEV)]


def test_only_the_last_word_about_a_link_counts(cards: Cards, agent: Agent) -> None:
    agent.links.link(link(1, "old"))
    agent.links.link(link(1, "new"))
    agent.links.link(link(2))
    agent.links.unlink(2)
    assert agent.hear(2) == [(LINKED, 2, errno.ECANCELED), (UNLINKED, 2, 0)]
    cards.there = {1, 2}
    assert agent.hear(1) == [(LINKED, 1, 0)]
    assert cards.done == ["down 2", "up 1 new"]


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.EPERM, "no"), errno.EPERM), (KeyError("x"), errno.EIO)]
)
def test_a_failure_is_told_and_others_go_on(
    cards: Cards, agent: Agent, error: Exception, code: int
) -> None:
    cards.there, cards.broken = {1, 2}, {1: error}
    for number in (1, 2):
        agent.links.link(link(number))
    assert agent.hear(2) == [(LINKED, 1, code), (LINKED, 2, 0)]


def test_what_is_not_urgent_is_done_once_all_is_answered(cards: Cards, agent: Agent) -> None:
    cards.there = {1}
    agent.links.link(link(1))
    agent.links.link(link(2))
    agent.hear(1)
    assert not cards.settled.wait(0.7)  # One is still waited for.
    agent.links.unlink(2)
    agent.hear(2)
    assert cards.settled.wait(TIMEOUT)


def test_no_thread_is_there_before_the_first_link(agent: Agent) -> None:
    def threads() -> int:
        return sum(thread.name == "links" for thread in threading.enumerate())

    before = threads()
    make: Callable[[], Cards] = Cards
    other = Links(agent.loop, make, lambda _kind, _status: None)
    assert threads() == before
    other.unlink(1)
    assert threads() == before + 1
