"""A Qt program for qubes of tests: a text field, a tray icon with a menu, a text on the clipboard.

Its arguments: the window's title, and the clipboard's text. It says what happens, a line each.
"""

import sys

from PySide6.QtGui import QColor, QIcon, QPixmap
from PySide6.QtWidgets import QApplication, QLineEdit, QMenu, QSystemTrayIcon


def main(title: str, text: str) -> int:
    application = QApplication([title])
    pixels = QPixmap(64, 64)
    pixels.fill(QColor("#808080"))
    icon = QSystemTrayIcon(QIcon(pixels))
    menu = QMenu()
    menu.addAction("an entry")
    icon.setContextMenu(menu)
    icon.activated.connect(lambda reason: print(reason.name, flush=True))
    icon.show()
    field = QLineEdit()
    field.setWindowTitle(title)
    field.resize(300, 100)
    field.textChanged.connect(lambda typed: print(typed, flush=True))
    application.clipboard().setText(text)
    field.show()
    return application.exec()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
