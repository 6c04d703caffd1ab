"""Small controls of the resume dialog, in the window's look."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QButtonGroup, QLineEdit, QRadioButton, QVBoxLayout, QWidget

from aozora.config.ticket_segments import OnResume
from gui import theme
from gui.engine.resume_tickets import RULES, TicketsLeft
from gui.forms.controls import TonedLabel
from gui.words import counted, tr, whole

_MARK = 16
TEXT_LEFT = _MARK + theme.GAP_2 + 4


class Option(QRadioButton):
    """A radio button with an outline that can be seen on a card."""

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        width = self.fontMetrics().horizontalAdvance(self.text()) + _MARK + theme.GAP_4
        return QSize(width, theme.CONTROL_HEIGHT)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(120, theme.CONTROL_HEIGHT)

    def hitButton(self, position: object) -> bool:
        """Take a click on the words too."""
        return True

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle = QPointF(_MARK / 2 + 2, self.height() / 2)
        edge = theme.colour("accent" if self.isChecked() or self.hasFocus() else "control")
        painter.setPen(QPen(edge, 2.0 if self.hasFocus() else 1.5))
        painter.setBrush(theme.colour("window"))
        painter.drawEllipse(middle, _MARK / 2 - 1, _MARK / 2 - 1)
        if self.isChecked():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colour("accent"))
            painter.drawEllipse(middle, 4.0, 4.0)
        painter.setPen(theme.colour("text" if self.isEnabled() else "muted"))
        room = QRectF(TEXT_LEFT, 0, self.width() - TEXT_LEFT, self.height())
        text = self.fontMetrics().elidedText(
            self.text(), Qt.TextElideMode.ElideRight, int(room.width())
        )
        painter.drawText(room, Qt.AlignmentFlag.AlignVCenter, text)


class CountField(QLineEdit):
    """A whole number from a minimum on, taken over with Enter or when the focus leaves.

    Signals:
        changed(): `value` is another one.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._value = self._minimum = 0
        self.setFont(theme.number_font())
        self.setFixedSize(QSize(120, theme.CONTROL_HEIGHT))
        self.editingFinished.connect(self._commit)

    @property
    def value(self) -> int:
        """The number."""
        return self._value

    @property
    def minimum(self) -> int:
        """The smallest number it takes."""
        return self._minimum

    def set_minimum(self, minimum: int) -> None:
        """Take numbers from ``minimum`` on."""
        self._minimum = minimum

    def set_value(self, value: int) -> None:
        """Show ``value``."""
        self._value = max(value, self._minimum)
        self.setText(whole(self._value))
        self._mark(False)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take the typing back with Escape; a second one closes the dialog."""
        is_edited = self.text() != whole(self._value)
        if event.key() == Qt.Key.Key_Escape and is_edited:
            self.set_value(self._value)
            return
        super().keyPressEvent(event)

    @Slot()
    def _commit(self) -> None:
        digits = "".join(c for c in self.text() if c not in " ,.'_\u00a0\u202f")
        fits = digits.isdecimal() and len(digits) < 10 and int(digits) >= self._minimum
        self._mark(not fits)
        if not fits:
            self.setToolTip(self.tr("A whole number from {0} on").format(whole(self._minimum)))
            return
        is_other = int(digits) != self._value
        self.set_value(int(digits))
        if is_other:
            self.changed.emit()

    def _mark(self, is_invalid: bool) -> None:
        self.setProperty("invalid", "true" if is_invalid else "false")
        self.style().unpolish(self)
        self.style().polish(self)

    @property
    def is_valid(self) -> bool:
        """Whether what is typed is what it holds."""
        return bool(self.property("invalid") != "true")


class TicketChoice(QWidget):
    """Asks where the samples left of a resumed run get their timestep tickets.

    Signals:
        changed(): the person chose.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.options: dict[OnResume, Option] = {rule: Option("") for rule in RULES}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, theme.GAP_1, 0, theme.GAP_1)
        column.setSpacing(theme.GAP_1)
        column.addWidget(TonedLabel(self.tr("Timestep tickets of the samples left"), tone="text"))
        group = QButtonGroup(self)
        for option in self.options.values():
            group.addButton(option)
            column.addWidget(option)
            option.clicked.connect(self.changed)

    @property
    def value(self) -> OnResume:
        """The rule that is chosen."""
        return next(rule for rule, option in self.options.items() if option.isChecked())

    def offer(self, tickets: Mapping[OnResume, TicketsLeft], chosen: OnResume) -> None:
        """Show what each rule would draw, with ``chosen`` marked."""
        for rule, option in self.options.items():
            option.setText(tickets_words(rule, tickets[rule]))
            option.setChecked(rule == chosen)
            option.updateGeometry()


def tickets_words(rule: OnResume, left: TicketsLeft) -> str:
    """Return in words what ``rule`` would draw."""
    # How many batches are short only the pictures tell, so new counts are near, not exact.
    new = counted(left.new, tr("new ticket"), tr("new tickets"))
    if rule == "rebuild":
        unused = counted(left.unused, tr("old one is dropped"), tr("old ones are dropped"))
        return tr("Deal anew: about {0}; {1}").format(new, unused)
    old = counted(left.old, tr("old ticket"), tr("old tickets"))
    if left.unused:
        unused = counted(left.unused, tr("is never drawn"), tr("are never drawn"))
        return tr("Finish the old pool: {0} to the end; {1}").format(old, unused)
    if not left.new:
        return tr("Finish the old pool: {0} to the end; the new one never begins").format(old)
    return tr("Finish the old pool: {0}, then about {1}").format(old, new)
