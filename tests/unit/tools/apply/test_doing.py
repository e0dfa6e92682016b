"""Plans are carried out as a whole or not at all, and what cannot be taken back is told."""

import pytest

from insula.client import errors
from insula.tools.apply.doing import carry_out
from insula.tools.apply.plan import Plan
from insula.tools.apply.steps import Step, Unit


class Journal:
    """What was done, and what was told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.told: list[str] = []

    def step(self, name: str, error: BaseException | None = None, **more: bool) -> Step:
        def do() -> None:
            if error is not None and not more.get("undoing"):
                raise error
            self.done.append(name)

        def undo() -> None:
            self.done.append(f"-{name}")
            if error is not None:
                raise error

        return Step(name, do, undo, final=more.get("final", False))

    def carry_out(self, *units: Unit) -> bool:
        return carry_out(Plan(list(units)), self.told.append)


REFUSED = errors.QubesException("it does not go\nDo it otherwise.")


def test_a_unit_that_fails_is_taken_back_in_reverse() -> None:
    journal = Journal()
    step = journal.step
    units = [
        Unit("a", [step("a1"), step("a2"), step("a3", REFUSED)]),
        Unit("b", [step("b1")]),
        Unit("c", [step("c1")], {"a", "b"}),
        Unit("d", [step("d1")], {"c"}),
    ]
    assert not journal.carry_out(*units)
    assert journal.done == ["a1", "a2", "-a2", "-a1", "b1"]
    assert journal.told == [
        "a: failed at 'a3': it does not go Do it otherwise. (nothing of it was changed)",
        "b: done",
        "c: not done: it needs a",
        "d: not done: it needs c",
    ]


def test_those_of_a_circle_fail_together() -> None:
    journal = Journal()
    units = [Unit("a, b", [journal.step("x", REFUSED)]), Unit("c", [journal.step("y")], {"b"})]
    assert not journal.carry_out(*units)
    assert journal.told[1] == "c: not done: it needs b"


def test_what_is_left_is_told() -> None:
    journal = Journal()
    step = journal.step
    unit = Unit("a", [step("1", final=True), step("2", REFUSED, undoing=True), step("3", REFUSED)])
    assert not journal.carry_out(unit)
    assert "left as it is: 2 (it does not go); 1" in journal.told[0]


def test_an_interrupted_unit_is_taken_back() -> None:
    journal = Journal()
    with pytest.raises(KeyboardInterrupt):
        journal.carry_out(Unit("a", [journal.step("1"), journal.step("2", KeyboardInterrupt())]))
    assert journal.done == ["1", "-1"]


def test_a_daemon_that_is_gone_ends_it() -> None:
    journal = Journal()
    with pytest.raises(errors.DaemonNotRunningError):
        journal.carry_out(Unit("a", [journal.step("1", errors.DaemonNotRunningError("there"))]))
    assert journal.told == ["a: may be half done"]
