"""Carrying a plan out: each unit as a whole, or as if it had not been begun."""

from collections.abc import Callable

from insula.client import errors
from insula.protocol.errors import ReportableError
from insula.tools.apply.plan import Plan
from insula.tools.apply.steps import Step, Unit

Tell = Callable[[str], object]


def carry_out(plan: Plan, tell: Tell) -> bool:
    """Do everything; a unit that fails is undone, those that need it are left, others go on.

    Returns whether all was done.

    Raises:
        DaemonNotRunningError: the daemon is gone; the unit that was being done may be half done.
    """
    failed: set[str] = set()
    for unit in plan.units:
        if lacking := sorted(unit.needs & failed):
            tell(f"{unit.name}: not done: it needs {', '.join(lacking)}")
            _fail(unit, failed)
            continue
        try:
            problem = _do(unit)
        except errors.DaemonNotRunningError:
            tell(f"{unit.name}: may be half done")
            raise
        if problem is None:
            tell(f"{unit.name}: done")
        else:
            tell(f"{unit.name}: {problem}")
            _fail(unit, failed)
    return not failed


def _fail(unit: Unit, failed: set[str]) -> None:
    failed.add(unit.name)
    failed.update(unit.name.split(", "))  # those of a circle, too


def _do(unit: Unit) -> str | None:
    """What went wrong, if anything did; then nothing of the unit is left."""
    done: list[Step] = []
    try:
        for step in unit.steps:
            step.do()
            done.append(step)
    except errors.DaemonNotRunningError:
        raise
    except ReportableError as error:
        failing = unit.steps[len(done)]
        hint = f" {error.hint}" if error.hint else ""
        kept = _undo(done)
        state = "nothing of it was changed" if not kept else f"left as it is: {'; '.join(kept)}"
        return f"failed at {failing.text!r}: {error}{hint} ({state})"
    except BaseException:
        _undo(done)
        raise
    return None


def _undo(done: list[Step]) -> list[str]:
    """Take steps back, the last first; returns what could not be taken back."""
    kept = []
    for step in reversed(done):
        if step.final:
            kept.append(step.text)
        if step.undo is None:
            continue
        try:
            step.undo()
        except ReportableError as error:
            kept.append(f"{step.text} ({error})")
    return kept
