"""Taking templates away: alone, after moving who uses them, or with all who use them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from insula.client import admin, errors
from insula.client.app import App, Holder, Qube
from insula.tools.command import confirmed
from insula.tools.templates.installing import NotConfirmedError

_DUMMY, _DUMMY_LABEL = "dummy", "red"
_DUMMY_FEATURE = "template-dummy"
_MOST_DUMMIES = 1000
_TIMES_ASKED = 3


def remove(app: App, qubes: Sequence[Qube], *, disassociate: bool, ask: bool) -> None:
    """Remove templates.

    Raises:
        NotConfirmedError: the answer was no.
        QubesException: one is in use, or cannot be removed.
    """
    _confirm("This removes the templates:", qubes, 1 if ask else 0)
    if disassociate:
        for qube in qubes:
            _disassociate(app, qube, removed=qubes)
    for qube in qubes:
        _remove(qube)


def purge(app: App, qubes: Sequence[Qube], *, ask: bool) -> None:
    """Remove templates and every qube that is made from one of them.

    Raises:
        NotConfirmedError: an answer was no.
        QubesException: one cannot be removed.
    """
    found = _with_dependants(app, qubes)
    _confirm("This removes, with all that is in them:", found, _TIMES_ASKED if ask else 0)
    for qube in found:
        with suppress(errors.QubesVMNotStartedError):
            qube.call("admin.vm.Kill")
    for qube in reversed(found):
        if qube.name not in app.domains:
            continue  # a disposable, which went when it ended
        for holder, name in _uses(app, qube):
            holder.set(name, "")
        _remove(qube)


def _confirm(question: str, qubes: Iterable[Qube], times: int) -> None:
    if times:
        print(question)
        for qube in qubes:
            print(f"  {qube}")
    for _ in range(times):
        if not confirmed("Are you sure? [y/N] "):
            raise NotConfirmedError


def _remove(qube: Qube) -> None:
    properties = qube.get_all()
    if "installed_by_rpm" in properties and properties["installed_by_rpm"].value == "True":
        qube.set("installed_by_rpm", False)
    qube.call("admin.vm.Remove")


def _with_dependants(app: App, qubes: Sequence[Qube]) -> list[Qube]:
    """Qubes, and after each those that are made from it."""
    found: dict[str, Qube] = {qube.name: qube for qube in qubes}
    templates = {
        qube.name: answer.value
        for qube in app.domains
        if (answer := qube.get_all().get("template")) is not None
    }
    while more := {
        name for name, template in templates.items() if template in found and name not in found
    }:
        found |= {name: app.domains[name] for name in sorted(more)}
    return list(found.values())


def _uses(app: App, qube: Qube) -> list[tuple[Holder, str]]:
    """Where a qube is set, but as the template of another."""
    return [
        (holder, name)
        for holder in (app, *app.domains)
        for name, answer in holder.get_all().items()
        if answer.type == "vm" and answer.value == qube.name
        and not answer.is_default and name != "template"
    ]  # fmt: skip


def _disassociate(app: App, template: Qube, *, removed: Sequence[Qube]) -> None:
    """Leave nothing that names a template; its qubes get a dummy."""
    dummy = None
    for qube in app.domains:
        answer = qube.get_all().get("template")
        if answer is not None and answer.value == template.name and qube not in removed:
            dummy = dummy or _dummy(app)
            qube.set("template", dummy)
    for holder, name in _uses(app, template):
        holder.set(name, "")


def _dummy(app: App) -> Qube:
    """A template with nothing in it, made where there is none."""
    known = list(app.domains)
    for qube in known:
        if qube.klass == "TemplateVM" and qube.features.get(_DUMMY_FEATURE) == "1":
            return qube
    names = {qube.name for qube in known}
    candidates = (_DUMMY, *(f"{_DUMMY}-{number}" for number in range(1, _MOST_DUMMIES)))
    name = next(one for one in candidates if one not in names)
    payload = f"name={name} label={_DUMMY_LABEL}".encode()
    admin.ask_dom0("admin.vm.Create.TemplateVM", payload=payload)
    qube = app.domains[name]
    qube.features[_DUMMY_FEATURE] = "1"
    return qube
