"""Single changes, each with what takes it back."""

from collections.abc import Callable
from dataclasses import dataclass, field

from insula.client.app import App, Holder, Qube
from insula.protocol.admin import PropertyAnswer
from insula.protocol.firewall import Rule
from insula.tools.apply.description import SERVICE
from insula.tools.sizes import human_size

_LONGEST = 60  # characters of a text that a plan shows


@dataclass(frozen=True, slots=True)
class Step:
    """One change. undo: None where another step's takes it back, or, if final, nothing can."""

    text: str
    do: Callable[[], object]
    undo: Callable[[], object] | None = None
    final: bool = False


@dataclass(slots=True)
class Unit:
    """Steps that are done as a whole or not at all.

    needs: names of units without which it cannot be done.
    """

    name: str
    steps: list[Step] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)


def set_property(
    holder: Holder, name: str, value: str | None, before: PropertyAnswer | None, *, undone: bool
) -> Step:
    """Set a property, or reset it. before: what it is; undone: whether it is to be taken back."""

    def do() -> None:
        if value is None:
            holder.reset(name)
        else:
            holder.set(name, value)

    def undo() -> None:
        if before is None or before.is_default:
            holder.reset(name)
        else:
            holder.set(name, before.value)

    was = "" if before is None else f" (was {_shown(before.value)}{_by_default(before)})"
    return Step(f"{name} = {_value(value)}{was}", do, undo if undone else None)


def set_feature(
    qube: Qube, name: str, value: str | None, before: str | None, *, undone: bool
) -> Step:
    """Set a feature, or take it away."""

    def put(text: str | None) -> None:
        if text is None:
            del qube.features[name]
        else:
            qube.features[name] = text

    kind, shown = ("feature", name)
    wanted = "not set" if value is None else _shown(value)
    if name.startswith(SERVICE):
        kind, shown = "service", name.removeprefix(SERVICE)
        wanted = {None: "not set", "": "off", "1": "on"}.get(value, wanted)
    was = "" if before is None else f" (was {_shown(before)})"
    text = f"{kind} {shown}: {wanted}{was}"
    return Step(text, lambda: put(value), (lambda: put(before)) if undone else None)


def set_tag(qube: Qube, tag: str, wanted: bool, *, undone: bool) -> Step:
    """Give a tag or take it away."""

    def add() -> None:
        qube.tags.add(tag)

    def take() -> None:
        qube.tags.discard(tag)

    do, undo = (add, take) if wanted else (take, add)
    text = f"tag {tag}" if wanted else f"no tag {tag}"
    return Step(text, do, undo if undone else None)


def set_notes(qube: Qube, text: str, before: str, *, undone: bool) -> Step:
    """Write the notes anew."""

    def put(notes: str) -> None:
        qube.notes = notes

    return Step(
        f"notes: {len(text)} characters (had {len(before)})",
        lambda: put(text),
        (lambda: put(before)) if undone else None,
    )


def set_firewall(
    qube: Qube, rules: tuple[Rule, ...], before: tuple[Rule, ...], *, undone: bool
) -> Step:
    """Set the firewall rules."""

    def put(chosen: tuple[Rule, ...]) -> None:
        qube.firewall.rules = chosen

    shown = "; ".join(map(str, rules)) or "none, all is dropped"
    return Step(
        f"firewall: {_shown(shown)}", lambda: put(rules), (lambda: put(before)) if undone else None
    )


def resize(qube: Qube, volume: str, size: int, before: int | None, *, undone: bool) -> Step:
    """Give a volume its size."""

    def to(bytes_: int) -> None:
        qube.volumes.named(volume).resize(bytes_)

    def grow() -> None:
        if before is not None or qube.volumes.named(volume).size != size:
            to(size)

    was = "" if before is None else f" (was {human_size(before)})"
    undo = None if before is None or not undone else lambda: to(before)
    return Step(f"volume {volume}: {human_size(size)}{was}", grow, undo)


def create(app: App, klass: str, name: str, label: str, template: str | None) -> Step:
    """Make a qube."""
    of = f", template {template}" if template else ""
    return Step(
        f"create: {klass}, label {label}{of}",
        lambda: app.add_new_qube(klass, name, label, template=template),
        app.domains.known(name).remove,
    )


def clone(app: App, source: str, name: str, klass: str | None, label: str | None) -> Step:
    """Make a qube of another; a standalone qube leaves out what its user has."""
    ignored = ("private",) if klass == "StandaloneVM" else ()

    def do() -> None:
        known = app.domains[source]
        left = ignored if known.klass != klass else ()
        app.clone_qube(known, name, klass=klass, label=label, ignore_volumes=left)

    as_ = "".join(f", {text}" for text in (klass, label and f"label {label}") if text)
    return Step(f"create: clone of {source}{as_}", do, app.domains.known(name).remove)


def remove(qube: Qube, *, alone: bool) -> Step:
    """Remove a qube with all its data. alone: the plan names it already."""
    text = "remove, with all its data" if alone else f"{qube}: remove, with all its data"
    return Step(text, qube.remove, final=True)


def create_label(app: App, name: str, color: str) -> Step:
    """Make a label."""
    labels = app.labels
    return Step(f"create: {color}", lambda: labels.create(name, color), lambda: labels.remove(name))


def _value(value: str | None) -> str:
    return "its default" if value is None else _shown(value)


def _shown(text: str) -> str:
    if not text:
        return "none"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _by_default(before: PropertyAnswer) -> str:
    return ", the default" if before.is_default else ""
