"""The learning rate over a run that is to be resumed: what was applied, and how it goes on."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Slot
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from gui import theme
from gui.charts.axes import log_text
from gui.charts.decimate import Numbers
from gui.charts.planned import PlannedRates
from gui.words import whole

_HEIGHT = 104
_LEFT = 58


class ResumeCurve(QWidget):
    """Paints the rates up to a state and those after it, on a logarithmic axis."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFont(theme.small_font())
        self.setFixedHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self.tr("Learning rate over the run"))
        self._rates: PlannedRates | None = None
        self._step = 0
        theme.notifier().changed.connect(self._apply_theme)

    def sizeHint(self) -> QSize:
        """Return a comfortable size."""
        return QSize(400, _HEIGHT)

    @property
    def rates(self) -> PlannedRates | None:
        """What is painted."""
        return self._rates

    def show_rates(self, rates: PlannedRates | None, step: int) -> None:
        """Paint ``rates`` with a mark after ``step``; without any, take no room."""
        self._rates, self._step = rates, step
        self.setVisible(rates is not None)
        self.update()

    @Slot()
    def _apply_theme(self) -> None:
        self.setFont(theme.small_font())
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        if self._rates is None:
            return
        steps = self._rates.steps(1, self._rates.end, max(50, self.width()))
        values = self._rates.at(steps)
        known = values[np.isfinite(values) & (values > 0)]
        if not len(known):
            return
        low, high = math.log10(known.min()), math.log10(known.max())
        margin = max(0.08 * (high - low), 0.1)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line = QFontMetrics(self.font()).height()
        area = QRectF(_LEFT, 4, self.width() - _LEFT - 10, self.height() - line - 10)
        scale = _Scale(area, self._rates.end, low - margin, high + margin)
        self._paint_ground(painter, scale, line, (low, high))
        before = steps <= self._step
        for part, ink in ((before, "muted"), (~before, "accent")):
            painter.setPen(QPen(theme.colour(ink), 1.8))
            painter.drawPolyline(scale.line(steps[part], values[part]))

    def _paint_ground(
        self, painter: QPainter, scale: _Scale, line: int, ends: tuple[float, float]
    ) -> None:
        area, muted = scale.area, theme.colour("muted")
        done = scale.x(self._step)
        painter.fillRect(
            QRectF(area.left(), area.top(), done - area.left(), area.height()),
            theme.colour("text", 0.05),
        )
        painter.setPen(QPen(theme.colour("border"), 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.setPen(QPen(theme.colour("accent", 0.8), 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(done, area.top()), QPointF(done, area.bottom()))
        painter.setPen(muted)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for value in ends if scale.y(ends[0]) - scale.y(ends[1]) > line else ends[1:]:
            box = QRectF(0, scale.y(value) - line / 2, _LEFT - 8, line)
            painter.drawText(box, right, log_text(value))
        end = whole(scale.end)
        free = area.right() - painter.fontMetrics().horizontalAdvance(end)
        name = self.tr("step {0}").format(whole(self._step))
        half = painter.fontMetrics().horizontalAdvance(name) / 2 + 6
        below = QRectF(area.left(), area.bottom() + 3, area.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, end)
        middle = min(max(done, area.left() + half), free - half)
        place = QRectF(middle - half, area.bottom() + 3, 2 * half, line)
        painter.drawText(place, Qt.AlignmentFlag.AlignHCenter, name)


class _Scale:
    """From steps and rates to places in ``area``."""

    def __init__(self, area: QRectF, end: int, low: float, high: float) -> None:
        self.area, self.end = area, end
        self._low, self._high = low, high

    def x(self, step: float) -> float:
        """Return where ``step`` is."""
        share = (step - 1) / max(self.end - 1, 1)
        return self.area.left() + min(max(share, 0.0), 1.0) * self.area.width()

    def y(self, exponent: float) -> float:
        """Return where ten to the power of ``exponent`` is; below the area is its bottom."""
        share = (max(exponent, self._low) - self._low) / (self._high - self._low)
        return self.area.bottom() - share * self.area.height()

    def line(self, steps: Numbers, rates: Numbers) -> QPolygonF:
        """Return the line through ``rates``; what is not known is left out, 0 is the bottom."""
        points = [
            QPointF(self.x(step), self.y(math.log10(rate) if rate > 0 else -math.inf))
            for step, rate in zip(steps.tolist(), rates.tolist(), strict=True)
            if math.isfinite(rate)
        ]
        return QPolygonF(points)
