"""The frame around a chart: title, legend, and what the crosshair reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Slot
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.charts.lines import LineStyle

_SWATCH_WIDTH = 18
_LEGEND_ROOM = 500


@dataclass(frozen=True)
class LegendEntry:
    """One series in the legend; without a number of a series colour it is muted."""

    label: str
    ink: int | None
    style: LineStyle

    @property
    def colour(self) -> QColor:
        """The colour of the theme that holds now."""
        tokens = theme.tokens()
        return QColor(tokens.muted if self.ink is None else tokens.series[self.ink])


class Legend(QWidget):
    """The series with a short piece of each, drawn as the chart draws it.

    It takes what room there is: where that is too small the last ones are left out, and the tooltip
    names them all.
    """

    def __init__(self, entries: tuple[LegendEntry, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries = entries
        self._known = [True] * len(entries)
        self._guest: LegendEntry | None = None
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setFont(theme.small_font())
        self.set_known(self._known)

    def sizeHint(self) -> QSize:
        """Return the height of a line."""
        return QSize(0, self.fontMetrics().height() + 2)

    def set_guest(self, entry: LegendEntry | None) -> None:
        """Show one more series at the end, or none."""
        self._guest = entry
        self.set_known(self._known)

    def set_known(self, known: Sequence[bool]) -> None:
        """Show the series that have something to show."""
        self._known = list(known)
        names = [entry.label for entry in self._shown()]
        self.setToolTip(", ".join(names))
        self.setAccessibleName(", ".join(names))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        left = 0
        for entry in self._shown():
            label = entry.label
            if entry is self._guest:
                room = self.width() - left - _SWATCH_WIDTH - 8
                label = self.fontMetrics().elidedText(label, Qt.TextElideMode.ElideMiddle, room)
            width = self.fontMetrics().horizontalAdvance(label)
            if left + _SWATCH_WIDTH + 6 + width > self.width():
                return
            self._paint_swatch(painter, entry, left)
            left += _SWATCH_WIDTH + 6
            painter.setPen(QColor(theme.tokens().muted))
            box = QRectF(left, 0, width + 2, self.height())
            painter.drawText(box, Qt.AlignmentFlag.AlignVCenter, label)
            left += width + theme.GAP_3

    def _shown(self) -> list[LegendEntry]:
        shown = [entry for entry, known in zip(self._entries, self._known, strict=True) if known]
        return [*shown, self._guest] if self._guest is not None else shown

    def _paint_swatch(self, painter: QPainter, entry: LegendEntry, left: int) -> None:
        ink = entry.colour
        middle = self.height() / 2
        if entry.style == "dots":
            painter.setBrush(ink)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawEllipse(QRectF(left + _SWATCH_WIDTH / 2 - 3, middle - 3, 6, 6))
            return
        if entry.style == "faint":
            ink.setAlphaF(0.45)
        dash = Qt.PenStyle.DashLine if entry.style == "dashed" else Qt.PenStyle.SolidLine
        painter.setPen(QPen(ink, 2.0 if entry.style == "smooth" else 1.4, dash))
        painter.drawLine(QPointF(left, middle), QPointF(left + _SWATCH_WIDTH, middle))


class ChartCard(QFrame):
    """A card with a head line and a body; a note stands in the head where there is room."""

    def __init__(
        self,
        title: str,
        unit: str,
        legend: tuple[LegendEntry, ...],
        body: QWidget,
        parent: QWidget | None = None,
        *,
        note: str = "",
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
        self._legend = Legend(legend, self)
        self._known = [True] * len(legend)
        head.addWidget(self._legend, 1)
        self._note = QLabel(note, self)
        head.addWidget(self._note)
        head.addWidget(self._readout, 1)
        self._readout.hide()
        self._note.hide()
        self.setToolTip(note)
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
        self._readout.setVisible(bool(text))
        self._legend.setVisible(not text)
        self._show_note()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show the note where there is room for it."""
        super().resizeEvent(event)
        self._show_note()

    def _show_note(self) -> None:
        has_room = self.width() - self._note.sizeHint().width() >= _LEGEND_ROOM
        is_free = bool(self._note.text()) and not self._readout.text()
        self._note.setVisible(is_free and has_room)

    def set_guest(self, entry: LegendEntry | None) -> None:
        """Put one more series into the legend, or take it out."""
        self._legend.set_guest(entry)

    def set_known(self, known: Sequence[bool]) -> None:
        """Say of each series whether it has anything to show; the others leave the legend."""
        if list(known) != self._known:
            self._known = list(known)
            self._legend.set_known(known)

    @Slot()
    def _apply_theme(self) -> None:
        muted = self.palette()
        muted.setColor(muted.ColorRole.WindowText, QColor(theme.tokens().muted))
        self._unit.setFont(theme.small_font())
        self._note.setFont(theme.small_font())
        self._note.setPalette(muted)
        self._readout.setFont(theme.number_font())
        self._unit.setPalette(muted)
        self._readout.setPalette(muted)
        self._legend.update()
