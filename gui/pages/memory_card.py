"""What the run is expected to take of the card and of main memory, part by part."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from gui import theme
from gui.forms.controls import Card, TonedLabel
from gui.shell.estimate import Estimate, memory_arrangement, memory_parts, memory_words
from gui.words import memory_text, tr

_BAR, _LINE, _HEAD = 18, 20, 24
_MOST_PARTS = 8
_SMALL = 2**20


def shown_parts(parts: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the parts worth a line of their own; what is left is one part."""
    large = [part for part in parts if part[1] >= _SMALL]
    shown = large[:_MOST_PARTS] if len(large) <= _MOST_PARTS else large[: _MOST_PARTS - 1]
    rest = sum(size for _, size in parts) - sum(size for _, size in shown)
    return [*shown, (tr("everything else"), rest)] if rest >= _SMALL else shown


class MemoryBar(QWidget):
    """One memory as a bar of its parts, with a legend."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._parts: list[tuple[str, int]] = []
        self._whole = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(title)

    def show_parts(self, parts: Sequence[tuple[str, int]], whole: str) -> None:
        """Show ``parts``, the largest first, of a memory that ``whole`` says the need of."""
        self._parts = shown_parts(parts)
        self._whole = whole
        words = (f"{tr(name)} {memory_text(size)}" for name, size in self._parts)
        self.setAccessibleDescription(f"{whole}: {', '.join(words)}")
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        rows = -(-len(self._parts) // 2)
        return QSize(400, _HEAD + _BAR + 8 + rows * _LINE)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(300, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        total = sum(size for _, size in self._parts)
        painter.setPen(theme.colour("text"))
        head = QRect(0, 0, self.width(), _HEAD)
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(head, Qt.AlignmentFlag.AlignLeft | middle, self._title)
        painter.setFont(theme.number_font())
        painter.drawText(head, Qt.AlignmentFlag.AlignRight | middle, self._whole)
        x = 0.0
        column = (self.width() - theme.GAP_5) // 2
        for number, (name, size) in enumerate(self._parts):
            colour = self._colour(number)
            width = self.width() * size / max(total, 1)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            painter.drawRect(QRectF(x, _HEAD, max(1.0, width - 1.5), _BAR))
            x += width
            left = (self.width() - column) * (number % 2)
            top = _HEAD + _BAR + 8 + (number // 2) * _LINE
            painter.drawRoundedRect(QRectF(left, top + 5, 10, 10), 2, 2)
            painter.setPen(theme.colour("muted"))
            line = QRect(left + 18, top, column - 18, _LINE)
            painter.drawText(line, Qt.AlignmentFlag.AlignLeft | middle, tr(name).capitalize())
            painter.drawText(line, Qt.AlignmentFlag.AlignRight | middle, memory_text(size))

    def _colour(self, number: int) -> QColor:
        series = theme.tokens().series
        if number >= 2 * len(series):
            return theme.colour("muted")
        tint = QColor(series[number % len(series)])
        # The second round is fainter; the legend's order tells them apart without colour.
        tint.setAlphaF(1.0 if number < len(series) else 0.5)
        return tint


class MemoryCard(Card):
    """The engine's forecast; says what is missing while there is none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("What it takes"), parent=parent)
        self.words = TonedLabel()
        self.words.setWordWrap(True)
        self.vram = MemoryBar(tr("Graphics memory"))
        self.ram = MemoryBar(tr("Main memory"))
        for widget in (self.words, self.vram, self.ram):
            self.body.addWidget(widget)
        self.show_estimate(None)

    def show_estimate(self, estimate: Estimate | None) -> None:
        """Show what the engine's check forecast."""
        for bar, name in ((self.vram, "vram"), (self.ram, "ram")):
            parts = memory_parts(estimate, name) if estimate is not None else []
            bar.show_parts(parts, memory_words(estimate, name) if estimate is not None else "")
            bar.setVisible(bool(parts))
        words = memory_arrangement(estimate) if estimate is not None else ""
        waiting = tr("Shown once model and pictures are chosen and have been checked.")
        self.words.setText(words or waiting)
