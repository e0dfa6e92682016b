"""What single qubes need to be as described."""

from collections.abc import Callable
from dataclasses import dataclass, field

from insula.client.app import App, Qube
from insula.protocol.admin import ADMIN_QUBE, PropertyAnswer
from insula.protocol.firewall import DEFAULT, parse_rule
from insula.tools.apply import steps
from insula.tools.apply.description import Values, Wanted, WantedQube, is_announced
from insula.tools.apply.found import BARE, Found, FoundQube, unexpired
from insula.tools.apply.steps import Step

DEFAULT_CLASS = "AppVM"
REFERENCES = frozenset(
    (
        "audiovm", "clockvm", "default_audiovm", "default_dispvm", "default_guivm",
        "default_netvm", "default_template", "guivm", "management_dispvm", "netvm", "relayvm",
        "template", "updatevm",
    )
)  # fmt: skip
_FIRST = ("provides_network", "template_for_dispvms", "virt_mode")
_PRELOADING = "preload-dispvm"
_DEFAULT_RULES = (parse_rule(DEFAULT),)

Problem = Callable[[str, str], object]  # of a key, what is wrong with it


@dataclass(slots=True)
class Work:
    """What one qube needs: first makes it, own needs no other qube, references and sizes come last.

    needs: qubes that have to be as described before.
    """

    first: list[Step] = field(default_factory=list)
    own: list[Step] = field(default_factory=list)
    references: list[Step] = field(default_factory=list)
    sizes: list[Step] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


class Comparison:
    """The system as it is, beside what it is to be. problem: told what cannot be."""

    def __init__(self, app: App, wanted: Wanted, found: Found, problem: Problem) -> None:
        self._app = app
        self._wanted = wanted
        self._found = found
        self._problem = problem

    def template(self, one: WantedQube) -> str | None:
        """The template that a qube is to have; None for a class without, or where none is said."""
        if one.template or one.klass in ("TemplateVM", "StandaloneVM", *BARE):
            return one.template
        there = self._found.qubes.get(one.name)
        if there is not None:
            return there.template
        if (one.klass or DEFAULT_CLASS) == "DispVM":
            return self._system_value("default_dispvm")
        return self._system_value("default_template")

    def _system_value(self, name: str) -> str | None:
        if self._wanted.system.get(name):
            return self._wanted.system[name]
        there = self._found.system.get(name)
        return there.value or None if there is not None else None

    def work(self, one: WantedQube) -> Work:
        """Everything that a qube needs."""
        there = self._found.qubes.get(one.name)
        work = Work()
        qube = self._app.domains.known(one.name)
        if there is None:
            self._creation(one, work)
        elif one.klass is not None and one.klass != there.klass:
            what = f"{one.name} is a {there.klass}, and a qube's class cannot be changed"
            self._problem(f"qubes.{one.name}.class", what)
            return work
        klass = one.klass or (there.klass if there else DEFAULT_CLASS)
        self._identity(one, there, qube, work)
        self._properties(one, there, klass, qube, work)
        self._features(one, there, qube, work)
        self._tags(one, there, qube, work)
        self._notes(one, there, klass, qube, work)
        self._firewall(one, there, klass, qube, work)
        self._sizes(one, there, qube, work)
        return work

    def _creation(self, one: WantedQube, work: Work) -> None:
        klass = one.klass or DEFAULT_CLASS
        where = f"qubes.{one.name}"
        if one.name == ADMIN_QUBE or klass == "AdminVM":
            self._problem(where, "there is one AdminVM, dom0, and there can be no other")
            return
        if one.clone:
            work.needs.add(one.clone)
            work.first.append(steps.clone(self._app, one.clone, one.name, one.klass, one.label))
            return
        if one.label is None:
            self._problem(where, "a new qube needs a label")
            return
        template = self.template(one)
        if template:
            work.needs.add(template)
        work.labels.add(one.label)
        work.first.append(steps.create(self._app, klass, one.name, one.label, template))

    def _identity(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: Work) -> None:
        """Label and template of a qube that is there."""
        if one.label is not None:
            if one.label not in self._found.labels and one.label not in self._wanted.labels:
                known = ", ".join({**self._found.labels, **self._wanted.labels})
                what = f"there is no label {one.label}; there are {known}"
                self._problem(f"qubes.{one.name}.label", what)
            work.labels.add(one.label)
        if there is None:
            return
        for name, value in (("label", one.label), ("template", one.template)):
            if value is None:
                continue
            before = there.answers.get(name)
            if before is None:
                self._problem(f"qubes.{one.name}.{name}", f"qubes of class {there.klass} have none")
            elif before.value != value:
                step = steps.set_property(qube, name, value, before, undone=True)
                (work.references if name == "template" else work.own).append(step)
                if name == "template":
                    work.needs.add(value)

    def _properties(
        self, one: WantedQube, there: FoundQube | None, klass: str, qube: Qube, work: Work
    ) -> None:
        values = dict(one.properties)
        if one.exact and there is not None:
            values |= {name: None for name in there.own if name not in values}
        answers = {} if there is None else there.answers
        known = self._found.types.get(klass, {})
        where = f"qubes.{one.name}.properties"
        for name in sorted(values, key=_rank):
            value = self.checked(f"{where}.{name}", name, values[name], known)
            before = answers.get(name)
            if not differs(name, value, before):
                continue
            refers = bool(value) and (known.get(name) == "vm" or name in REFERENCES)
            step = steps.set_property(qube, name, value, before, undone=True)
            (work.references if refers else work.own).append(step)
            if refers and value:
                work.needs.add(value)

    def checked(
        self, where: str, name: str, value: str | None, known: dict[str, str]
    ) -> str | None:
        """A value as the daemon spells it."""
        if known and name not in known:
            self._problem(where, "there is no such property")
        match known.get(name), value:
            case _, None:
                pass
            case "bool", str() if value not in ("True", "False"):
                self._problem(where, "true or false is wanted")
            case "int", str() if not value.removeprefix("-").isdigit():
                self._problem(where, "a number is wanted")
        return value

    def _features(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: Work) -> None:
        if not one.features and not one.exact:
            return
        before = {} if there is None else there.features
        values: Values = dict(one.features)
        if one.exact:
            values |= {
                name: None for name in before if name not in values and not is_announced(name)
            }
        for name in sorted(values, key=lambda name: (name.startswith(_PRELOADING), name)):
            if values[name] != before.get(name):
                was = before.get(name)
                undone = there is not None
                work.own.append(steps.set_feature(qube, name, values[name], was, undone=undone))

    def _tags(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: Work) -> None:
        if one.tags is None and not one.exact:
            return
        wanted = one.tags or frozenset()
        before = frozenset() if there is None else there.tags
        for tag in sorted(wanted - before):
            work.own.append(steps.set_tag(qube, tag, True, undone=there is not None))
        if one.exact:
            for tag in sorted(before - wanted):
                work.own.append(steps.set_tag(qube, tag, False, undone=there is not None))

    def _notes(
        self, one: WantedQube, there: FoundQube | None, klass: str, qube: Qube, work: Work
    ) -> None:
        if klass == "AdminVM" and one.notes is not None:
            self._problem(f"qubes.{one.name}.notes", "dom0 has none")
        notes = "" if one.notes is None and one.exact else one.notes
        if notes is None or klass == "AdminVM":
            return
        before = "" if there is None else there.notes
        if notes != before:
            work.own.append(steps.set_notes(qube, notes, before, undone=there is not None))

    def _firewall(
        self, one: WantedQube, there: FoundQube | None, klass: str, qube: Qube, work: Work
    ) -> None:
        if klass in BARE and one.firewall is not None:
            self._problem(f"qubes.{one.name}.firewall", f"qubes of class {klass} have none")
        if klass in BARE or (one.firewall is None and not one.exact):
            return
        rules = _DEFAULT_RULES if one.firewall is None else unexpired(one.firewall)
        before = () if there is None else there.firewall
        if there is None or rules != before:
            step = steps.set_firewall(qube, rules, before, undone=there is not None)
            work.own.append(step)

    def _sizes(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: Work) -> None:
        for name, size in one.volumes.items():
            before = None
            if there is not None:
                where = f"qubes.{one.name}.volumes.{name}"
                before = self._size(there, name, where)
                if before is None or size == before:
                    continue
                if size < before:
                    what = f"it has {before} bytes, and a volume cannot be made smaller"
                    self._problem(where, what)
            step = steps.resize(qube, name, size, before, undone=there is not None)
            work.sizes.append(step)

    def _size(self, there: FoundQube, volume: str, where: str) -> int | None:
        if volume not in there.qube.volumes:
            self._problem(where, "there is no such volume")
            return None
        return there.sizes.get(volume) or there.qube.volumes.named(volume).size


def differs(name: str, value: str | None, before: PropertyAnswer | None) -> bool:
    """Whether a property is not as it is to be."""
    if before is None:
        return value is not None
    if value is None:
        return not before.is_default
    return before.is_default or before.value != _canonical(name, value)


def _canonical(name: str, value: str) -> str:
    """A value as the daemon keeps it."""
    match name:
        case "mac" | "virt_mode":
            return value.lower()
        case "devices_denied":
            return "".join(sorted({value[at : at + 7] for at in range(0, len(value), 7)}))
        case "ip" | "ip6":
            import ipaddress  # noqa: PLC0415 - rarely given

            try:
                return str(ipaddress.ip_address(value))
            except ValueError:
                return value
    return value


def _rank(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)
