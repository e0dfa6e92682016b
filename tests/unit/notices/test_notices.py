"""Notices from a program of a qube to the person, over real buses and both of our processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from insula.dom0 import notifications
from insula.dom0.notifications import Rate
from insula.protocol.dbus import Kind, Message, Variant
from insula.protocol.notices import Show, Urgency, take_of_dom0
from insula.qrexec.bus import Bus
from tests.unit.notices.conftest import NAME, PATH, TIMEOUT, Host

pytestmark = pytest.mark.usefixtures("qube")


class Program:
    """A program of a qube."""

    def __init__(self, address: str) -> None:
        self._bus = Bus(address)
        self._bus.call("Hello")
        self._bus.call("AddMatch", "s", f"type='signal',interface='{NAME}'")
        self._heard: list[Message] = []

    def call(self, member: str, signature: str = "", *body: Any) -> Message:
        """Call the service of the qube; its answer."""
        serial = self._bus.send(
            Message(kind=Kind.CALL, path=PATH, interface=NAME, member=member, destination=NAME,
                    signature=signature, body=body)
        )  # fmt: skip
        return self._wait(lambda one: one.reply_serial == serial)

    def notify(self, summary: str, body: str = "", **more: Any) -> int:
        """Show a notice; its number."""
        actions, hints = more.get("actions", []), more.get("hints", {})
        timeout, replaces = more.get("timeout", -1), more.get("replaces", 0)
        answer = self.call(
            "Notify", "susssasa{sv}i", "mail", replaces, "icon", summary, body, actions, hints,
            timeout,
        )  # fmt: skip
        (number,) = answer.body
        return int(number)

    def signal(self, member: str) -> tuple[Any, ...]:
        """Wait for a signal; what it says."""
        return self._wait(lambda one: one.member == member).body

    def _wait(self, wanted: Any) -> Message:
        while True:
            for message in self._heard:
                if wanted(message):
                    self._heard.remove(message)
                    return message
            self._heard += self._bus.read()

    def close(self) -> None:
        self._bus.close()


@pytest.fixture
def program(guest_bus: str) -> Any:
    one = Program(guest_bus)
    yield one
    one.close()


def shown(host: Host) -> tuple[Any, ...]:
    member, body = host.told.get(timeout=TIMEOUT)
    assert member == "Notify"
    return body


def test_a_notice_comes_with_its_qubes_name_and_colour(host: Host, program: Program) -> None:
    number = program.notify("You have mail", "from <b>Bob</b> & co\nsecond", timeout=5000)
    name, replaced, icon, summary, body, actions, hints, timeout = shown(host)
    assert (name, replaced, actions, timeout) == ("work", 0, [], 5000)
    assert summary == "work: You have mail"
    assert body == "from &lt;b&gt;Bob&lt;/b&gt; &amp; co\nsecond"
    assert hints == {"urgency": Variant("y", 1)}
    assert "#73d216" in Path(icon).read_text()
    program.call("CloseNotification", "u", number)
    assert host.told.get(timeout=TIMEOUT) == ("CloseNotification", (101,))
    assert program.signal("NotificationClosed") == (number, 3)


def test_what_the_person_chooses_comes_back(host: Host, program: Program) -> None:
    number = program.notify("Hello", actions=["default", "Open", "later", "L\u202eater"])
    assert shown(host)[5] == ["0", "Open", "1", "L___ater"]
    host.signal("ActionInvoked", "us", 101, "1")
    assert program.signal("ActionInvoked") == (number, "later")
    host.signal("ActionInvoked", "us", 999, "0")
    host.signal("ActionInvoked", "us", 101, "9")
    host.signal("NotificationClosed", "uu", 101, 2)
    assert program.signal("NotificationClosed") == (number, 2)


def test_a_notice_takes_the_place_of_an_earlier_one(host: Host, program: Program) -> None:
    number = program.notify("one")
    assert program.notify("two", replaces=number) == number
    assert program.notify("three", replaces=number) == number
    assert shown(host)[1] == 0
    bodies = [shown(host)]
    if bodies[0][3] == "work: two":  # Else the third came before the host had shown the first.
        bodies.append(shown(host))
    assert {body[1] for body in bodies} == {101}
    assert bodies[-1][3] == "work: three"


def test_a_qube_cannot_demand_more_than_others(host: Host, program: Program) -> None:
    program.notify("urgent", hints={"urgency": Variant("y", 2)}, timeout=0)
    body = shown(host)
    assert body[6] == {"urgency": Variant("y", 1)}
    assert body[7] == 30_000
    program.notify("short", hints={"urgency": Variant("s", "x")}, timeout=1)
    assert shown(host)[7] == 1000


def test_a_flood_is_dropped_and_counted(host: Host, program: Program) -> None:
    numbers = [program.notify(f"n{count}") for count in range(12)]
    assert [shown(host)[3] for _ in range(4)] == [f"work: n{count}" for count in range(4)]
    closed = {program.signal("NotificationClosed") for _ in range(8)}
    assert closed == {(number, 4) for number in numbers[4:]}


def test_the_service_says_what_it_is(host: Host, program: Program) -> None:
    assert program.call("GetCapabilities").body == (["actions", "body"],)
    assert program.call("GetServerInformation").body == ("Insula", "Insula", "1", "1.2")
    assert program.call("Other").kind == Kind.ERROR
    assert program.call("Notify", "s", "x").kind == Kind.ERROR
    assert host.told.empty()


def test_without_a_service_of_the_host_notices_are_gone_at_once(
    host: Host, program: Program
) -> None:
    host.refuses = True
    number = program.notify("Hello")
    assert program.signal("NotificationClosed") == (number, 4)


def test_without_a_session_too(program: Program, instance: Path) -> None:
    number = program.notify("Hello")
    assert program.signal("NotificationClosed") == (number, 4)
    assert "nobody shows notices" in (instance / "errors").read_text()


def _serve(sent: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-P", "-s", "-m", "insula.dom0.notifications"],
        env={**os.environ, "QREXEC_REMOTE_DOMAIN": "work"},
        input=sent,
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
    )


def test_a_qube_that_breaks_the_rules_is_heard_no_more(host: Host, instance: Path) -> None:
    show = Show(1, Urgency.NORMAL, -1, b"x")
    done = _serve(show.encode() + b"\x07\0\0\0\0")
    assert done.returncode == 1
    assert b"not a message of a qube" in done.stderr
    assert shown(host)[3] == "work: x"
    assert not list(instance.glob("notices-*"))


def test_only_some_are_there_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_BURST", 100.0)
    said: list[bytes] = []
    bus = Bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
    bus.call("Hello")
    made = notifications.Notices("work", Path("/x"), bus, said.append, Rate(_left=100.0))
    for number in range(1, 11):
        made.take(Show(number, Urgency.NORMAL, -1, b"x"))
    gone = [take_of_dom0(bytearray(message)) for message in said]
    assert [getattr(one, "number", None) for one in gone] == [1, 2]
    while len(made._asked):
        for message in bus.read():
            made.hear(message)
    members = [host.told.get(timeout=TIMEOUT)[0] for _ in range(12)]
    assert members.count("CloseNotification") == 2
    bus.close()


def test_how_often() -> None:
    now = 1000.0
    rate = Rate(lambda: now)
    assert [rate.may() for _ in range(5)] == [True] * 4 + [False]
    now += 2
    assert [rate.may(), rate.may()] == [True, False]
    assert rate.all_after() == 8
    now += 100
    assert rate.all_after() == 0
    assert [rate.may() for _ in range(5)] == [True] * 4 + [False]
