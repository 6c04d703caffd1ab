"""One plot with the window's look and hands: box zoom, crosshair, marks.

Drag zooms to a box; the middle button, Shift, or an axis pans; double-click shows everything again;
the wheel zooms with Ctrl held (without it the page scrolls).
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal, Slot
from PySide6.QtGui import QColor, QMouseEvent, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QWidget

from gui import theme
from gui.charts.axes import PlaceAxis, ValueAxis
from gui.charts.run_history import Mark

Numbers = NDArray[np.float64]

_MOST_LINES = 60
_LEAST_BOX_PX = 8.0
_NEAR_PX = 5.0
_NOT_CHOSEN = (math.nan, math.nan)
_MARK_INKS = {"checkpoint": "ok", "resume": "accent", "skipped": "error"}


class _Box(pg.ViewBox):  # type: ignore[misc]
    """A view box that tells what the person wants and leaves it to others to do it."""

    zoomed = Signal(object)
    panned = Signal(float, float)
    reset = Signal()

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self.setMouseMode(pg.ViewBox.RectMode)
        self.is_dragged = False

    def mouseDoubleClickEvent(self, event: Any) -> None:
        """Show everything again."""
        event.accept()
        self.reset.emit()

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        """Zoom to a box, or pan; ``axis`` is 0 or 1 when an axis is dragged."""
        ev.accept()
        if ev.button() not in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            return
        self.is_dragged = not ev.isFinish()
        is_shifted = bool(ev.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        if axis is None and ev.button() == Qt.MouseButton.LeftButton and not is_shifted:
            self._stretch(ev)
        else:
            self._pan(ev, axis)

    def wheelEvent(self, ev: Any, axis: int | None = None) -> None:
        """Zoom along x."""
        super().wheelEvent(ev, 0)
        (x0, x1), _ = self.viewRange()
        self.zoomed.emit((x0, x1, math.nan, math.nan))

    def _stretch(self, ev: Any) -> None:
        if not ev.isFinish():
            self.updateScaleBox(ev.buttonDownPos(), ev.pos())
            return
        self.rbScaleBox.hide()
        drawn = QRectF(self._inside(ev.buttonDownPos()), self._inside(ev.pos())).normalized()
        part = self.childGroup.mapRectFromParent(drawn).normalized()
        # A box that is flat in one direction was meant for the other alone.
        x = (part.left(), part.right()) if drawn.width() >= _LEAST_BOX_PX else _NOT_CHOSEN
        y = (part.top(), part.bottom()) if drawn.height() >= _LEAST_BOX_PX else _NOT_CHOSEN
        self.zoomed.emit((*x, *y))

    def _inside(self, point: QPointF) -> QPointF:
        area = self.rect()
        x = min(max(point.x(), area.left()), area.right())
        return QPointF(x, min(max(point.y(), area.top()), area.bottom()))

    def _pan(self, ev: Any, axis: int | None) -> None:
        moved = self.mapToView(ev.lastPos()) - self.mapToView(ev.pos())
        if axis == 1:
            _, (y0, y1) = self.viewRange()
            self.zoomed.emit((*_NOT_CHOSEN, y0 + moved.y(), y1 + moved.y()))
        else:
            self.panned.emit(moved.x(), 0.0 if axis == 0 else moved.y())


class Plot(pg.PlotWidget):  # type: ignore[misc]
    """A plot; see the module.

    Signals:
        zoomed((x0, x1, y0, y1)): the person chose a part; x or y is NaN when only the other was.
        panned(x, y): the person moved the shown part by so much.
        reset(): the person wants to see everything.
        pointed(float): where on the x axis the pointer is; NaN when it left.
    """

    zoomed = Signal(object)
    panned = Signal(float, float)
    reset = Signal()
    pointed = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        self._place_axis, self._value_axis = PlaceAxis(), ValueAxis()
        self._box = _Box()
        super().__init__(
            parent,
            viewBox=self._box,
            axisItems={"bottom": self._place_axis, "left": self._value_axis},
        )
        item = self.getPlotItem()
        item.hideButtons()
        item.setContentsMargins(0, 6, 14, 0)
        self._box.disableAutoRange()
        self._box.setDefaultPadding(0.0)
        self._box.zoomed.connect(self.zoomed)
        self._box.panned.connect(self.panned)
        self._box.reset.connect(self.reset)
        self.setMouseTracking(True)
        self.setMinimumHeight(150)
        self.setFrameShape(pg.PlotWidget.Shape.NoFrame)
        # Nearly all of it changes with each draw; piece by piece it would be painted twice.
        self.setViewportUpdateMode(pg.PlotWidget.ViewportUpdateMode.FullViewportUpdate)
        self._cross = pg.InfiniteLine(angle=90, movable=False)
        self._cross.setVisible(False)
        self.addItem(self._cross, ignoreBounds=True)
        self._mark_lines: list[Any] = []
        self._paint_ms = 0.0
        theme.notifier().changed.connect(self.apply_theme)
        self.apply_theme()

    @property
    def columns(self) -> int:
        """Width of the drawing area in physical pixels."""
        width: float = self._box.width() * self.devicePixelRatioF()
        return max(50, round(width))

    @property
    def is_dragged(self) -> bool:
        """Whether a box is being drawn, or the shown part being moved."""
        return bool(self._box.is_dragged)

    @property
    def near(self) -> float:
        """How far on the x axis the pointer may be from what it points at."""
        (start, end), _ = self._box.viewRange()
        return float((end - start) / max(1.0, self._box.width()) * _NEAR_PX)

    @property
    def is_log(self) -> bool:
        """Whether plotted values are logarithms."""
        return self._value_axis.is_log

    @Slot()
    def apply_theme(self) -> None:
        """Take the colours of the theme that holds now."""
        self.setBackground(QColor(theme.tokens().base))
        muted, line = QColor(theme.tokens().muted), theme.colour("border")
        for axis in (self._place_axis, self._value_axis):
            axis.setPen(pg.mkPen(line))
            axis.setTextPen(pg.mkPen(muted))
            axis.setTickFont(theme.small_font())
            axis.setStyle(tickLength=-3, tickTextOffset=5)
        self.showGrid(x=True, y=True, alpha=0.10 if theme.tokens().name != "contrast" else 0.3)
        self._box.rbScaleBox.setPen(pg.mkPen(theme.colour("accent"), width=1))
        self._box.rbScaleBox.setBrush(pg.mkBrush(theme.colour("accent", 0.18)))
        self._cross.setPen(pg.mkPen(theme.colour("text", 0.55), width=1))

    def set_place(self, place: str) -> None:
        """Say what the x axis counts."""
        if self._place_axis.place != place:
            self._place_axis.place = place
            self._place_axis.picture = None

    def set_log(self, is_log: bool) -> None:
        """Say whether plotted values are logarithms."""
        if self._value_axis.is_log != is_log:
            self._value_axis.is_log = is_log
            self._value_axis.picture = None

    def show_range(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Show exactly this part."""
        self._box.setRange(xRange=x, yRange=y, padding=0.0, disableAutoRange=True)

    def show_crosshair(self, place: float) -> None:
        """Draw the crosshair at ``place``; NaN hides it."""
        known = math.isfinite(place)
        self._cross.setVisible(known)
        if known:
            self._cross.setPos(place)

    def show_marks(self, marks: list[Mark], place: str) -> None:
        """Draw a line where something happened; of too many only as many as can be told apart."""
        (start, end), _ = self._box.viewRange()
        inside = [mark for mark in marks if start <= mark.place(place) <= end]
        shown = inside[:: max(1, math.ceil(len(inside) / _MOST_LINES))]
        while len(self._mark_lines) < len(shown):
            line = pg.InfiniteLine(angle=90, movable=False)
            line.setZValue(-5)
            self.addItem(line, ignoreBounds=True)
            self._mark_lines.append(line)
        for number, line in enumerate(self._mark_lines):
            line.setVisible(number < len(shown))
            if number < len(shown):
                mark = shown[number]
                dash = Qt.PenStyle.DashLine if mark.kind == "resume" else Qt.PenStyle.DotLine
                ink = theme.colour(_MARK_INKS[mark.kind], 0.8)
                line.setPen(pg.mkPen(ink, width=1, style=dash))
                line.setPos(mark.place(place))

    def take_paint_ms(self) -> float:
        """Return how much processor time painting took since the last call."""
        spent, self._paint_ms = self._paint_ms, 0.0
        return spent

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint, and keep what it costs: drawing is mostly that."""
        started = time.thread_time()
        super().paintEvent(event)
        self._paint_ms += (time.thread_time() - started) * 1000

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow the pointer."""
        super().mouseMoveEvent(event)
        position = QPointF(event.position())
        inside = self._box.sceneBoundingRect().contains(self.mapToScene(position.toPoint()))
        if inside:
            point = self._box.mapSceneToView(self.mapToScene(position.toPoint()))
            self.pointed.emit(float(point.x()))
        else:
            self.pointed.emit(math.nan)

    def leaveEvent(self, event: Any) -> None:
        """Forget the pointer."""
        super().leaveEvent(event)
        self.pointed.emit(math.nan)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom with Ctrl held; else let the page scroll."""
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(event)
        else:
            event.ignore()
