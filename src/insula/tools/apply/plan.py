"""What has to be done for a system to be as described, and in which order."""

from dataclasses import dataclass, field

from insula.client.app import App, Holder, Qube
from insula.protocol.admin import ADMIN_QUBE, PropertyAnswer
from insula.protocol.firewall import DEFAULT, parse_rule
from insula.tools.apply import steps
from insula.tools.apply.description import Values, Wanted, WantedQube, is_announced
from insula.tools.apply.found import BARE, Found, FoundQube, unexpired
from insula.tools.apply.order import groups
from insula.tools.apply.steps import Step, Unit

DEFAULT_CLASS = "AppVM"
_REFERENCES = frozenset(
    (
        "audiovm", "clockvm", "default_audiovm", "default_dispvm", "default_guivm",
        "default_netvm", "default_template", "guivm", "management_dispvm", "netvm", "relayvm",
        "template", "updatevm",
    )
)  # fmt: skip
_FIRST = ("provides_network", "template_for_dispvms", "virt_mode")
# A qube that stops being this has to wait for those that still use it so.
_USED_BY = {"provides_network": "netvm", "template_for_dispvms": "template"}
_PRELOADING = "preload-dispvm"
_DEFAULT_RULES = (parse_rule(DEFAULT),)
SYSTEM = "system"


@dataclass(slots=True)
class Plan:
    """units in the order in which they are done. problems: why it cannot be done as a whole."""

    units: list[Unit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """What one qube needs: first makes it, own needs no other qube, references and sizes come last.

    needs: qubes that have to be as described before.
    """

    first: list[Step] = field(default_factory=list)
    own: list[Step] = field(default_factory=list)
    references: list[Step] = field(default_factory=list)
    sizes: list[Step] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


def make_plan(app: App, wanted: Wanted, found: Found, *, remove: bool) -> Plan:
    """Compare, and say what to do. remove: qubes that are not mentioned, too."""
    return _Planner(app, wanted, found).plan(remove=remove)


class _Planner:
    def __init__(self, app: App, wanted: Wanted, found: Found) -> None:
        self._app = app
        self._wanted = wanted
        self._found = found
        self._problems: list[str] = []

    def plan(self, *, remove: bool) -> Plan:
        units = self._labels()
        going = self._going(remove)
        works = {one.name: self._work(one) for one in self._wanted.qubes.values() if not one.absent}
        self._add_waits(works)
        self._look_for_loops()
        self._look_for_missing(going)
        for group in groups({name: work.needs for name, work in works.items()}):
            unit = self._unit(group, works)
            if unit.steps:
                units.append(unit)
        if system := self._system():
            units.append(system)
        units += self._removals(going)
        return Plan(units, self._problems)

    def _problem(self, where: str, what: str) -> None:
        self._problems.append(f"{self._wanted.file}: {where}: {what}")

    def _labels(self) -> list[Unit]:
        units = []
        for name, color in self._wanted.labels.items():
            there = self._found.labels.get(name)
            if there is None:
                units.append(Unit(f"label {name}", [steps.create_label(self._app, name, color)]))
            elif there.lower() != color.lower():
                what = f"label {name} is {there}, and a label's colour cannot be changed"
                self._problem(f"labels.{name}", what)
        return units

    def _unit(self, group: list[str], works: dict[str, _Work]) -> Unit:
        """One qube, or those of a circle: made first, and then referring to each other."""
        unit = Unit(", ".join(group))
        prefixes = {name: f"{name}: " if len(group) > 1 else "" for name in group}
        by_template = {name: self._made_from(name) for name in group}
        ordered = [name for part in groups(by_template) for name in part]
        for kind in ("first", "own", "references", "sizes"):
            for name in ordered:
                for step in getattr(works[name], kind):
                    unit.steps.append(Step(prefixes[name] + step.text, step.do, step.undo))
        for name in group:
            unit.needs |= {f"label {label}" for label in works[name].labels}
            unit.needs |= works[name].needs - set(group)
        return unit

    def _made_from(self, name: str) -> set[str]:
        one = self._wanted.qubes[name]
        return {source for source in (self._template(one), one.clone) if source}

    def _template(self, one: WantedQube) -> str | None:
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

    def _work(self, one: WantedQube) -> _Work:
        there = self._found.qubes.get(one.name)
        work = _Work()
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

    def _creation(self, one: WantedQube, work: _Work) -> None:
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
        template = self._template(one)
        if template:
            work.needs.add(template)
        work.labels.add(one.label)
        work.first.append(steps.create(self._app, klass, one.name, one.label, template))

    def _identity(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: _Work) -> None:
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
        self, one: WantedQube, there: FoundQube | None, klass: str, qube: Qube, work: _Work
    ) -> None:
        values = dict(one.properties)
        if one.exact and there is not None:
            values |= {name: None for name in there.own if name not in values}
        answers = {} if there is None else there.answers
        known = self._found.types.get(klass, {})
        where = f"qubes.{one.name}.properties"
        for name in sorted(values, key=_rank):
            value = self._checked(f"{where}.{name}", name, values[name], known)
            before = answers.get(name)
            if not _differs(name, value, before):
                continue
            refers = bool(value) and (known.get(name) == "vm" or name in _REFERENCES)
            step = steps.set_property(qube, name, value, before, undone=True)
            (work.references if refers else work.own).append(step)
            if refers and value:
                work.needs.add(value)

    def _checked(
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

    def _features(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: _Work) -> None:
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

    def _tags(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: _Work) -> None:
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
        self, one: WantedQube, there: FoundQube | None, klass: str, qube: Qube, work: _Work
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
        self, one: WantedQube, there: FoundQube | None, klass: str, qube: Qube, work: _Work
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

    def _sizes(self, one: WantedQube, there: FoundQube | None, qube: Qube, work: _Work) -> None:
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

    def _add_waits(self, works: dict[str, _Work]) -> None:
        """Let a qube that is used no more change after those that used it."""
        for name, work in works.items():
            for ends, by in _USED_BY.items():
                if self._wanted.qubes[name].properties.get(ends, "True") == "True":
                    continue
                for other in works:
                    there = self._found.qubes.get(other)
                    answer = None if there is None else there.answers.get(by)
                    if answer is not None and answer.value == name and other != name:
                        work.needs.add(other)

    def _look_for_loops(self) -> None:
        """A circle of netvms is refused before anything is changed."""
        netvms = {
            name: there.answers["netvm"].value
            for name, there in self._found.qubes.items()
            if "netvm" in there.answers
        }
        for one in self._wanted.qubes.values():
            if (netvm := one.properties.get("netvm")) is not None:
                netvms[one.name] = netvm
        for one in self._wanted.qubes.values():
            way, name = [one.name], netvms.get(one.name, "")
            while name and name not in way:
                way.append(name)
                name = netvms.get(name, "")
            if name == one.name and one.properties.get("netvm"):
                what = f"a loop: {' -> '.join([*way, name])}"
                self._problem(f"qubes.{one.name}.properties.netvm", what)

    def _look_for_missing(self, going: list[str]) -> None:
        """References to qubes that will not be there."""
        there = {name for name, one in self._wanted.qubes.items() if not one.absent}
        there |= set(self._found.qubes) - set(going)
        for one in self._wanted.qubes.values():
            known = self._found.types.get(one.klass or DEFAULT_CLASS, {})
            said = {"template": one.template}
            if one.name not in self._found.qubes:
                said["clone"] = one.clone
            for name, value in one.properties.items():
                if known.get(name) == "vm" or name in _REFERENCES:
                    said[f"properties.{name}"] = value
            for key, value in said.items():
                if value and value not in there:
                    self._problem(f"qubes.{one.name}.{key}", f"there is no qube {value}")
        for name, value in self._wanted.system.items():
            if name in _REFERENCES and value and value not in there:
                self._problem(f"system.{name}", f"there is no qube {value}")

    def _system(self) -> Unit | None:
        unit = Unit(SYSTEM)
        known = {name: answer.type for name, answer in self._found.system.items()}
        holder: Holder = self._app
        for name, value in self._wanted.system.items():
            checked = self._checked(f"system.{name}", name, value, known)
            before = self._found.system.get(name)
            if not _differs(name, checked, before):
                continue
            unit.steps.append(steps.set_property(holder, name, checked, before, undone=True))
            if checked and known.get(name) == "vm":
                unit.needs.add(checked)
        return unit if unit.steps else None

    def _going(self, remove: bool) -> list[str]:
        """Qubes that are to be removed."""
        going = []
        for name, there in self._found.qubes.items():
            one = self._wanted.qubes.get(name)
            asked = one is not None and one.absent
            if name == ADMIN_QUBE:
                if asked:
                    self._problem(f"qubes.{name}.state", "dom0 cannot be removed")
                continue
            if asked or (remove and one is None and not there.is_passing):
                going.append(name)
        for name in going:
            state = self._found.qubes[name].qube.state
            if state != "Halted":
                what = f"it is {state}, and only a halted qube is removed"
                self._problem(f"qubes.{name}", f"{what}: qvm-shutdown --wait {name}")
        return going

    def _removals(self, going: list[str]) -> list[Unit]:
        """Each after those that refer to it."""
        refers = {name: self._referred(name) & set(going) for name in going}
        users: dict[str, set[str]] = {name: set() for name in going}
        for name, others in refers.items():
            for other in others:
                users[other].add(name)
        units = []
        for group in groups(users):
            unit = Unit(", ".join(group))
            for name in group:
                unit.steps += self._unrefer(name, set(group))
            for name in group:
                unit.steps.append(steps.remove(self._found.qubes[name].qube, alone=len(group) == 1))
            units.append(unit)
        return units

    def _referred(self, name: str) -> set[str]:
        return {
            answer.value
            for answer in self._found.qubes[name].answers.values()
            if answer.type == "vm" and not answer.is_default and answer.value != name
        }

    def _unrefer(self, name: str, others: set[str]) -> list[Step]:
        """Let a qube of a circle refer to the others no more: else none of them can go."""
        there = self._found.qubes[name]
        return [
            steps.set_property(there.qube, key, "", answer, undone=True)
            for key, answer in there.own.items()
            if answer.type == "vm" and answer.value in others - {name}
        ]


def _differs(name: str, value: str | None, before: PropertyAnswer | None) -> bool:
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
