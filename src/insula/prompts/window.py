"""The window that puts one question."""

import html
import time
from collections.abc import Callable

from PySide6.QtCore import QEvent, QSize, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QColor, QIcon, QKeyEvent, QPixmap
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
)

from insula.prompts import words
from insula.prompts.deciding import Decision
from insula.protocol.policy_agent import Ask

_COLOURS = {
    "red": "#cc0000",
    "orange": "#f57900",
    "yellow": "#edd400",
    "green": "#73d216",
    "gray": "#555753",
    "blue": "#3465a4",
    "purple": "#75507b",
    "black": "#000000",
}
_UNKNOWN = "#ffffff"
_ICON, _MARK = 16, 28  # pixels
_LARGE = 13  # points
_TICK = 100  # milliseconds
_WIDTH = 460


class QuestionWindow(QDialog):
    """Puts a question; answered is called once, with the target, or None for no."""

    def __init__(
        self,
        ask: Ask,
        answered: Callable[[str | None], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(None, Qt.WindowType.WindowStaysOnTopHint | Qt.WindowType.Dialog)
        self._ask, self._answered, self._now = ask, answered, now
        self._done = False
        self.decision = Decision(ask.targets, ask.default_target)
        self.setWindowTitle("Insula: a qube asks")
        self.setMinimumWidth(_WIDTH)
        self._search = QLineEdit(placeholderText="Search", clearButtonEnabled=True)
        self._list = QListWidget()
        self._list.setIconSize(QSize(_ICON, _ICON))
        self._buttons = QDialogButtonBox()
        self.yes = self._buttons.addButton("Allow", QDialogButtonBox.ButtonRole.AcceptRole)
        self.no = self._buttons.addButton("Refuse", QDialogButtonBox.ButtonRole.RejectRole)
        for button in (self.yes, self.no):
            button.setAutoDefault(False)
            button.setDefault(False)
        self._hint = QLabel()
        self._lay_out()
        self._search.textChanged.connect(self._filter)
        self._list.itemSelectionChanged.connect(self._select)
        self.yes.clicked.connect(self._allow)
        self.no.clicked.connect(self.refuse)
        self._timer = QTimer(self, interval=_TICK)
        self._timer.timeout.connect(self.refresh)
        self._timer.start()
        self.refresh()

    def refuse(self) -> None:
        """Answer with no."""
        self._end(None)

    def refresh(self) -> None:
        """Let the button show whether an answer counts by now."""
        may = self.decision.may_answer(self._now())
        self.yes.setEnabled(may)
        left = self.decision.ready_in(self._now())
        if left is None:
            self._hint.setText("Click here first: keys go to another window now.")
        elif self.decision.chosen is None:
            self._hint.setText("Choose a qube, or refuse.")
        else:
            self._hint.setText("" if may else "One moment…")

    def choose(self, target: str) -> None:
        """Select a target in the list."""
        for row in range(self._list.count()):
            item = self._list.item(row)
            if item.data(Qt.ItemDataRole.UserRole) == target:
                self._list.setCurrentItem(item)

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Follow the focus."""
        if event.type() == QEvent.Type.ActivationChange:
            if self.isActiveWindow():
                self.decision.focus(self._now())
            else:
                self.decision.unfocus()
            self.refresh()
        super().changeEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Escape is no; Return is yes only where the button is, after its time."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._allow()
        elif event.key() == Qt.Key.Key_Escape:
            self.refuse()
        else:
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """Closing is no."""
        self._end(None)
        super().closeEvent(event)

    def _lay_out(self) -> None:
        service, argument = self._ask.service, words.shown_argument(self._ask.argument)
        head, dot, rest = service.partition(".")
        emphasised = f"{html.escape(head)}{dot}<b>{html.escape(rest)}</b>" if dot else service
        source = QLabel(f"<b>{html.escape(self._ask.source)}</b>")
        form = QFormLayout()
        form.addRow("From:", source)
        form.addRow("Service:", QLabel(emphasised))
        if argument:
            shown = QLabel(argument, textFormat=Qt.TextFormat.PlainText, wordWrap=True)
            form.addRow("Argument:", shown)
        sentence = QLabel(f"{words.question(self._ask)}.", textFormat=Qt.TextFormat.PlainText)
        sentence.setWordWrap(True)
        font = sentence.font()
        font.setPointSize(_LARGE)
        sentence.setFont(font)
        mark = QLabel()
        mark.setPixmap(_square(self._ask.icons.get(self._ask.source, ""), _MARK))
        head_line = QHBoxLayout()
        head_line.addWidget(mark)
        head_line.addWidget(sentence, stretch=1)
        for target in sorted(self._ask.targets):
            icon = QIcon(_square(self._ask.icons.get(target, ""), _ICON))
            item = QListWidgetItem(icon, words.shown_target(target))
            item.setData(Qt.ItemDataRole.UserRole, target)
            self._list.addItem(item)
            if target == self.decision.chosen:
                self._list.setCurrentItem(item)
        layout = QVBoxLayout(self)
        layout.addLayout(head_line)
        layout.addLayout(form)
        for part in (QLabel("Which qube?"), self._search, self._list):
            layout.addWidget(part)
        if self._ask.default_target and self.decision.chosen is None:
            layout.addWidget(QLabel("The policy names a target that is not among these."))
        layout.addWidget(self._hint)
        layout.addWidget(self._buttons)

    def _filter(self, text: str) -> None:
        for row in range(self._list.count()):
            item = self._list.item(row)
            item.setHidden(text.lower() not in item.text().lower())

    def _select(self) -> None:
        items = self._list.selectedItems()
        self.decision.choose(items[0].data(Qt.ItemDataRole.UserRole) if items else None)
        self.refresh()

    def _allow(self) -> None:
        if self.decision.may_answer(self._now()):
            self._end(self.decision.chosen)

    def _end(self, target: str | None) -> None:
        if self._done:
            return
        self._done = True
        self._timer.stop()
        self._answered(target)
        self.hide()
        self.deleteLater()


def colour_of(icon: str) -> str:
    """The colour of a label, by the icon's name, which ends in it."""
    return _COLOURS.get(icon.rpartition("-")[2], _UNKNOWN)


def _square(icon: str, size: int) -> QPixmap:
    pixmap = QPixmap(size, size)
    pixmap.fill(QColor(colour_of(icon)))
    return pixmap
