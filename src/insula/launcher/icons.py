"""Pictures of qubes and applications for Qt."""

from functools import cache

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtGui import QIcon, QImage, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from insula.launcher.finding import Entry
from insula.menus.pictures import Colour, Picture, application_svg, qube_svg, tinted
from insula.menus.store import Store

_SIDE = 64  # pixels


@cache
def qube_icon(colour: Colour, kind: str) -> QIcon:
    """A qube's."""
    return _drawn(qube_svg(colour, kind))


def application_icon(entry: Entry, store: Store) -> QIcon:
    """An application's, in the colour of its qube."""
    kept = store.picture(entry.item.source, entry.application.id)
    if kept is not None:
        return _kept(kept, entry.qube.colour)
    letter = next((one for one in entry.application.name if one.isalnum()), "?").upper()
    return _letter(entry.qube.colour, letter)


@cache
def _letter(colour: Colour, letter: str) -> QIcon:
    return _drawn(application_svg(colour, letter))


@cache
def _kept(picture: Picture, colour: Colour) -> QIcon:
    shown = tinted(picture, colour)
    kind = QImage.Format.Format_RGBA8888
    image = QImage(shown.pixels, shown.width, shown.height, shown.width * 4, kind)
    return _icon(QPixmap.fromImage(image.copy()))


def _drawn(svg: bytes) -> QIcon:
    pixmap = QPixmap(_SIDE, _SIDE)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    QSvgRenderer(QByteArray(svg)).render(painter)
    painter.end()
    return _icon(pixmap)


def _icon(pixmap: QPixmap) -> QIcon:
    """The same colours where it is selected: they say which qube it is."""
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
