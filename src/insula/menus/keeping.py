"""Keeping menus true: what a qube is asked for, what is taken of its answer, what is written.

python3 -m insula.menus.keeping [QUBE...]: bring all to what it should be, as the session does
after events; qubes that are named have come up, and are asked if they never told.
"""

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from insula.client.app import App, Qube
from insula.client.errors import QubesException
from insula.menus.host import Place, write_menu
from insula.menus.pictures import Picture, shrunk
from insula.menus.store import BusyError, Kept, Store
from insula.menus.system import MenuQube, menu_qubes
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.menus import take_applications
from insula.protocol.pixels import read_picture

_LIST, _PICTURE = "qubes.GetAppmenus", "qubes.GetImageRGBA"
_WHOLE = ".menu"  # no name of a qube
_MAX_SIDE = 2048  # pixels
_MOST_PICTURES = 300  # at a time; each is a call
_TELLING = frozenset(("TemplateVM", "StandaloneVM"))


def refresh(app: App | None = None, store: Store | None = None) -> int:
    """Bring the host's menu to what the qubes are, if this instance has one; how much changed.

    Raises:
        QubesException: the daemon does not answer.
        OSError: a file cannot be written.
    """
    kept = store or Store()
    if Place.usual() is None:
        return 0
    return show(menu_qubes(app or App(cache=True), kept), kept)


def show(qubes: Mapping[str, MenuQube], store: Store) -> int:
    """Have the host's menu show these qubes and no others; how much changed.

    Raises:
        OSError: a file cannot be written.
    """
    place = Place.usual()
    if place is None:
        return 0
    with store.only_changer(_WHOLE):
        return write_menu(place, qubes, store)


def forget_gone(app: App, store: Store) -> None:
    """Keep nothing of qubes that there are no more."""
    names = set(app.domains.names())
    for qube in store.qubes():
        if qube not in names:
            store.forget(qube)


def ask(qube: Qube, store: Store) -> bool:
    """Take over what a qube tells of its applications now, with pictures; whether it is new.

    Raises:
        BusyError: that is being done already.
        ServiceFailedError, QubesException: it could not be asked.
        ProtocolError: it tells too much.
    """
    with store.only_changer(qube.name, wait=False):
        told = qube.run_service(_LIST, check=True).output
        changed = take(qube.name, told.splitlines(), store)
        return ask_for_pictures(qube, store) or changed


def take(qube: str, untrusted: Iterable[bytes], store: Store) -> bool:
    """Keep what a qube tells of its applications; whether it is new.

    Raises:
        ProtocolError: it tells too much.
    """
    return store.keep(qube, Kept(take_applications(untrusted), told=True))


def ask_for_pictures(qube: Qube, store: Store) -> bool:
    """Ask a running qube for the pictures that are not there yet; whether there are more now."""
    more = False
    missing = [
        one
        for one in store.of(qube.name).applications.values()
        if one.icon and store.picture(qube.name, one.id) is None
    ]
    for application in missing[:_MOST_PICTURES]:
        picture = _picture(qube, application.icon)
        if picture is not None:
            store.keep_picture(qube.name, application.id, picture)
            more = True
    return more


def _picture(qube: Qube, icon: str) -> Picture | None:
    wanted = icon if icon.startswith("/") else f"xdgicon:{icon}"
    with suppress(QubesException, ProtocolError):
        done = qube.run_service(_PICTURE, f"{wanted}\n", autostart=False)
        if done.code == 0:
            width, height, pixels = read_picture(io.BytesIO(done.output).read, 4)
            if max(width, height) <= _MAX_SIDE:
                return shrunk(Picture(width, height, pixels))
    return None


def main(words: Sequence[str] | None = None) -> int:
    """Do it once; returns the exit code."""
    app, store = App(cache=True), Store()
    code = 0
    for name in sys.argv[1:] if words is None else words:
        try:
            qube = app.domains[name]
            if qube.klass in _TELLING and not store.of(name).told:
                ask(qube, store)
        except BusyError:
            continue  # Somebody asks it already.
        except (ReportableError, ProtocolError) as error:
            print(f"the menu of {name}: {error}", file=sys.stderr)
            code = 1
    try:
        forget_gone(app, store)
        refresh(app, store)
    except (ReportableError, OSError) as error:
        print(f"the menu: {error}", file=sys.stderr)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
