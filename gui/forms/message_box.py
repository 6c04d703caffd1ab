"""A question or a warning over the window, in the looks of the rest."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QSize
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QMessageBox, QPushButton, QWidget

from gui import theme
from gui.icons import icon
from gui.words import tr

_PICTURES = {"question": ("help", "accent"), "warning": ("warning", "warn")}
_PICTURE = QSize(28, 28)


class MessageBox(QMessageBox):
    """Says or asks something; `offer` adds the buttons, and `exec` waits for one of them.

    Args:
        parent: What it stands over.
        title: Its title.
        text: What it says first; `setInformativeText` says more.
        kind: Which picture stands beside it.
    """

    def __init__(
        self,
        parent: QWidget,
        title: str,
        text: str,
        kind: Literal["question", "warning"] = "question",
    ) -> None:
        super().__init__(parent)
        theme.follow(self)
        self.setWindowTitle(title)
        self.setText(text)
        self.setIconPixmap(icon(*_PICTURES[kind]).pixmap(_PICTURE, parent.devicePixelRatioF()))

    def offer(
        self, text: str, role: QMessageBox.ButtonRole, look: Literal["", "primary", "danger"] = ""
    ) -> QPushButton:
        """Add a button and return it."""
        button = self.addButton(text, role)
        if look:
            # The box has polished it already.
            button.setProperty(look, "true")
            button.style().unpolish(button)
            button.style().polish(button)
        return button

    def showEvent(self, event: QShowEvent) -> None:
        """Leave room around; Qt lays the box out anew with whatever is set."""
        layout = self.layout()
        assert layout is not None
        layout.setContentsMargins(theme.GAP_4, theme.GAP_4, theme.GAP_4, theme.GAP_4)
        super().showEvent(event)


def warn(parent: QWidget, title: str, text: str, detail: str = "") -> None:
    """Say that something went wrong, and wait until it is read."""
    box = MessageBox(parent, title, text, "warning")
    box.setInformativeText(detail)
    box.offer(tr("Close"), QMessageBox.ButtonRole.AcceptRole, "primary")
    box.exec()
