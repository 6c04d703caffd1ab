"""Which timesteps were drawn so far, over what the run will draw, and the loss at each of them."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from gui import theme
from gui.charts.card import ChartCard, LegendEntry
from gui.charts.numbers import short_number, whole_text
from gui.charts.run_history import RunHistory
from gui.charts.timestep_bars import TimestepBars, bars_of
from gui.words import tr


class _Bars(QWidget):
    """Paints `TimestepBars`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMouseTracking(True)
        self.setMinimumHeight(150)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._bars = TimestepBars()
        self._hovered: int | None = None
        theme.notifier().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """Return a comfortable size."""
        return QSize(400, 200)

    def show_bars(self, bars: TimestepBars) -> None:
        """Paint ``bars`` if they are others."""
        if bars != self._bars:
            self._bars = bars
            self.update()

    @property
    def hovered(self) -> int | None:
        """The bar under the pointer."""
        return self._hovered

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow the pointer."""
        area, count = self._area(), len(self._bars.drawn)
        x = event.position().x()
        inside = count and area.left() <= x < area.right()
        hovered = int((x - area.left()) / area.width() * count) if inside else None
        self._hover(hovered)

    def leaveEvent(self, event: object) -> None:
        """Forget the pointer."""
        self._hover(None)

    def _hover(self, bar: int | None) -> None:
        if bar != self._hovered:
            self._hovered = bar
            self.update()
            card = self.parent()
            if isinstance(card, TimestepChart):
                card.read(bar)

    def _area(self) -> QRectF:
        return QRectF(62, 6, max(10, self.width() - 62 - 58), max(10, self.height() - 6 - 36))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint axes, bars and losses."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(theme.small_font())
        area = self._area()
        top = float(max((*self._bars.planned, *self._bars.drawn, 1)))
        self._paint_grid(painter, area, top)
        if self._bars.drawn:
            self._paint_bars(painter, area, top)
            self._paint_losses(painter, area)

    def _paint_grid(self, painter: QPainter, area: QRectF, top: float) -> None:
        muted, line = QColor(theme.tokens().muted), theme.colour("border", 0.5)
        line_height = painter.fontMetrics().height()
        for part in (0.0, 0.5, 1.0):
            y = area.bottom() - part * area.height()
            painter.setPen(QPen(line, 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(muted)
            if not (part * top).is_integer():
                continue  # half a sample is none
            box = QRectF(0, y - line_height / 2, area.left() - 6, line_height)
            flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(box, flags, whole_text(round(part * top)))
        painter.setPen(muted)
        for timestep in range(0, 1001, 200):
            x = area.left() + timestep / 1000 * area.width()
            box = QRectF(x - 30, area.bottom() + 3, 60, line_height)
            label = str(min(timestep, 999))
            painter.drawText(box, Qt.AlignmentFlag.AlignHCenter, label)
        below = QRectF(area.left(), area.bottom() + 3 + line_height, area.width(), line_height)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, tr("fine detail"))
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, tr("composition"))

    def _paint_bars(self, painter: QPainter, area: QRectF, top: float) -> None:
        count = len(self._bars.drawn)
        width = area.width() / count
        fill, outline = theme.colour("accent", 0.75), theme.colour("control")
        ground = theme.colour("raised")
        gap = min(2.0, width * 0.15)
        for number, drawn in enumerate(self._bars.drawn):
            x = area.left() + number * width + gap / 2
            if self._bars.planned:
                height = self._bars.planned[number] / top * area.height()
                painter.setPen(QPen(outline, 1))
                painter.setBrush(ground)
                painter.drawRect(QRectF(x, area.bottom() - height, width - gap, height))
            height = drawn / top * area.height()
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(fill.lighter(115) if number == self._hovered else fill)
            inset = min(2.0, width * 0.15) if self._bars.planned else 0.0
            painter.drawRect(
                QRectF(x + inset, area.bottom() - height, width - gap - 2 * inset, height)
            )

    def _paint_losses(self, painter: QPainter, area: QRectF) -> None:
        losses = np.array(self._bars.losses)
        known = losses[np.isfinite(losses)]
        if not len(known):
            return
        # Two digits, so that the numbers beside it are short.
        top = float(f"{float(known.max()) * 1.1:.2g}") or 1.0
        width = area.width() / len(losses)
        ink = QColor(theme.tokens().series[1])
        line_height = painter.fontMetrics().height()
        painter.setPen(ink)
        for part in (0.0, 0.5, 1.0):
            y = area.bottom() - part * area.height()
            box = QRectF(area.right() + 6, y - line_height / 2, 52, line_height)
            flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(box, flags, f"{part * top:.3g}")
        painter.setBrush(ink)
        painter.setPen(QPen(QColor(theme.tokens().base), 1.5))
        for number, loss in enumerate(losses):
            if math.isfinite(loss):
                x = area.left() + (number + 0.5) * width
                y = area.bottom() - loss / top * area.height()
                painter.drawEllipse(QPointF(x, y), 4.0, 4.0)


class TimestepChart(ChartCard):
    """The card of the timestep bars."""

    def __init__(self, parent: QWidget | None = None) -> None:
        self._canvas = _Bars()
        legend = (
            LegendEntry(tr("drawn"), 0, "smooth"),
            LegendEntry(tr("mean loss"), 1, "dots"),
        )
        super().__init__(tr("Timesteps"), tr("samples"), legend, self._canvas, parent)
        self.setAccessibleName(tr("Timesteps"))
        self.setToolTip(tr("As they are drawn, before the shift of rectified flow."))
        self._shown = TimestepBars()

    def draw(self, history: RunHistory) -> None:
        """Show what ``history`` drew."""
        self._shown = bars_of(history)
        self._canvas.show_bars(self._shown)
        self.read(self._canvas.hovered)

    def read(self, bar: int | None) -> None:
        """Tell the numbers of ``bar``."""
        bars = self._shown
        if bar is None or bar >= len(bars.drawn):
            self.set_readout("")
            return
        width = 1000 // len(bars.drawn)
        name = f"{bar * width}\N{EN DASH}{(bar + 1) * width - 1}"
        drawn = whole_text(bars.drawn[bar])
        if bars.planned:
            drawn = tr("{0} of {1} drawn").format(drawn, whole_text(bars.planned[bar]))
        else:
            drawn = tr("{0} drawn").format(drawn)
        loss = tr("mean loss {0}").format(short_number(bars.losses[bar]))
        self.set_readout(f"{name}   {drawn}   {loss}")
