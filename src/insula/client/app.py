"""Qubes and their properties as objects, over the Admin API.

    app = App()
    work = app.domains["work"]
    work.netvm = None
    work.features["service.cups"] = "1"

With cache=True one call fetches all properties of a qube, and its state is that of the first list:
for programs that look at much and change nothing.
"""

from collections.abc import Iterator, MutableMapping, MutableSet
from contextlib import suppress
from typing import Any

from insula.client import admin, errors
from insula.protocol.admin import (
    ADMIN_QUBE,
    ListedQube,
    PropertyAnswer,
    parse_listed_qubes,
    parse_pairs,
    parse_property_answer,
    parse_property_lines,
)
from insula.protocol.errors import ProtocolError

_OWN = frozenset(("app", "name", "features", "tags", "domains", "cached"))


class Holder:
    """Something with properties: a qube, or the system. They are attributes, too."""

    def __init__(self, app: "App", name: str, prefix: str) -> None:
        self.app = app
        self.name = name
        self._prefix = prefix
        self._cache: dict[str, PropertyAnswer] | None = None

    def property_names(self) -> list[str]:
        """The names of all properties, sorted."""
        return sorted(_lines(self._call("List")))

    def get(self, name: str) -> PropertyAnswer:
        """A property as the daemon answers it.

        Raises:
            QubesNoSuchPropertyError: there is no such property.
            QubesPropertyAccessError: it could not be read.
        """
        if self.app.cached:
            found = self.get_all().get(name)
            if found is None:
                raise errors.QubesNoSuchPropertyError(f"{self.name} has no property {name!r}")
            return found
        try:
            return parse_property_answer(self._call("Get", name))
        except errors.QubesDaemonAccessError:
            text = f"the property {name!r} of {self.name} could not be read"
            raise errors.QubesPropertyAccessError(text) from None
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None

    def get_all(self) -> dict[str, PropertyAnswer]:
        """All properties, as they are now, or as they were at the first call with a cache."""
        if self._cache is not None:
            return self._cache
        try:
            found = parse_property_lines(self._call("GetAll"))
        except errors.QubesDaemonAccessError:
            # GetAll may be forbidden where single properties are not.
            found = {name: parse_property_answer(self._call("Get", name))
                     for name in self.property_names()}  # fmt: skip
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None
        if self.app.cached:
            self._cache = found
        return found

    def value(self, name: str) -> Any:
        """A property as the value of its type: qubes as Qube, labels by name, none as None.

        Raises:
            AttributeError: there is no such property, or it has no value (numbers, booleans).
        """
        answer = self.get(name)
        match answer:
            case PropertyAnswer(type="bool" | "int", value=""):
                raise AttributeError(f"{self.name}: {name} has no value")
            case PropertyAnswer(type="bool"):
                return answer.value == "True"
            case PropertyAnswer(type="int"):
                return int(answer.value)
            case PropertyAnswer(type="vm"):
                return self.app.domains.known(answer.value) if answer.value else None
            case PropertyAnswer(type="label", value=""):
                return None
        return answer.value

    def set(self, name: str, value: object) -> None:
        """Set a property; None is none, and a qube or a label goes by its name."""
        text = "" if value is None else str(value)
        self._call("Set", name, text.encode())

    def reset(self, name: str) -> None:
        """Set a property back to its default."""
        self._call("Reset", name)

    def help(self, name: str) -> str:
        """What a property means."""
        return self._call("Help", name)

    def _call(self, kind: str, argument: str = "", payload: bytes = b"") -> str:
        method = f"{self._prefix}.property.{kind}"
        return admin.call(self.name, method, argument, payload).decode()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.value(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _OWN or name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self.set(name, value)

    def __delattr__(self, name: str) -> None:
        self.reset(name)


class Qube(Holder):
    """One qube, dom0 included."""

    def __init__(self, app: "App", name: str, listed: ListedQube | None = None) -> None:
        super().__init__(app, name, "admin.vm")
        self._listed = listed
        self.features = Features(self)
        self.tags = Tags(self)

    @property
    def klass(self) -> str:
        """Its class, which never changes."""
        return self._listing().klass

    @property
    def state(self) -> str:
        """Its power state; NA when there is no answer."""
        if self.app.cached:
            return self._listing().state
        try:
            return self.current_state().get("power_state", "NA")
        except errors.QubesDaemonAccessError:
            return "NA"

    def current_state(self) -> dict[str, str]:
        """What admin.vm.CurrentState answers: mem, cputime and so on."""
        return parse_pairs(self.call("admin.vm.CurrentState").decode(), " ")

    def is_running(self) -> bool:
        """Whether it is up in any way."""
        return self.state not in ("Halted", "NA")

    def call(self, method: str, argument: str = "", payload: bytes = b"") -> bytes:
        """A call of the Admin API with this qube as its destination."""
        return admin.call(self.name, method, argument, payload)

    def volumes(self) -> list[str]:
        """The names of its volumes."""
        return _lines(self.call("admin.vm.volume.List").decode())

    def volume(self, name: str) -> dict[str, str]:
        """What admin.vm.volume.Info answers."""
        return parse_pairs(self.call("admin.vm.volume.Info", name).decode())

    def _listing(self) -> ListedQube:
        if self._listed is None:
            self._listed = self.app.domains.listing(self.name)[0]
        return self._listed

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Qube({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Qube) else self.name == other

    def __hash__(self) -> int:
        return hash(self.name)


class Features(MutableMapping[str, str]):
    """A qube's own features."""

    def __init__(self, qube: Qube) -> None:
        self._qube = qube

    def __getitem__(self, name: str) -> str:
        return self._qube.call("admin.vm.feature.Get", name).decode()

    def __setitem__(self, name: str, value: str) -> None:
        self._qube.call("admin.vm.feature.Set", name, value.encode())

    def __delitem__(self, name: str) -> None:
        self._qube.call("admin.vm.feature.Remove", name)

    def __iter__(self) -> Iterator[str]:
        return iter(_lines(self._qube.call("admin.vm.feature.List").decode()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def check(self, name: str, scope: str = "WithTemplate") -> str | None:
        """A feature where others may set it, too: WithTemplate, WithNetvm, WithAdminVM, ..."""
        try:
            return self._qube.call(f"admin.vm.feature.Check{scope}", name).decode()
        except errors.QubesFeatureNotFoundError:
            return None


class Tags(MutableSet[str]):
    """A qube's tags."""

    def __init__(self, qube: Qube) -> None:
        self._qube = qube

    def __contains__(self, tag: object) -> bool:
        return self._qube.call("admin.vm.tag.Get", str(tag)) == b"1"

    def __iter__(self) -> Iterator[str]:
        return iter(_lines(self._qube.call("admin.vm.tag.List").decode()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def add(self, value: str) -> None:
        """Give the tag; harmless when it is there."""
        self._qube.call("admin.vm.tag.Set", value)

    def discard(self, value: str) -> None:
        """Take the tag away; harmless when it is not there."""
        with suppress(errors.QubesTagNotFoundError):
            self._qube.call("admin.vm.tag.Remove", value)


class Domains:
    """All qubes by name, in the daemon's order: dom0, then by name."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._cache: dict[str, Qube] | None = None

    def listing(self, destination: str = ADMIN_QUBE) -> list[ListedQube]:
        """admin.vm.List: of dom0 all qubes, of another qube that one."""
        content = admin.call(destination, "admin.vm.List").decode()
        try:
            return parse_listed_qubes(content)
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None

    def _all(self) -> dict[str, Qube]:
        if self._cache is not None:
            return self._cache
        found = {listed.name: Qube(self._app, listed.name, listed) for listed in self.listing()}
        if self._app.cached:
            self._cache = found
        return found

    def known(self, name: str) -> Qube:
        """A qube that is known to exist, without asking."""
        cached = self._cache or {}
        return cached.get(name) or Qube(self._app, name)

    def __getitem__(self, name: str) -> Qube:
        try:
            return self._all()[name]
        except KeyError:
            raise errors.QubesVMNotFoundError(f"no such qube: {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[Qube]:
        return iter(self._all().values())

    def __len__(self) -> int:
        return len(self._all())


class App(Holder):
    """The system: its properties, and its qubes as `domains`."""

    def __init__(self, *, cache: bool = False) -> None:
        self.cached = cache
        super().__init__(self, ADMIN_QUBE, "admin")
        self.domains = Domains(self)

    def labels(self) -> list[str]:
        """The names of all labels."""
        return _lines(admin.ask_dom0("admin.label.List").decode())

    def classes(self) -> list[str]:
        """The classes that a qube can have, sorted."""
        return sorted(_lines(admin.ask_dom0("admin.vmclass.List").decode()))


def _lines(text: str) -> list[str]:
    """The items of a list, one a line."""
    return [line for line in text.split("\n") if line]
