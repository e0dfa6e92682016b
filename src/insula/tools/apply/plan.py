"""What has to be done for a system to be as described, and in which order."""

from dataclasses import dataclass, field, replace

from insula.client.app import App, Holder
from insula.protocol.admin import ADMIN_QUBE
from insula.tools.apply import steps
from insula.tools.apply.comparing import DEFAULT_CLASS, REFERENCES, Comparison, Work, differs
from insula.tools.apply.description import Wanted
from insula.tools.apply.found import Found
from insula.tools.apply.order import groups
from insula.tools.apply.steps import Step, Unit

# A qube that stops being this has to wait for those that still use it so.
_USED_BY = {"provides_network": "netvm", "template_for_dispvms": "template"}
SYSTEM = "system"


@dataclass(slots=True)
class Plan:
    """units in the order in which they are done. problems: why it cannot be done as a whole."""

    units: list[Unit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def make_plan(app: App, wanted: Wanted, found: Found, *, remove: bool) -> Plan:
    """Compare, and say what to do. remove: qubes that are not mentioned, too."""
    return _Planner(app, wanted, found).plan(remove=remove)


class _Planner:
    def __init__(self, app: App, wanted: Wanted, found: Found) -> None:
        self._app = app
        self._wanted = wanted
        self._found = found
        self._problems: list[str] = []
        self._comparison = Comparison(app, wanted, found, self._problem)

    def plan(self, *, remove: bool) -> Plan:
        units = self._labels()
        going = self._going(remove)
        works = {
            one.name: self._comparison.work(one)
            for one in self._wanted.qubes.values()
            if not one.absent
        }
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

    def _unit(self, group: list[str], works: dict[str, Work]) -> Unit:
        """One qube, or those of a circle: made first, and then referring to each other."""
        unit = Unit(", ".join(group))
        prefixes = {name: f"{name}: " if len(group) > 1 else "" for name in group}
        by_template = {name: self._made_from(name) for name in group}
        ordered = [name for part in groups(by_template) for name in part]
        making = [(name, [*works[name].first, *works[name].own]) for name in ordered]
        referring = [(name, works[name].references) for name in ordered]
        growing = [(name, works[name].sizes) for name in ordered]
        for name, part in making + referring + growing:
            unit.steps += [replace(step, text=prefixes[name] + step.text) for step in part]
        for name in group:
            unit.needs |= {f"label {label}" for label in works[name].labels}
            unit.needs |= works[name].needs - set(group)
        return unit

    def _made_from(self, name: str) -> set[str]:
        one = self._wanted.qubes[name]
        return {source for source in (self._comparison.template(one), one.clone) if source}

    def _add_waits(self, works: dict[str, Work]) -> None:
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
                if known.get(name) == "vm" or name in REFERENCES:
                    said[f"properties.{name}"] = value
            for key, value in said.items():
                if value and value not in there:
                    self._problem(f"qubes.{one.name}.{key}", f"there is no qube {value}")
        for name, value in self._wanted.system.items():
            if name in REFERENCES and value and value not in there:
                self._problem(f"system.{name}", f"there is no qube {value}")

    def _system(self) -> Unit | None:
        unit = Unit(SYSTEM)
        known = {name: answer.type for name, answer in self._found.system.items()}
        holder: Holder = self._app
        for name, value in self._wanted.system.items():
            checked = self._comparison.checked(f"system.{name}", name, value, known)
            before = self._found.system.get(name)
            if not differs(name, checked, before):
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
