"""The small parts forms are made of: switch, drop-down, tinted text, card, disclosure."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QPen, QWheelEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionComboBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.icons import icon, paint_icon

Tone = Literal["text", "muted", "accent", "ok", "warn", "error"]


class TonedLabel(QLabel):
    """Text in the colour of a token, whatever the theme. Never rich text."""

    def __init__(self, text: str = "", tone: Tone = "muted", parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self._tone: Tone = tone
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._tint()
        theme.notifier().changed.connect(self._tint)

    def set_tone(self, tone: Tone) -> None:
        """Take the colour of another token."""
        if tone != self._tone:
            self._tone = tone
            self._tint()

    def _tint(self) -> None:
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.WindowText, theme.colour(self._tone))
        self.setPalette(palette)


class Switch(QCheckBox):
    """An on-off switch; a check box in everything but looks."""

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        return QSize(44, 28)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return self.sizeHint()

    def hitButton(self, position: object) -> bool:
        """Take a click anywhere."""
        return True

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        track = QRectF(2, (self.height() - 20) / 2, 36, 20)
        is_on = self.isChecked()
        fill = theme.colour("accent" if is_on else "window")
        edge = theme.colour("accent" if is_on else "control")
        knob = theme.colour("on_accent" if is_on else "control")
        if not self.isEnabled():
            fill, edge, knob = (theme.colour("raised"), theme.colour("border"), edge)
        painter.setBrush(fill)
        painter.setPen(QPen(edge, 1))
        painter.drawRoundedRect(track.adjusted(0.5, 0.5, -0.5, -0.5), 9.5, 9.5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(knob)
        painter.drawEllipse(QPointF(track.right() - 10 if is_on else track.left() + 10, 14), 6, 6)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.colour("accent"), 2))
            painter.drawRoundedRect(track.adjusted(-1, -1, 1, 1), 11, 11)


class DropDown(QComboBox):
    """A list to choose from, which the wheel does not change in passing.

    Attributes:
        usual_width: Width it takes where there is room, so that lists under each other are even.
    """

    usual_width = 0

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumHeight(theme.CONTROL_HEIGHT)
        self.setMaxVisibleItems(16)
        # The one that follows the style sheet.
        self.setItemDelegate(QStyledItemDelegate(self))
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        widest = max(
            (self.fontMetrics().horizontalAdvance(self.itemText(i)) for i in range(self.count())),
            default=60,
        )
        return QSize(max(widest + 44, self.usual_width), theme.CONTROL_HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(90, theme.CONTROL_HEIGHT)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave the wheel to what scrolls."""
        event.ignore()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        is_over = bool(option.state & QStyle.StateFlag.State_MouseOver)
        edge = theme.colour("control" if self.isEnabled() else "border")
        width = 1.0
        if self.hasFocus():
            edge, width = theme.colour("accent"), 2.0
        half = width / 2
        painter.setPen(QPen(edge, width))
        painter.setBrush(theme.colour("base" if is_over and self.isEnabled() else "raised"))
        rect = QRectF(self.rect()).adjusted(half, half, -half, -half)
        painter.drawRoundedRect(rect, theme.RADIUS, theme.RADIUS)
        painter.setPen(self.palette().color(QPalette.ColorRole.ButtonText))
        inner = self.rect().adjusted(10, 0, -28, 0)
        text = self.fontMetrics().elidedText(
            self.currentText(), Qt.TextElideMode.ElideRight, inner.width()
        )
        painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        chevron = QRectF(self.width() - 24, (self.height() - 14) / 2, 14, 14)
        paint_icon(painter, "down", chevron, theme.tokens().muted)


class Card(QFrame):
    """A titled group on its own ground."""

    def __init__(self, title: str = "", remark: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("card", "true")
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(theme.GAP_4, theme.GAP_3, theme.GAP_4, theme.GAP_4)
        self.body.setSpacing(theme.GAP_2)
        self.head = QHBoxLayout()
        self.head.setSpacing(theme.GAP_2)
        if title:
            self.title = QLabel(title)
            self.title.setFont(theme.group_font())
            self.head.addWidget(self.title)
            self.head.addStretch(1)
            self.body.addLayout(self.head)
        if remark:
            label = TonedLabel(remark)
            label.setWordWrap(True)
            self.body.addWidget(label)


class Disclosure(QToolButton):
    """A line that shows or hides what is under it."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setText(text)
        self.setCheckable(True)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.setIconSize(QSize(14, 14))
        self.setProperty("plain", "true")
        self._turn(False)
        self.toggled.connect(self._turn)

    def _turn(self, is_open: bool) -> None:
        self.setIcon(icon("down" if is_open else "right", "muted"))


def rule() -> QFrame:
    """Return a thin line between parts of a card."""
    line = QFrame()
    line.setFixedHeight(1)
    line.setAutoFillBackground(True)
    line.setBackgroundRole(QPalette.ColorRole.Mid)
    return line


def upright_rule() -> QFrame:
    """Return a thin upright line between parts of the window."""
    line = QFrame()
    line.setFixedWidth(1)
    line.setAutoFillBackground(True)
    line.setBackgroundRole(QPalette.ColorRole.Mid)
    return line


def picture_button(name: str, text: str, *, token: str = "text") -> QPushButton:
    """Return a button with the icon called ``name`` before ``text``."""
    # The style sheet leaves no room between the two.
    return QPushButton(icon(name, token), f" {text}")


def tool_button(name: str, text: str, *, token: str = "text") -> QToolButton:
    """Return a flat button with the icon called ``name``; ``text`` is its name and tooltip."""
    button = QToolButton()
    button.setIcon(icon(name, token))
    button.setIconSize(QSize(16, 16))
    button.setToolTip(text)
    button.setAccessibleName(text)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.setFixedSize(28, 28)
    return button
