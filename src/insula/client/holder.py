"""Properties of a qube or of the system, as attributes of its object (admin-api.md section 4.3)."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from insula.client import admin, errors
from insula.protocol.admin import (
    PropertyAnswer,
    parse_default_answer,
    parse_property_answer,
    parse_property_lines,
)
from insula.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from insula.client.app import App


class Holder:
    """Something with properties: a qube, or the system. They are attributes, too.

    What the class itself defines is found first; anything else is a property of the daemon's.
    """

    def __init__(self, app: "App", name: str, prefix: str) -> None:
        _attribute = object.__setattr__
        _attribute(self, "app", app)
        _attribute(self, "name", name)
        self._prefix = prefix
        self._cache: dict[str, PropertyAnswer] = {}
        self._cached_all = False
        self._refused_all = False

    if TYPE_CHECKING:
        app: App
        name: str

    def property_names(self) -> list[str]:
        """The names of all properties, sorted."""
        return sorted(lines(self._call("List")))

    def get(self, name: str) -> PropertyAnswer:
        """A property as the daemon answers it.

        Raises:
            QubesNoSuchPropertyError: there is no such property.
            QubesPropertyAccessError: it could not be read, or the qube is gone.
        """
        if self.app.cached:
            if name not in self._cache and not self._cached_all and not self._refused_all:
                # GetAll may be forbidden where single properties are not.
                with suppress(errors.QubesDaemonAccessError):
                    self._fill()
            if name in self._cache:
                return self._cache[name]
            if self._cached_all:
                raise errors.QubesNoSuchPropertyError(f"{self.name} has no property {name!r}")
        found = self._get(name)
        if self.app.cached:
            self._cache[name] = found
        return found

    def _get(self, name: str) -> PropertyAnswer:
        try:
            return parse_property_answer(self._call("Get", name))
        except (errors.QubesDaemonAccessError, errors.QubesVMNotFoundError) as error:
            text = f"the property {name!r} of {self.name} could not be read: {error}"
            raise errors.QubesPropertyAccessError(text) from None
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None

    def get_all(self) -> dict[str, PropertyAnswer]:
        """All properties, as they are now, or as they were at the first call with a cache.

        Those that may not be read are left out.

        Raises:
            QubesVMNotFoundError: the qube is gone.
        """
        if self._cached_all:
            return self._cache
        try:
            return self._fill()
        except errors.QubesDaemonAccessError:
            pass
        found = {}
        for name in self.property_names():
            with suppress(errors.QubesPropertyAccessError):
                found[name] = self._get(name)
        if self.app.cached:
            self._cache = found
        return found

    def _fill(self) -> dict[str, PropertyAnswer]:
        """All properties by one call."""
        try:
            found = parse_property_lines(self._call("GetAll"))
        except errors.QubesDaemonAccessError:
            self._refused_all = True
            raise
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None
        if self.app.cached:
            self._cache, self._cached_all = found, True
        return found

    def default(self, name: str) -> Any:
        """The value that a property would have on its default.

        Raises:
            AttributeError: there is no such property, or it has no default.
        """
        try:
            answer = parse_default_answer(self._call("GetDefault", name))
        except errors.QubesDaemonAccessError:
            text = f"the default of {name!r} of {self.name} could not be read"
            raise errors.QubesPropertyAccessError(text) from None
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None
        if answer is None:
            raise AttributeError(f"{self.name}: {name} has no default")
        return self._typed(name, answer)

    def is_default(self, name: str) -> bool:
        """Whether a property has no value of its own.

        Raises:
            AttributeError: there is no such property.
        """
        return self.get(name).is_default

    def value(self, name: str) -> Any:
        """A property as the value of its type: qubes as Qube, labels by name, none as None.

        Raises:
            AttributeError: there is no such property, or it has no value (numbers, booleans).
        """
        return self._typed(name, self.get(name))

    def _typed(self, name: str, answer: PropertyAnswer) -> Any:
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
        """Set a property; None is none, and a qube or a label goes by its name.

        Raises:
            QubesNoSuchPropertyError: there is no such property.
            QubesValueError: the value is not acceptable.
            QubesException: something else is in the way, for instance that the qube runs.
        """
        text = "" if value is None else str(value)
        self._call("Set", name, text.encode())
        self.app.forget_properties()

    def reset(self, name: str) -> None:
        """Set a property back to its default.

        Raises:
            QubesNoSuchPropertyError: there is no such property.
            QubesException: it has to have a value, or its default is not possible now.
        """
        self._call("Reset", name)
        self.app.forget_properties()

    def help(self, name: str) -> str:
        """What a property means.

        Raises:
            QubesNoSuchPropertyError: there is no such property.
        """
        return self._call("Help", name)

    def forget(self, name: str | None = None) -> None:
        """Drop what the cache has of one property, or of all."""
        if name is None:
            self._cache, self._cached_all = {}, False
        elif name in self._cache:
            self._cache = {one: held for one, held in self._cache.items() if one != name}
            self._cached_all = False

    def _call(self, kind: str, argument: str = "", payload: bytes = b"") -> str:
        method = f"{self._prefix}.property.{kind}"
        return admin.call(self.name, method, argument, payload).decode()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.value(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        elif name in self.__dict__:
            raise AttributeError(f"{name} cannot be set")
        else:
            self.set(name, value)

    def __delattr__(self, name: str) -> None:
        self.reset(name)

    def __dir__(self) -> list[str]:
        found = set(super().__dir__())
        with suppress(errors.QubesException):
            found.update(self.property_names())
        return sorted(found)


def lines(text: str) -> list[str]:
    """The items of a list, one a line."""
    return [line for line in text.split("\n") if line]
