"""The window that asks whether a qube with suspicious windows is to end (gui.md section 6.1)."""

from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QMessageBox

_TITLE = "Insula: a suspicious qube"
ARMED_AFTER = 1000  # milliseconds, so that what was typed for another window answers nothing


class SuspicionWindow(QMessageBox):
    """Says once whether the qube is to end."""

    def __init__(self, qube: str, answered: Callable[[bool], None]) -> None:
        super().__init__()
        self._answered: Callable[[bool], None] | None = answered
        self.setWindowTitle(_TITLE)
        self.setIcon(QMessageBox.Icon.Warning)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(f"{qube} sent a message about its windows that no honest program sends.")
        self.setInformativeText(
            "Something in it may have been taken over. Ending it loses what is not saved there."
        )
        self._end = self.addButton("End the qube", QMessageBox.ButtonRole.DestructiveRole)
        self._ignore = self.addButton("Ignore the message", QMessageBox.ButtonRole.RejectRole)
        self.setDefaultButton(self._end)
        self.setWindowFlag(Qt.WindowType.WindowStaysOnTopHint)
        for button in (self._end, self._ignore):
            button.setEnabled(False)
        QTimer.singleShot(ARMED_AFTER, self, self._arm)
        self.finished.connect(lambda _: self._say(self.clickedButton() is self._end))

    def refuse(self) -> None:
        """Nobody answered in time: the qube goes on."""
        self._say(False)
        self.close()

    def _arm(self) -> None:
        for button in (self._end, self._ignore):
            button.setEnabled(True)
        self._end.setFocus()

    def _say(self, ends: bool) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(ends)
