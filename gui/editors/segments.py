"""A row of joined buttons of which exactly one is down."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QFont, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QButtonGroup, QFrame, QHBoxLayout, QToolButton, QWidget

from gui.theme import CONTROL_HEIGHT, RADIUS, colour


class _Segment(QToolButton):
    """One of the buttons; which is down shows by ground, outline and weight of the text."""

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        if self.isChecked() or self.underMouse():
            edge = colour("control" if self.isChecked() else "border")
            painter.setPen(QPen(edge if self.isEnabled() else Qt.GlobalColor.transparent, 1))
            painter.setBrush(colour("raised"))
            painter.drawRoundedRect(rect, RADIUS, RADIUS)
        if self.hasFocus():
            painter.setPen(QPen(colour("accent"), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), RADIUS, RADIUS)
        font = self.font()
        font.setWeight(QFont.Weight.DemiBold if self.isChecked() else QFont.Weight.Normal)
        painter.setFont(font)
        token = "text" if self.isChecked() else "muted"
        painter.setPen(colour(token, 1.0 if self.isEnabled() else 0.55))
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self.text())
        painter.end()


class Segments(QFrame):
    """Chooses one of a few values.

    Signals:
        chosen: The value the user chose, a str.
    """

    chosen = Signal(str)

    def __init__(
        self, name: str, values: Sequence[tuple[str, str]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._values = [value for value, _ in values]
        self._group = QButtonGroup(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self.setAccessibleName(name)
        for number, (_, label) in enumerate(values):
            button = _Segment()
            button.setText(label)
            button.setCheckable(True)
            width = button.fontMetrics().horizontalAdvance(label) + 20
            button.setMinimumSize(max(width, 36), CONTROL_HEIGHT)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setAccessibleName(f"{name}: {label}")
            button.setToolTip(f"{name}: {label}")
            self._group.addButton(button, number)
            layout.addWidget(button)
        self._group.button(0).setChecked(True)
        self.setFocusProxy(self._group.button(0))
        self._group.idClicked.connect(self._clicked)

    @property
    def value(self) -> str:
        """The value that is down."""
        return self._values[self._group.checkedId()]

    def set_value(self, value: str) -> None:
        """Put ``value`` down without saying so."""
        chosen = self._group.button(self._values.index(value))
        chosen.setChecked(True)
        self.setFocusProxy(chosen)

    def button(self, value: str) -> QToolButton:
        """Return the button of ``value``."""
        button = self._group.button(self._values.index(value))
        assert isinstance(button, QToolButton)
        return button

    def _clicked(self, number: int) -> None:
        self.setFocusProxy(self._group.button(number))
        self.chosen.emit(self._values[number])
