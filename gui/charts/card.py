"""The frame around a chart: title, legend, and what the crosshair reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QRectF, QSize, Qt, Slot
from PySide6.QtGui import QColor, QFont, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.charts.lines import LineStyle


@dataclass(frozen=True)
class LegendEntry:
    """One series in the legend."""

    label: str
    ink: int
    style: LineStyle


class Swatch(QWidget):
    """A short piece of a series, drawn as the chart draws it."""

    def __init__(self, entry: LegendEntry, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entry = entry
        self.setFixedSize(QSize(18, 12))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = QColor(theme.tokens().series[self._entry.ink])
        middle = self.height() / 2
        if self._entry.style == "dots":
            painter.setBrush(ink)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawEllipse(QRectF(self.width() / 2 - 3, middle - 3, 6, 6))
            return
        if self._entry.style == "faint":
            ink.setAlphaF(0.45)
        dash = Qt.PenStyle.DashLine if self._entry.style == "dashed" else Qt.PenStyle.SolidLine
        painter.setPen(QPen(ink, 2.0 if self._entry.style == "smooth" else 1.4, dash))
        painter.drawLine(1, round(middle), self.width() - 1, round(middle))


class ChartCard(QFrame):
    """A card with a head line and a body."""

    def __init__(
        self,
        title: str,
        unit: str,
        legend: tuple[LegendEntry, ...],
        body: QWidget,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setProperty("card", True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._title = QLabel(title, self)
        self._title.setFont(theme.group_font())
        self._unit = QLabel(unit, self)
        self._readout = QLabel(self)
        self._readout.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._readout.setTextFormat(Qt.TextFormat.PlainText)
        # A long read-out must not widen the card.
        self._readout.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        head = QHBoxLayout()
        head.setSpacing(theme.GAP_2)
        head.addWidget(self._title)
        head.addWidget(self._unit)
        head.addSpacing(theme.GAP_2)
        self._legend: list[tuple[Swatch, QLabel]] = []
        for entry in legend:
            swatch, label = Swatch(entry, self), QLabel(entry.label, self)
            head.addWidget(swatch)
            head.addWidget(label)
            self._legend.append((swatch, label))
        self._known = [True] * len(self._legend)
        head.addWidget(self._readout, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(theme.GAP_3, theme.GAP_2, theme.GAP_2, theme.GAP_2)
        layout.setSpacing(theme.GAP_1)
        layout.addLayout(head)
        layout.addWidget(body, 1)
        theme.notifier().changed.connect(self._apply_theme)
        self._apply_theme()

    def set_readout(self, text: str) -> None:
        """Show what the crosshair is at; while it is, the legend makes room."""
        if text == self._readout.text():
            return
        self._readout.setText(text)
        self._show_legend()

    def set_known(self, known: Sequence[bool]) -> None:
        """Say of each series whether it has anything to show; the others leave the legend."""
        if list(known) != self._known:
            self._known = list(known)
            self._show_legend()

    def _show_legend(self) -> None:
        has_room = not self._readout.text()
        for (swatch, label), is_known in zip(self._legend, self._known, strict=True):
            swatch.setVisible(has_room and is_known)
            label.setVisible(has_room and is_known)

    @Slot()
    def _apply_theme(self) -> None:
        muted = self.palette()
        muted.setColor(muted.ColorRole.WindowText, QColor(theme.tokens().muted))
        for widget in (self._unit, self._readout, *(label for _, label in self._legend)):
            font = theme.number_font() if widget is self._readout else QFont(theme.small_font())
            widget.setFont(font)
            widget.setPalette(muted)
        for swatch, _ in self._legend:
            swatch.update()
