"""What the host's menu is made of: qubes, how they look, and which applications they show."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from insula.client.app import App, Qube
from insula.client.errors import QubesDaemonCommunicationError, QubesException
from insula.menus.pictures import Colour
from insula.menus.store import Store
from insula.protocol.menus import SUFFIX, Application

_WITHOUT = frozenset(("AdminVM", "RemoteVM"))
_UNKNOWN = Colour(128, 128, 128)


@dataclass(frozen=True, slots=True)
class Item:
    """An application of a qube. source: the qube of which its picture is kept."""

    application: Application
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuQube:
    """A qube in the menu. disposables: of which template it is started in a new disposable.

    swapped: whether it is usually started so. available: its applications, shown or not.
    """

    name: str
    klass: str
    kind: str
    label: str
    colour: Colour
    available: tuple[Item, ...]
    shown: tuple[Item, ...]
    disposables: str | None = None
    swapped: bool = False
    state: str = "NA"

    def in_disposable(self, application: str, others: "dict[str, MenuQube]") -> str | None:
        """The template of the disposable in which one of its applications can be started."""
        if self.disposables is None or self.disposables == self.name:
            return self.disposables
        template = others.get(self.disposables)
        known = template.available if template is not None else ()
        return self.disposables if any(one.application.id == application for one in known) else None


def menu_qubes(app: App, store: Store) -> dict[str, MenuQube]:
    """Every qube that has a menu, by its name.

    Raises:
        QubesException: the daemon does not answer.
    """
    colours: dict[str, Colour] = {}
    found = {}
    for qube in app.domains:
        if qube.klass in _WITHOUT:
            continue
        try:
            made = _menu_qube(app, qube, store, colours)
        except QubesDaemonCommunicationError:
            raise
        except QubesException:
            continue  # It is gone meanwhile.
        if made is not None:
            found[made.name] = made
    return found


def _menu_qube(app: App, qube: Qube, store: Store, colours: dict[str, Colour]) -> MenuQube | None:
    features = qube.features
    disposable = qube.klass == "DispVM"
    if features.get("internal") or (disposable and _flag(qube, "auto_cleanup")):
        return None
    label = str(qube.label)
    if label not in colours:
        colours[label] = colour_of(app, label)
    available = _available(app, qube, store)
    wanted = _wanted(app, qube)
    shown = (item for item in available if wanted is None or item.application.id in wanted)
    mould = _flag(qube, "template_for_dispvms")
    return MenuQube(
        name=qube.name,
        klass=qube.klass,
        kind=_kind(qube),
        label=label,
        colour=colours[label],
        available=available,
        shown=tuple(shown),
        disposables=qube.name if mould else _name(getattr(qube, "default_dispvm", None)),
        swapped=mould and bool(features.get("appmenus-dispvm")),
        state=qube.state,
    )


def _available(app: App, qube: Qube, store: Store) -> tuple[Item, ...]:
    """What was told of it, and of those whose root it has."""
    found: dict[str, Item] = {}
    for source in (qube.name, *_roots(app, qube)):
        for application in store.of(source).applications.values():
            found.setdefault(application.id, Item(application, source))
    return tuple(sorted(found.values(), key=lambda item: item.application.name.lower()))


def _roots(app: App, qube: Qube) -> list[str]:
    """Its template, and for a disposable that one's template, too."""
    found: list[str] = []
    name = _name(getattr(qube, "template", None))
    while name is not None and name not in found:
        found.append(name)
        above = app.domains.get(name)
        name = _name(getattr(above, "template", None)) if above is not None else None
    return found


def _wanted(app: App, qube: Qube) -> frozenset[str] | None:
    """The ids that a qube's menu is to have; None for all."""
    items = qube.features.get("menu-items")
    templates = _roots(app, qube)
    if items is None and templates and (template := app.domains.get(templates[0])) is not None:
        if _flag(qube, "provides_network"):
            items = template.features.get("netvm-menu-items")
        if items is None:
            items = template.features.get("default-menu-items")
    return None if items is None else ids(items.split())


def ids(files: Iterable[str]) -> frozenset[str]:
    """The ids of desktop files, as the features that choose among them name them."""
    return frozenset(file.removesuffix(SUFFIX) for file in files)


def _kind(qube: Qube) -> str:
    if qube.klass == "TemplateVM":
        return "template"
    if qube.klass == "DispVM" or _flag(qube, "template_for_dispvms"):
        return "disposable"
    return "network" if _flag(qube, "provides_network") else "qube"


def _flag(qube: Qube, name: str) -> bool:
    return bool(getattr(qube, name, False))


def _name(qube: object) -> str | None:
    return None if qube is None else str(qube)


def colour_of(app: App, label: str) -> Colour:
    """The colour of a label; grey for one that is not there."""
    with suppress(ValueError, QubesException):
        return Colour.parse(app.labels[label].color)
    return _UNKNOWN
