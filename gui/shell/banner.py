"""A line above the page that says something about the whole, and the flash that marks a field."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, QTimer, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QWidget

from gui import theme
from gui.forms.controls import TonedLabel
from gui.icons import icon

_FLASH_MS = 1200


class Banner(QFrame):
    """One sentence with an icon, and possibly one thing to do about it.

    Signals:
        acted: The button was pressed.
        dismissed: The user has read it.
    """

    acted = Signal()
    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(self.palette().ColorRole.AlternateBase)
        row = QHBoxLayout(self)
        row.setContentsMargins(theme.GAP_5, 6, theme.GAP_3, 6)
        row.setSpacing(theme.GAP_2)
        self._icon = QLabel()
        self._text = TonedLabel(tone="text")
        self._text.setWordWrap(True)
        self.button = QPushButton()
        self.button.hide()
        self.close_button = QPushButton(self.tr("Dismiss"))
        self.button.clicked.connect(self._act)
        self.close_button.clicked.connect(self._dismiss)
        row.addWidget(self._icon)
        row.addWidget(self._text, 1)
        row.addWidget(self.button)
        row.addWidget(self.close_button)
        self.hide()

    def show_words(
        self, text: str, name: str = "info", *, button: str = "", can_close: bool = False
    ) -> None:
        """Show ``text`` with the icon called ``name``."""
        self._icon.setPixmap(icon(name, "accent").pixmap(16, 16))
        self._text.setText(text)
        self.button.setText(button)
        self.button.setVisible(bool(button))
        self.close_button.setVisible(can_close)
        self.show()

    def _act(self) -> None:
        self.hide()
        self.acted.emit()

    def _dismiss(self) -> None:
        self.hide()
        self.dismissed.emit()

    @property
    def words(self) -> str:
        """What it says."""
        return self._text.text()


class Flash(QWidget):
    """A ring around ``target`` that goes away by itself."""

    def __init__(self, target: QWidget) -> None:
        super().__init__(target)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setGeometry(target.rect())
        self.show()
        self.raise_()
        QTimer.singleShot(_FLASH_MS, self, self.deleteLater)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(theme.colour("accent"), 2))
        painter.setBrush(theme.colour("accent", 0.12))
        rect = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.drawRoundedRect(rect, theme.RADIUS, theme.RADIUS)
