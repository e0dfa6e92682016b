"""The host's menu: desktop entries, directories and pictures, as gui.md section 12.3 has them."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from insula.client import instance
from insula.client.app import App
from insula.menus.pictures import application_svg, png, qube_svg, tinted
from insula.menus.store import Store, write
from insula.menus.system import Item, MenuQube, colour_of
from insula.protocol.desktop_entries import ENTRY_GROUP, escaped, exec_line
from insula.protocol.menus import SUFFIX

_OURS = "insula-"
_ALL = f"{_OURS}all-qubes"
_CATEGORY = "X-Qubes-VM"
_ESCAPES = {"_": "_u", "-": "_d", ".": "_p"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a menu lies. data, config: directories of the person's; pictures: ours alone."""

    data: Path
    config: Path
    pictures: Path

    @classmethod
    def usual(cls) -> "Place | None":
        """The person's own menu; None for an instance that does not lie where one usually does.

        INSULA_MENU names another directory, for entries and configuration alike.
        """
        pictures = instance.home() / "menus" / ".shown"
        given = os.environ.get("INSULA_MENU")
        if given is not None:
            return cls(Path(given), Path(given), pictures) if given else None
        data = _usual_data()
        if instance.home() != data / "insula":
            return None
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return cls(data, config, pictures)

    @property
    def entries(self) -> Path:
        """Where desktop entries lie."""
        return self.data / "applications"

    @property
    def directories(self) -> Path:
        """Where sub-menus have their names and pictures."""
        return self.data / "desktop-directories"

    @property
    def merged(self) -> Path:
        """Where the tree of the menu is changed."""
        return self.config / "menus" / "applications-merged"


def _usual_data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def write_menu(place: Place, qubes: Mapping[str, MenuQube], store: Store) -> int:
    """Bring the menu to what the qubes are; how many files changed or went."""
    wanted = dict(_files(place, qubes, store))
    changed = 0
    for path, content in wanted.items():
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, content)
            changed += 1
    for folder, pattern in (
        (place.entries, f"{_OURS}*{SUFFIX}"),
        (place.directories, f"{_OURS}*.directory"),
        (place.pictures, "*"),
    ):
        for path in folder.glob(pattern):
            if path not in wanted:
                path.unlink()
                changed += 1
    return changed


def _files(
    place: Place, qubes: Mapping[str, MenuQube], store: Store
) -> Iterator[tuple[Path, bytes]]:
    others = dict(qubes)
    directories = {}
    for qube in sorted(qubes.values(), key=lambda one: one.name):
        names = []
        for item in qube.shown:
            picture, content = _picture(place, qube, item, store)
            yield picture, content
            name = f"{_OURS}{file_part(qube.name)}-{item.application.id}{SUFFIX}"
            names.append(name)
            yield place.entries / name, _entry(qube, item, picture, others)
        if names:
            directories[qube.name] = names
            icon = place.pictures / f"{qube.kind}-{str(qube.colour)[1:]}.svg"
            yield icon, qube_svg(qube.colour, qube.kind)
            yield _directory_of(place, qube.name), _directory(qube, icon)
    yield place.entries / f"{_ALL}{SUFFIX}", _own_entry()
    yield place.merged / "insula.menu", _tree(directories)


def label_icon(label: str, app: App) -> Path:
    """The picture of a qube with a label, for what shows something of it.

    Raises:
        OSError: it cannot be made.
    """
    colour = colour_of(app, label)
    path = instance.home() / "menus" / ".labels" / f"{str(colour)[1:]}.svg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, qube_svg(colour, "qube"))
    return path


def file_part(qube: str) -> str:
    """A qube's name as part of a file's: without dashes, so that nothing is meant by two names."""
    return "".join(_ESCAPES.get(letter, letter) for letter in qube)


def _directory_of(place: Place, qube: str) -> Path:
    return place.directories / f"{_OURS}{file_part(qube)}-vm.directory"


def _picture(place: Place, qube: MenuQube, item: Item, store: Store) -> tuple[Path, bytes]:
    kept = store.picture(item.source, item.application.id)
    if kept is None:
        letter = next((one for one in item.application.name if one.isalnum()), "?").upper()
        name, content = f"letter-{letter}", application_svg(qube.colour, letter)
        return place.pictures / f"{name}-{str(qube.colour)[1:]}.svg", content
    content = png(tinted(kept, qube.colour))
    digest = hashlib.sha256(content).hexdigest()[:16]
    return place.pictures / f"{digest}.png", content


def _entry(qube: MenuQube, item: Item, icon: Path, others: dict[str, MenuQube]) -> bytes:
    application = item.application
    here = command(qube.name, application.id)
    template = qube.in_disposable(application.id, others)
    there = command(None, application.id, template=template) if template else None
    if qube.swapped and there is not None:
        here, there = there, here
    fields = {
        "Version": "1.0",
        "Type": "Application",
        "Terminal": "false",
        "X-Qubes-VmName": qube.name,
        "X-Qubes-AppName": application.id,
        "Icon": escaped(str(icon)),
        "Name": f"{qube.name}: {application.name}",
        "GenericName": application.generic_name and f"{qube.name}: {application.generic_name}",
        "Comment": application.comment,
        "StartupWMClass": application.window_class and f"{qube.name}:{application.window_class}",
        "Categories": ";".join((*application.categories, _CATEGORY, "")),
        "Exec": exec_line(here),
    }
    actions = []
    if there is not None:
        fields |= {"X-Qubes-DispvmExec": exec_line(there), "Actions": "other;"}
        text = f"In {qube.name} itself" if qube.swapped else "In a new disposable"
        actions = ["", "[Desktop Action other]", f"Name={text}", f"Exec={exec_line(there)}"]
    return _text(ENTRY_GROUP, fields, actions)


def command(qube: str | None, application: str, *, template: str | None = None) -> list[str]:
    """The words that start an application in a qube, or in a new disposable of a template."""
    start = [str(program("qvm-run")), "-q", "-a", "--service"]
    target = ["--", qube] if qube is not None else [f"--dispvm={template}", "--"]
    return [*_environment(), *start, *target, f"qubes.StartApp+{application}"]


def program(name: str) -> Path | str:
    """One of our commands, which lie beside this Python."""
    found = Path(sys.executable).with_name(name)
    return found if found.exists() else name


def _environment() -> list[str]:
    """What lets a program find an instance that does not lie where one usually does."""
    if instance.home() == _usual_data() / "insula":
        return []
    return ["env", f"INSULA_HOME={instance.home()}", f"INSULA_RUN={instance.run()}"]


def _own_entry() -> bytes:
    words = [*_environment(), str(program("insula")), "menu"]
    fields = {
        "Version": "1.0",
        "Type": "Application",
        "Terminal": "false",
        "Name": "All qubes",
        "Comment": "Start applications of any qube",
        "Icon": "computer",
        "Categories": f"System;{_CATEGORY};",
        "Exec": exec_line(words),
    }
    return _text(ENTRY_GROUP, fields)


def _directory(qube: MenuQube, icon: Path) -> bytes:
    fields = {"Type": "Directory", "Name": qube.name, "Icon": escaped(str(icon))}
    return _text(ENTRY_GROUP, fields)


def _text(group: str, fields: Mapping[str, str], more: "list[str] | None" = None) -> bytes:
    lines = [f"{key}={value}" for key, value in fields.items() if value]
    return "\n".join([group, *lines, *(more or []), ""]).encode()


def _tree(directories: Mapping[str, list[str]]) -> bytes:
    """A sub-menu for each qube, in which its entries lie and nowhere else."""
    menus = "".join(
        f"<Menu><Name>{escape(f'{_OURS}{qube}')}</Name>"
        f"<Directory>{escape(f'{_OURS}{file_part(qube)}-vm.directory')}</Directory><Include>"
        + "".join(f"<Filename>{escape(name)}</Filename>" for name in names)
        + "</Include></Menu>\n"
        for qube, names in directories.items()
    )
    return (
        '<!DOCTYPE Menu PUBLIC "-//freedesktop//DTD Menu 1.0//EN"\n'
        ' "http://www.freedesktop.org/standards/menu-spec/menu-1.0.dtd">\n'
        f"<Menu><Name>Applications</Name>\n{menus}</Menu>\n"
    ).encode()
