"""The window: qubes on the left, applications on the right, a search above both."""

from collections.abc import Callable, Mapping, Sequence

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from insula.launcher.finding import Entry, entries, found, in_order, state_text
from insula.launcher.icons import application_icon, qube_icon
from insula.menus.store import Store
from insula.menus.system import MenuQube

TITLE = "Insula: applications of qubes"
_ICON = 28  # pixels
_SIZE = QSize(760, 520)
_LEFT, _RIGHT = 270, 490
_DATA = Qt.ItemDataRole.UserRole
_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)
_MOVES = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown)
_NOTHING = "No applications of this qube are known. Ask its template with: qvm-sync-appmenus"
_NOT_FOUND = "Nothing is found."

Start = Callable[[Entry, bool], None]  # whether in a new disposable


class MenuWindow(QWidget):
    """Shows what there is; start is called with what the person chooses."""

    def __init__(self, store: Store, start: Start) -> None:
        super().__init__(None, Qt.WindowType.Window)
        self._store, self._start = store, start
        self._qubes: Mapping[str, MenuQube] = {}
        self.setWindowTitle(TITLE)
        self.resize(_SIZE)
        self.search = QLineEdit(placeholderText="Search in all qubes", clearButtonEnabled=True)
        self.qubes = _list("Qube", "State")
        self.applications = _list("Application", "Qube")
        self._hint = QLabel(textFormat=Qt.TextFormat.PlainText, wordWrap=True)
        self.here = QPushButton("Start", autoDefault=False)
        self.there = QPushButton("Start in a new disposable", autoDefault=False)
        self._lay_out()
        self.search.textChanged.connect(lambda _text: self._fill())
        self.search.installEventFilter(self)
        self.qubes.installEventFilter(self)
        self.applications.installEventFilter(self)
        self.qubes.itemClicked.connect(lambda _item: self.search.clear())
        self.qubes.currentItemChanged.connect(lambda _now, _before: self._fill())
        self.applications.currentItemChanged.connect(lambda _now, _before: self._chosen())
        self.applications.itemActivated.connect(lambda _item: self._begin(disposable=False))
        self.here.clicked.connect(lambda: self._begin(disposable=False))
        self.there.clicked.connect(lambda: self._begin(disposable=True))
        self.search.setFocus()

    def show_qubes(self, qubes: Mapping[str, MenuQube], labels: Sequence[str]) -> None:
        """Show these qubes; what was selected stays so, if it is still there."""
        before = self._selected_qube()
        self._qubes = qubes
        self.qubes.blockSignals(True)
        self.qubes.clear()
        for qube in in_order(qubes.values(), labels):
            item = QTreeWidgetItem([qube.name, state_text(qube.state)])
            item.setIcon(0, qube_icon(qube.colour, qube.kind))
            item.setData(0, _DATA, qube.name)
            item.setToolTip(0, f"{qube.klass}, label {qube.label}")
            self.qubes.addTopLevelItem(item)
            if qube.name == before:
                self.qubes.setCurrentItem(item)
        _select_one(self.qubes)
        self.qubes.blockSignals(False)
        self._fill()

    def show_states(self, states: Mapping[str, str]) -> None:
        """Show the power states of qubes that are shown."""
        for row in range(self.qubes.topLevelItemCount()):
            item = self.qubes.topLevelItem(row)
            assert item is not None
            text = state_text(states.get(item.data(0, _DATA), "NA"))
            if item.text(1) != text:
                item.setText(1, text)

    def complain(self, text: str) -> None:
        """Say what went wrong."""
        self._hint.setText(text)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """While one types in the search, keys that move do so in what it finds."""
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if event.key() in _ENTER:
                control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
                self._begin(disposable=control)
                return True
            if watched is self.search and event.key() in _MOVES:
                QApplication.sendEvent(self.applications, event)
                return True
            if watched is not self.search and event.text().isprintable() and event.text().strip():
                self.search.setFocus()
                QApplication.sendEvent(self.search, event)
                return True
        return super().eventFilter(watched, event)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Escape ends the search, then the window."""
        if event.key() == Qt.Key.Key_Escape:
            if self.search.text():
                self.search.clear()
                self.search.setFocus()
            else:
                self.close()
        else:
            super().keyPressEvent(event)

    def _lay_out(self) -> None:
        splitter = QSplitter()
        splitter.addWidget(self.qubes)
        splitter.addWidget(self.applications)
        splitter.setSizes([_LEFT, _RIGHT])
        buttons = QHBoxLayout()
        buttons.addWidget(self._hint, stretch=1)
        buttons.addWidget(self.there)
        buttons.addWidget(self.here)
        layout = QVBoxLayout(self)
        layout.addWidget(self.search)
        layout.addWidget(splitter, stretch=1)
        layout.addLayout(buttons)

    def _selected_qube(self) -> str | None:
        item = self.qubes.currentItem()
        return None if item is None else str(item.data(0, _DATA))

    def _fill(self) -> None:
        """Show the applications of the selected qube, or what the search finds in all."""
        text = self.search.text().strip()
        if text:
            every = (one for qube in self._qubes.values() for one in entries(qube, self._qubes))
            shown = found(every, text)
        else:
            qube = self._qubes.get(self._selected_qube() or "")
            shown = entries(qube, self._qubes) if qube is not None else []
        before = self._selected()
        self.applications.clear()
        self.applications.setColumnHidden(1, not text)
        for entry in shown:
            item = QTreeWidgetItem([entry.application.name, entry.qube.name])
            item.setIcon(0, application_icon(entry, self._store))
            item.setIcon(1, qube_icon(entry.qube.colour, entry.qube.kind))
            item.setData(0, _DATA, entry)
            self.applications.addTopLevelItem(item)
            if not text and before is not None and _same(entry, before):
                self.applications.setCurrentItem(item)
        _select_one(self.applications)
        self._chosen(_NOT_FOUND if text else _NOTHING if self._qubes else "")

    def _selected(self) -> Entry | None:
        item = self.applications.currentItem()
        return None if item is None else item.data(0, _DATA)

    def _chosen(self, otherwise: str = "") -> None:
        entry = self._selected()
        self.here.setEnabled(entry is not None)
        self.there.setEnabled(entry is not None and entry.disposables is not None)
        application = entry.application if entry is not None else None
        text = (application.comment or application.generic_name) if application else otherwise
        self._hint.setText(text)

    def _begin(self, *, disposable: bool) -> None:
        entry = self._selected()
        if entry is not None and not (disposable and entry.disposables is None):
            self._start(entry, disposable)


def _list(*columns: str) -> QTreeWidget:
    made = QTreeWidget()
    made.setRootIsDecorated(False)
    made.setUniformRowHeights(True)
    made.setHeaderLabels(columns)
    made.setIconSize(QSize(_ICON, _ICON))
    header = made.header()
    header.setStretchLastSection(False)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
    return made


def _select_one(widget: QTreeWidget) -> None:
    """Have something selected, where there is something."""
    first = widget.topLevelItem(0)
    if widget.currentItem() is None and first is not None:
        widget.setCurrentItem(first)


def _same(one: Entry, other: Entry) -> bool:
    return (one.qube.name, one.application.id) == (other.qube.name, other.application.id)
