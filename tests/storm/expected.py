"""What a qube has to be after a daemon was killed: all that was acknowledged, nothing in halves."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from insula.protocol.admin import parse_property_lines

LABELS = ("red", "orange", "yellow", "green", "gray", "blue", "purple", "black")
TEXTS = ("", "1", "some text", "x" * 300)
MOST_QUBES = 6  # of one writer

# Asks the daemon; None and empty answers are those of one that was killed.
Ask = Callable[[str, str, str, bytes], bytes | None]


@dataclass
class Known:
    """What is known of a qube."""

    label: str
    properties: dict[str, str] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Step:
    """A call that changes one qube, and what the qube is once it was made; None: it is gone."""

    method: str
    destination: str
    argument: str
    payload: bytes
    qube: str
    after: Known | None


class Writer:
    """One that changes qubes of its own, one change after the other, until the daemon is gone.

    doubted: the change that was asked for when it went: made or not, but not in part.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._random = random.Random(seed)
        self._made = 0
        self.qubes: dict[str, Known] = {}
        self.doubted: Step | None = None
        self.acknowledged = 0

    def run(self, ask: Ask) -> None:
        """Change until no answer comes.

        Raises:
            AssertionError: the daemon refused what it has no reason to refuse.
        """
        while True:
            step = self._next()
            answer = ask(step.method, step.destination, step.argument, step.payload)
            if not answer:
                self.doubted = step
                return
            assert answer == b"0\0", f"{step}: {answer!r}"
            self._keep(step)
            self.acknowledged += 1

    def check(self, ask: Ask) -> None:
        """Compare what a daemon serves with what is known, and take over how doubts came out.

        Raises:
            AssertionError: something acknowledged is not there, or something is there in part.
        """
        doubted, self.doubted = self.doubted, None
        listed = _lines(ask, "admin.vm.List", "dom0")
        served = {line.split()[0] for line in listed if line.startswith(f"{self._name}-")}
        names = set(self.qubes) | ({doubted.qube} if doubted is not None else set())
        assert served <= names, f"not asked for: {served - names}"
        for name in sorted(names):
            found = _served(ask, name) if name in served else None
            if found == self.qubes.get(name):
                continue
            assert doubted is not None, f"{name} is {found}, not {self.qubes.get(name)}"
            assert doubted.qube == name, f"{name} is {found}, not {self.qubes.get(name)}"
            assert found == doubted.after, f"{doubted} was made in part: {found}"
            self._keep(doubted)

    def _keep(self, step: Step) -> None:
        if step.after is None:
            del self.qubes[step.qube]
        else:
            self.qubes[step.qube] = step.after

    def _next(self) -> Step:
        choice = self._random.random()
        if not self.qubes or (choice < 0.1 and len(self.qubes) < MOST_QUBES):
            return self._creation()
        name = self._random.choice(sorted(self.qubes))
        if choice < 0.15:
            return Step("admin.vm.Remove", name, "", b"", name, None)
        after = copy.deepcopy(self.qubes[name])
        change = self._random.choice((self._label, self._property, self._feature, self._tag))
        method, argument, text = change(after)
        return Step(method, name, argument, text.encode(), name, after)

    def _creation(self) -> Step:
        self._made += 1
        name, label = f"{self._name}-{self._made}", self._random.choice(LABELS)
        payload = f"name={name} label={label}".encode()
        after = Known(label, tags={"created-by-dom0", "guivm-dom0", "audiovm-dom0"})
        return Step("admin.vm.Create.TemplateVM", "dom0", "", payload, name, after)

    def _label(self, after: Known) -> tuple[str, str, str]:
        after.label = self._random.choice(LABELS)
        return "admin.vm.property.Set", "label", after.label

    def _property(self, after: Known) -> tuple[str, str, str]:
        name = self._random.choice(("memory", "vcpus", "default_user", "autostart"))
        if name in after.properties and self._random.random() < 0.3:
            del after.properties[name]
            return "admin.vm.property.Reset", name, ""
        number = str(self._random.randrange(1, 4000))
        values = {"default_user": f"user{number}", "autostart": self._random.choice(_BOOLEANS)}
        after.properties[name] = values.get(name, number)
        return "admin.vm.property.Set", name, after.properties[name]

    def _feature(self, after: Known) -> tuple[str, str, str]:
        name = f"x-{self._random.randrange(4)}"
        if name in after.features and self._random.random() < 0.3:
            del after.features[name]
            return "admin.vm.feature.Remove", name, ""
        after.features[name] = self._random.choice(TEXTS)
        return "admin.vm.feature.Set", name, after.features[name]

    def _tag(self, after: Known) -> tuple[str, str, str]:
        name = f"tag{self._random.randrange(4)}"
        if name in after.tags:
            after.tags.remove(name)
            return "admin.vm.tag.Remove", name, ""
        after.tags.add(name)
        return "admin.vm.tag.Set", name, ""


_BOOLEANS = ("True", "False")


def _served(ask: Ask, name: str) -> Known:
    """A qube as a daemon serves it."""
    answers = parse_property_lines(_content(ask, "admin.vm.property.GetAll", name))
    set_ones = {key: one.value for key, one in answers.items() if not one.is_default}
    features = {
        feature: _content(ask, "admin.vm.feature.Get", name, feature)
        for feature in _lines(ask, "admin.vm.feature.List", name)
    }
    assert _lines(ask, "admin.vm.volume.List", name), f"{name} has no volumes"
    changed = {"memory", "vcpus", "default_user", "autostart"}
    return Known(
        set_ones["label"],
        {key: value for key, value in set_ones.items() if key in changed},
        features,
        set(_lines(ask, "admin.vm.tag.List", name)),
    )


def _content(ask: Ask, method: str, destination: str, argument: str = "") -> str:
    answer = ask(method, destination, argument, b"")
    assert answer is not None
    assert answer.startswith(b"0\0"), f"{method} {destination} {argument}: {answer!r}"
    return answer[2:].decode()


def _lines(ask: Ask, method: str, destination: str) -> list[str]:
    return _content(ask, method, destination).splitlines()
